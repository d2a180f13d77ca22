"""Ranking metrics of one list, as their definitions read."""

import numpy as np


def plain(name, items, test, k):
    """A metric of one list, as its definition reads."""
    items, test = [int(item) for item in items if item >= 0], {int(item) for item in test}
    if not test:
        return np.nan
    if name == "auc":
        others = [place for place, item in enumerate(items) if item not in test]
        found = [place for place, item in enumerate(items) if item in test]
        return np.mean([p < o for p in found for o in others]) if found and others else np.nan
    hits = [item in test for item in items[:k]]
    best = min(k, len(test))
    if name == "precision":
        return sum(hits) / k
    if name == "recall":
        return sum(hits) / len(test)
    if name == "truncated_recall":
        return sum(hits) / best
    if name == "hit_rate":
        return float(any(hits))
    if name == "reciprocal_rank":
        return next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0)
    if name == "average_precision":
        return sum(sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit) / best
    gain = sum(1 / np.log2(place + 1) for place, hit in enumerate(hits, 1) if hit)
    return gain / sum(1 / np.log2(place + 1) for place in range(1, best + 1))

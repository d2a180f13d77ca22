"""What is kept of ratings once a model is fitted to them: a few sums for each row. Knows tensors only."""

from dataclasses import dataclass

import numpy as np
import torch

WIDTH = 32  # of a sketch at least, the constant aside
LEARNED = 0.999  # of the rows' variance that a sketch's own directions hold
FAINTEST = 1e-6  # of a feature's variance: what a direction with less tells are the rounding errors of float32 sums
ITERATIONS = 40  # of conjugate gradients
ACCURACY = 1e-10  # of their residual, in the square


@dataclass(frozen=True)
class Sketch:
    r"""Sums of weighted residuals times features of the other side, for each user and for each item.

    With residuals e, what ratings differ by from a model, a user has :math:`h_u = \sum_i w_{ui} e_{ui} f_i` and an item
    :math:`h_i = \sum_u w_{ui} e_{ui} g_u`. The features f of the items are one, the directions in which their rows differ, and
    random numbers: as a gradient of the loss the sums say where ratings pull the present rows, and in random directions where they
    would pull others. They are a linear function of the ratings, and no larger than the model's own rows (33 numbers at least).

    Attributes
    ----------
    users, items : ndarray of shape (n_users, width) and (n_items, width)
        h.
    user_directions, item_directions : ndarray of shape (n_factors, n_learned)
        Those of the rows that are features, of a length that gives these unit variance.
    seed : int
        Of the random features.
    """

    users: np.ndarray
    items: np.ndarray
    user_directions: np.ndarray
    item_directions: np.ndarray
    seed: int

    @classmethod
    def take(cls, pairs, residual, weight, rows, seed=0):
        """Sketch residuals.

        Parameters
        ----------
        pairs : Pairs
        residual : Tensor of shape (n_pairs,)
            Ratings less their predictions, user-major.
        weight : Tensor of shape (n_pairs,) or None
        rows : tuple of Tensor of shape (n_users, n_factors) and (n_items, n_factors)
            The model's; they may have no columns.
        seed : int
            Of the random features: another one for each sketch of a stream, so that none loses the same directions again.

        Returns
        -------
        Sketch
            As NumPy.
        """
        directions = [_directions(side) for side in rows]
        of_users, of_items = _features(rows, directions, seed)
        pulls = residual if weight is None else residual * weight
        by_item = pulls.index_select(0, pairs.T.order)
        sums = _sums(pairs, pulls, of_items), _sums(pairs.T, by_item, of_users)
        users, items, *own = (part.cpu().numpy() for part in (*sums, *directions))
        return cls(users, items, own[0], own[1], seed)

    def recall(self, pairs, weight, rows):
        """The smallest residuals, in the mean square, that have these sums.

        Parameters
        ----------
        pairs, weight, rows
            As in ``take``, in the same order of the rows; a pair that came twice may be one of the summed weight.

        Returns
        -------
        Tensor of shape (n_pairs,)
            Of each pair a sum of a function linear in its item's features and one linear in its user's, by conjugate gradients.
        """
        counts = pairs.sums(weight)
        given = self.user_directions, self.item_directions
        directions = [torch.from_numpy(own).to(side) for side, own in zip(rows, given, strict=True)]
        raw = [torch.cat([torch.ones_like(side[:, :1]), side], 1).double() for side in _features(rows, directions, self.seed)]
        mixes = [_whitening(side, count) for side, count in zip(raw, counts, strict=True)]
        of_users, of_items = ((side @ mix).to(rows[0]) for side, mix in zip(raw, mixes, strict=True))
        sums = [torch.from_numpy(side).to(raw[0]) for side in (self.users, self.items)]
        unit = max(float(side.abs().max()) for side in sums) or 1.0  # squares must fit in float32
        pull = [(side / unit @ mix).to(rows[0]) for side, mix in zip(sums, mixes[::-1], strict=True)]
        bends = [count.to(side)[:, None].clamp_min(torch.finfo(side.dtype).tiny) for side, count in zip(rows, counts, strict=True)]

        def dots(users, items):
            return pairs.dots(torch.cat([users, of_users], 1), torch.cat([of_items, items], 1))

        step = [side / bend for side, bend in zip(pull, bends, strict=True)]
        power = start = sum(float((a * b).sum()) for a, b in zip(pull, step, strict=True))
        found = torch.zeros(pairs.n_pairs, dtype=of_users.dtype, device=of_users.device)
        for _ in range(ITERATIONS):
            if not power > ACCURACY * start:
                break
            move = dots(*step)
            weighted = move if weight is None else move * weight
            length = power / float(torch.dot(move, weighted))
            found.add_(move, alpha=length)
            pull[0].sub_(pairs.user_sums(weighted, of_items), alpha=length)
            pull[1].sub_(pairs.item_sums(weighted, of_users), alpha=length)
            scaled = [side / bend for side, bend in zip(pull, bends, strict=True)]
            last, power = power, sum(float((a * b).sum()) for a, b in zip(pull, scaled, strict=True))
            step = [a + power / last * b for a, b in zip(scaled, step, strict=True)]
        return found.mul_(unit)


def _directions(rows):
    """Orthogonal directions (n_factors, n_learned) in which rows differ, but for the last of their variance, each scaled to one."""
    if rows.shape[1] == 0:
        return rows.new_zeros(0, 0)
    deviation = rows - rows.mean(0)
    unit = float(deviation.abs().max()) or 1.0
    deviation = deviation / unit
    variance, basis = torch.linalg.eigh((deviation.T @ deviation).double() / len(rows))
    variance, basis = variance.flip(0).clamp_min(torch.finfo(rows.dtype).tiny), basis.flip(1)
    n_learned = min(int((variance.cumsum(0) < LEARNED * variance.sum()).sum()) + 1, rows.shape[1])
    return (basis / variance.sqrt() / unit)[:, :n_learned].to(rows)


def _features(rows, directions, seed):
    """Of both sides the rows, less their mean, along some directions, and random numbers: (n, max(n_factors, WIDTH)) each."""
    found = []
    for at, (side, own) in enumerate(zip(rows, directions, strict=True)):
        n, k = side.shape
        generator = torch.Generator("cpu").manual_seed(seed + at)
        random = torch.randn(n, max(k, WIDTH) - own.shape[1], generator=generator, dtype=side.dtype, device="cpu")
        found.append(torch.cat([(side - side.mean(0)) @ own, random.to(side.device)], 1))
    return found


def _sums(pairs, value, features):
    """Sums over each row's pairs of values, and of values times features: (n_rows, 1 + n_features)."""
    return torch.cat([pairs.row_sums(value)[:, None], pairs.user_sums(value, features)], 1)


def _whitening(features, count):
    """The matrix (n_features, width), float64, that makes features orthonormal in the mean over the observations."""
    power, basis = torch.linalg.eigh((features * (count / count.sum())[:, None]).T @ features)
    kept = power > FAINTEST
    return basis[:, kept] / power[kept].sqrt()

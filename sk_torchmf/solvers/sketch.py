"""What is kept of ratings once a model is fitted to them: a few sums for each row. Knows tensors only."""

from dataclasses import dataclass

import numpy as np
import torch

WIDTH = 32  # of a sketch at least, the constant aside
LEARNED = 0.999  # of the rows' variance that a sketch's own directions hold
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
    user_mix, item_mix : ndarray of shape (n_features, width), float64
        What makes orthonormal features, in the mean over the observations, of a side's raw ones.
    user_directions, item_directions : ndarray of shape (n_factors, n_learned)
        Those of the rows that are features.
    seed : int
        Of the random features.
    """

    users: np.ndarray
    items: np.ndarray
    user_mix: np.ndarray
    item_mix: np.ndarray
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
        counts = pairs.sums(weight)
        directions = tuple(_directions(side, count) for side, count in zip(rows, counts, strict=True))
        raw = [_raw(side, own, seed + at) for at, (side, own) in enumerate(zip(rows, directions, strict=True))]
        mixes = [_whitening(side, count) for side, count in zip(raw, counts, strict=True)]
        of_users, of_items = (side @ mix.to(side) for side, mix in zip(raw, mixes, strict=True))
        pulls = residual if weight is None else residual * weight
        parts = pairs.user_sums(pulls, of_items), pairs.item_sums(pulls, of_users), *mixes, *directions
        users, items, *known = (part.cpu().numpy() for part in parts)
        return cls(users, items, known[0], known[1], known[2], known[3], seed)

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
        mixes = (torch.from_numpy(mix) for mix in (self.user_mix, self.item_mix))
        given = self.user_directions, self.item_directions
        directions = (torch.from_numpy(own).to(side) for side, own in zip(rows, given, strict=True))
        of_users, of_items = (
            _raw(side, own, self.seed + at) @ mix.to(side)
            for at, (side, own, mix) in enumerate(zip(rows, directions, mixes, strict=True))
        )
        bends = [count.to(side)[:, None].clamp_min(torch.finfo(side.dtype).tiny) for side, count in zip(rows, counts, strict=True)]
        width = of_items.shape[1]

        def dots(users, items):
            return pairs.dots(torch.cat([users, of_users], 1), torch.cat([of_items, items], 1))

        pull = [torch.from_numpy(side).to(of_users, copy=True) for side in (self.users, self.items)]
        step = [side / bend for side, bend in zip(pull, bends, strict=True)]
        power = start = sum(float((a * b).sum()) for a, b in zip(pull, step, strict=True))
        found = torch.zeros(pairs.n_pairs, dtype=of_users.dtype, device=of_users.device)
        for _ in range(ITERATIONS if width else 0):
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
        return found


def _directions(rows, count):
    """Orthonormal directions (n_factors, n_learned) in which the rows with a count differ, but for the last of their variance."""
    known = rows[count > 0].double()
    if known.shape[1] == 0:
        return rows.new_zeros(0, 0)
    variance, basis = torch.linalg.eigh((known - known.mean(0)).T @ (known - known.mean(0)))
    share = variance.flip(0).clamp_min(0).cumsum(0) / variance.sum().clamp_min(torch.finfo(variance.dtype).tiny)
    n_learned = min(int((share < LEARNED).sum()) + 1, rows.shape[1])
    return basis.flip(1)[:, :n_learned].to(rows)


def _raw(rows, directions, seed):
    """One, the rows along some directions, and random numbers: (n, 1 + max(n_factors, WIDTH))."""
    n, k = rows.shape
    n_random = max(k, WIDTH) - directions.shape[1]
    random = torch.randn(n, n_random, generator=torch.Generator("cpu").manual_seed(seed), dtype=rows.dtype, device="cpu")
    return torch.cat([torch.ones_like(rows[:, :1]) if k else rows.new_ones(n, 1), rows @ directions, random.to(rows.device)], 1)


def _whitening(features, count):
    """The matrix (n_features, width) that makes features orthonormal in the mean over the observations; on the CPU."""
    share = (count / count.sum()).to(features)[:, None]
    power, basis = torch.linalg.eigh(((features * share).T @ features).double())
    kept = power > 1e-9 * power.max()
    return (basis[:, kept] / power[kept].sqrt()).cpu()

"""The ratings of a plan's blocks by users or by items, and some rows' of them padded to one length. Knows no solver."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Ratings(NamedTuple):
    """A sparse matrix of ratings by its rows.

    Attributes
    ----------
    pointers : Tensor of shape (n_rows + 1,), int64
        CSR row pointers.
    columns : Tensor of shape (n_ratings,), int64
        CSR columns.
    rating, weight : Tensor of shape (n_ratings,)
    """

    pointers: Tensor
    columns: Tensor
    rating: Tensor
    weight: Tensor

    @classmethod
    def of(cls, block, rating, weight, by_item):
        """The ratings of a block of pairs, in its order, with weights or None; with items in rows if asked for."""
        weight = torch.ones_like(rating) if weight is None else weight
        if by_item:
            block, order = block.T, block.T.order
            rating, weight = rating.index_select(0, order), weight.index_select(0, order)
        return cls(block.pointers.long(), block.columns.long(), rating, weight)

    def padded(self, index, features, offset):
        """The ratings of some rows, by number (b,), as if all had as many as the longest: weight 0 marks padding.

        Returns
        -------
        block : Block
        place : Tensor of shape (b, l), int64
            Places of the ratings; 0 where there is none.
        real : Tensor of shape (b, l), bool
            Whether there is one.
        """
        longest = int((self.pointers[index + 1] - self.pointers[index]).max())
        place = self.pointers[index, None] + torch.arange(longest, device=index.device)  # (b, l)
        real = place < self.pointers[index + 1, None]
        place = torch.where(real, place, 0)
        column = self.columns[place] if longest else place
        return Block(features[column], offset[column], self.rating[place], self.weight[place] * real), place, real


class RatingBlocks:
    """The ratings in the blocks of a plan, made anew each time that they are gone through.

    Parameters
    ----------
    plan : Plan
    rating, weight
        As of ``Objective``.
    by_item : bool
        Whether items are in rows, and a block's users in columns.
    """

    def __init__(self, plan, rating, weight, by_item):
        self.plan, self.rating, self.weight, self.by_item = plan, rating, weight, by_item

    def __iter__(self) -> Iterator[tuple[slice, Ratings]]:
        """Yield the users of a block, and their Ratings."""
        for rows, span, block in self.plan:
            weight = None if self.weight is None else self.weight[span]
            yield rows, Ratings.of(block, self.rating[span], weight, self.by_item)


def ratings_of(plan, rating, weight, *, by_item) -> Iterable[tuple[slice, Ratings]]:
    """The ``RatingBlocks`` of a plan: all at once as a list where the plan keeps its blocks, else one at a time."""
    blocks = RatingBlocks(plan, rating, weight, by_item)
    return list(blocks) if plan.keeps_blocks else blocks


class Block(NamedTuple):
    """Some rows' ratings beside the features of what was rated.

    Attributes
    ----------
    Y : Tensor of shape (b, l, width)
    offset, rating, weight : Tensor of shape (b, l)
    """

    Y: Tensor
    offset: Tensor
    rating: Tensor
    weight: Tensor

    def score(self, x):
        """Scores (b, l) by rows x of shape (b, width)."""
        return self.offset + (self.Y @ x[:, :, None])[:, :, 0]

    def working(self, x, loss):
        """The ratings and weights, (b, l) each, of the squared error whose minimum is a Newton step from x."""
        if loss.name == "squared_error":
            return self.rating, self.weight
        score = self.score(x)
        bend = loss.curvature(score, self.rating)
        return score - loss.slope(score, self.rating) / bend, self.weight * bend / 2

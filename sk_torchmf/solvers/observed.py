"""What is observed of the pairs of a plan, block by block, with users first and with items first. Knows no solver."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.nn import Pairs
from sk_torchmf.nn.pairs import LARGE

MOST_KINDS = 2**8  # of numbers, which codes of one byte tell apart


@dataclass(frozen=True)
class Observed:
    """The pairs of a block with the rows of one side first, and what there is of each.

    Attributes
    ----------
    pairs : Pairs
    values : Tensor of shape (n_pairs,) or None
        Standardised ratings or, where these are levels, ``OrdinalCuts.place``; None where nobody asks for them.
    weight : Tensor of shape (n_pairs,) or None
        > 0.
    codes : list of Tensor of shape (n_pairs,), int
        Of each effect.
    """

    pairs: Pairs
    values: Any
    weight: Tensor | None
    codes: list[Tensor] = field(default_factory=list)

    def transposed(self):
        """The same with the rows of the other side first."""
        pairs = self.pairs.T
        values, weight = (None if part is None else part.index_select(0, pairs.order) for part in (self.values, self.weight))
        return Observed(pairs, values, weight, [code.index_select(0, pairs.order) for code in self.codes])


class ObservedBlocks:
    """What is observed in the blocks of a plan, by users and by items, made anew each time that it is gone through.

    Parameters
    ----------
    plan : Plan
    values, weight, codes
        Of all pairs, user-major, see ``Observed``; ``[span]`` gives those of a block. ``values`` may be None where nobody asks.
    """

    def __init__(self, plan, values, weight, codes=()):
        self.plan, self.values, self.weight, self.codes = plan, values, weight, codes

    def __iter__(self):
        for rows, span, block in self.plan:
            by_user = self._by_user(span, block)
            yield rows, by_user, by_user.transposed()

    def _by_user(self, span, block):
        values, weight = (None if part is None else part[span] for part in (self.values, self.weight))
        if self.plan.is_exact and weight is not None:
            weight = weight.clone()  # a product of two vectors depends on where in memory these begin
        return Observed(block, values, weight, [code[span] for code in self.codes])

    def without_values(self):
        """The same for who does not ask for values: none is read."""
        return ObservedBlocks(self.plan, None, self.weight, self.codes)


class PackedBlocks(ObservedBlocks):
    """The same of many pairs in memory: what is observed with items first is kept, in a few bytes, and unpacked at each turn.

    A user has a number within the block, of two bytes where that is enough. For the rest see ``PackedNumbers``. What is kept are
    whole arrays: those of a block are so small that malloc does not return them to the system when they are freed.
    """

    def __init__(self, plan, values, weight, codes=()):
        super().__init__(plan, values, weight, codes)
        n_pairs, n_users = plan.pairs.n_pairs, max(block.shape[0] for _, _, block in plan)
        self._users = np.empty(n_pairs, dtype=np.uint16 if n_users <= 2**16 else np.int32)
        self._numbers = [None if part is None else PackedNumbers(n_pairs) for part in (values, weight, *codes)]
        self._pointers = []
        for _, span, block in plan:
            by_user, pairs = self._by_user(span, block), block.transposed()
            self._pointers.append(pairs.pointers)
            self._users[span] = pairs.columns.numpy()
            for packed, part in zip(self._numbers, (by_user.values, by_user.weight, *by_user.codes), strict=True):
                if packed is not None:
                    packed.put(span, part, pairs.order)

    def __iter__(self):
        for (rows, span, block), pointers in zip(self.plan, self._pointers, strict=True):
            pairs = Pairs.from_rows(pointers, torch.from_numpy(self._users[span].astype(np.int32)), block.shape[0])
            numbers: list[Any] = [None if packed is None else packed[span] for packed in self._numbers]
            values, weight, *codes = numbers
            yield rows, self._by_user(span, block), Observed(pairs, values, weight, codes)

    def without_values(self):
        blocks = copy.copy(self)
        blocks.values, blocks._numbers = None, [None, *self._numbers[1:]]
        return blocks


class PackedNumbers:
    """Numbers of pairs, each a code of one byte as long as there are at most 256 kinds of them, else as they are.

    Parameters
    ----------
    n_pairs : int
    """

    def __init__(self, n_pairs):
        self._kinds: Any = None  # in the order in which they came
        self._packed = np.empty(n_pairs, dtype=np.uint8)
        self._has_codes = True

    def put(self, span, numbers, order):
        """Keep the numbers of a block, which follows the one before.

        Parameters
        ----------
        span : slice
            Its pairs.
        numbers : Tensor of shape (n,)
        order : Tensor of shape (n,), int32
            ``numbers[order]`` are kept.
        """
        if self._kinds is None:
            self._kinds = numbers[:0]
        if self._has_codes:
            codes = self._coded(numbers)
            if codes is not None:
                self._packed[span] = codes.index_select(0, order).numpy()
                return
            before, self._has_codes = self._packed, False
            self._packed = np.empty(len(before), dtype=numbers.numpy().dtype)
            if span.start:
                self._packed[: span.start] = self._kinds.numpy()[before[: span.start]]
        self._packed[span] = numbers.index_select(0, order).numpy()

    def _coded(self, numbers):
        """The codes of numbers, those of new kinds among them; None where there are too many kinds."""
        kinds, rank = self._kinds.sort()
        codes = torch.bucketize(numbers, kinds).clamp_(max=max(len(kinds) - 1, 0))
        new = numbers[kinds[codes] != numbers] if len(kinds) else numbers
        if not len(new):
            return rank.to(torch.uint8)[codes]
        new = new.unique()
        if len(kinds) + len(new) > MOST_KINDS:
            return None
        self._kinds = torch.cat([self._kinds, new])
        return self._coded(numbers)

    @property
    def nbytes(self):
        """How much memory they take."""
        return self._packed.nbytes

    def __getitem__(self, span):
        packed = torch.from_numpy(self._packed[span])
        return self._kinds.index_select(0, packed.int()) if self._has_codes else packed


def observed_blocks(plan, values, weight, codes=()):
    """What is observed in the blocks of a plan: all at once as a list, packed where that is much, or made anew at each turn.

    Returns
    -------
    list or ObservedBlocks
        Of (slice, Observed, Observed): the users of a block, what is observed with users first, and with items first. It can be
        gone through any number of times.
    """
    if plan.keeps_blocks and plan.device.type == "cpu" and plan.pairs.n_pairs > LARGE:
        return PackedBlocks(plan, values, weight, codes)
    blocks = ObservedBlocks(plan, values, weight, codes)
    return list(blocks) if plan.keeps_blocks else blocks

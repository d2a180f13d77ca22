"""What the processes of one fit tell each other, over the group of ``torch.distributed`` that there is; in one process, nothing."""

import math
import pickle
from contextlib import contextmanager, suppress
from traceback import format_exception_only

import numpy as np
import torch
import torch.distributed as dist

from sk_torchmf.exceptions import DistributedError, DivergenceError

HEAD = 1024  # bytes of the message with which every call begins; what is short goes over in it
SHORT = 512  # bytes of sums that do
CHUNK = 2**22  # bytes that a process sends at a time when rows change hands
EXACT = "exact"  # of the parameter distributed: sums have the same bits, whatever the number of processes
N_SHARDS = 16  # of the users in an exact fit
FAILED, END = "failed", "the end of the fit"


class Communicator:
    """The processes of one fit, seen from one of them; this class is that of a process alone, whose sums are its own.

    All processes make the same calls in the same order, inside ``with communicator:``. An exception that leaves the ``with`` in one
    of them raises DistributedError in the others, at their next call or at the end of their ``with``; of a DivergenceError all
    raise one. One object serves one fit.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        How many there are.

    Examples
    --------
    >>> from sk_torchmf.distributed import communicator
    >>> with communicator(distributed=False) as processes:
    ...     total = processes.all_reduce([2.0, 3])
    ...     labels = processes.all_gather(["ann", "bob"])
    >>> total, labels, processes.size
    ([2.0, 3], [['ann', 'bob']], 1)
    """

    rank, size = 0, 1

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        return None

    def all_reduce(self, parts):
        """Sum over the processes.

        Parameters
        ----------
        parts : list of Tensor or number
            As many and of the same shapes and dtypes in all processes. A process that has none to add passes an empty list. They
            are left as they are.

        Returns
        -------
        list of Tensor or number
            The sums, with the same bits in all processes; they may be what was given. Where an empty list was passed they are on
            the CPU.
        """
        return list(parts)

    def largest(self, value):
        """Find the largest of a number that each process has; nan where there is one."""
        return value

    def broadcast(self, value):
        """Take the first process's value, a tensor of one shape in all processes or an object that can be pickled."""
        return value

    def all_gather(self, value):
        """Collect an object of each process, which can be pickled and whose tensors are on the CPU: a list by rank."""
        return [value]

    def all_to_all(self, values, counts, order=None):
        """Send rows to other processes, a chunk at a time.

        Parameters
        ----------
        values : ndarray of shape (n,)
            Of one dtype in all processes, not of objects.
        counts : array-like of shape (size,), int
            How many rows go to each process: first those of process 0, then those of process 1, and so on.
        order : ndarray of shape (n,), int, optional
            The places of the rows in ``values``, sorted by where they go. By default the rows lie in that order.

        Returns
        -------
        received : ndarray
            What the processes have sent to this one, in the order of ranks and of each in the order in which it was sent.
        received_counts : ndarray of shape (size,), int64
            How many came from each.
        """
        return values if order is None else values[order], np.array(counts, dtype=np.int64)


ALONE = Communicator()


def communicator(distributed, *, exact=False):
    """Find the processes of a fit.

    Parameters
    ----------
    distributed : bool or "exact"
        Whether it is one fit of all processes of the default group of ``torch.distributed``, and whether that is ``exact``. It is
        never found out from the surroundings: a small fit in somebody's job would wait for the others for ever.
    exact : bool
        See ``DefaultGroup``.

    Returns
    -------
    Communicator
        ``ALONE`` where there is one process.

    Raises
    ------
    ValueError
        Where torch.distributed has not been initialised.
    """
    if not distributed:
        return ALONE
    if not has_group():
        raise ValueError(
            "distributed=True needs a process group, and torch.distributed has none in this process. Call "
            'torch.distributed.init_process_group("gloo") before fit and start the script as several processes, for example with '
            "torchrun --nproc-per-node 2 script.py; or pass distributed=False."
        )
    return DefaultGroup(exact=exact or distributed == EXACT) if dist.get_world_size() > 1 else ALONE


def has_group():
    """Whether this process is in a group of ``torch.distributed``."""
    return dist.is_available() and dist.is_initialized()


class DefaultGroup(Communicator):
    """The processes of the default group of ``torch.distributed``.

    Every call begins with a short message in which each process says what it is about to do, or that it has failed.

    Parameters
    ----------
    exact : bool
        Sum over the processes by a binary tree instead of the backend's algorithm. Where each process sums its shards by
        ``TreeSum``, the sums have the same bits with every number of processes, which must be a power of two.
    """

    def __init__(self, *, exact=False):
        self.rank, self.size, self.exact = dist.get_rank(), dist.get_world_size(), exact
        self._is_over = False  # all know of a failure, or can no longer be told
        if exact and (self.size & (self.size - 1) or self.size > N_SHARDS):
            raise ValueError(f"Exact sums need 1 to {N_SHARDS} processes, their number a power of two. Got {self.size}.")

    def __exit__(self, kind, error, traceback):
        if self._is_over:
            return
        if error is None:
            self._tell(END)
            return
        with suppress(DistributedError, DivergenceError):  # this process's own error says more
            self._tell(FAILED, ("".join(format_exception_only(error)).strip(), isinstance(error, DivergenceError)))

    def all_reduce(self, parts):
        kinds = [_kind(part) for part in parts]
        flat = _flatten(parts, kinds)
        is_short = sum(one.nbytes for one in flat) <= SHORT
        told = self._tell("a sum", (kinds, [_as_bytes(one) for one in flat] if is_short else None))
        givers = [(rank, *content) for rank, content in enumerate(told) if content[0]]
        if not givers:
            return []
        _, agreed, short = givers[0]
        for rank, others, _ in givers:
            if others != agreed:
                raise self._out_of_step(f"rank {givers[0][0]} sums {_words(agreed)} and rank {rank} {_words(others)}")
        if short is not None:
            sums = TreeSum()
            for rank, _, own in givers:
                sums.add(rank, *map(_from_bytes, own, _dtypes(agreed)))
            flat = sums.total()
        else:
            flat = flat or [torch.zeros(_n_values(agreed, dtype), dtype=dtype, device="cpu") for dtype in _dtypes(agreed)]
            flat = [self._summed(one) for one in flat]
        return _unflatten(flat, agreed, parts)

    def largest(self, value):
        return float(np.max(self.all_gather(float(value))))

    def broadcast(self, value):
        if not isinstance(value, torch.Tensor):
            return self._tell("a broadcast", value if self.rank == 0 else None)[0]
        kinds = self._tell("the broadcast of a tensor", _kind(value))
        if len(set(kinds)) > 1:
            raise self._out_of_step(f"the tensors to be broadcast are {_words(kinds)}")
        agreed = value.detach().to(_device(value.device), copy=True).contiguous()
        with self._transfer():
            dist.broadcast(agreed, 0)
            return agreed.to(value.device)

    def all_gather(self, value):
        return self._tell("a collection of objects", value)

    def all_to_all(self, values, counts, order=None):
        told = self._tell("an exchange of rows", (values.dtype, np.array(counts, dtype=np.int64)))
        if len({dtype for dtype, _ in told}) > 1:
            raise self._out_of_step(f"the rows to be exchanged have the dtypes {[str(dtype) for dtype, _ in told]}")
        between, width = np.stack([own for _, own in told]), values.dtype.itemsize  # (from, to)
        counts, received_counts = between[self.rank], between[:, self.rank].copy()
        received = np.empty(received_counts.sum(), dtype=values.dtype)
        starts, places = (np.cumsum(many) - many for many in (counts, received_counts))
        step = max(CHUNK // (width * self.size), 1)  # rows from each process to each
        for done in range(0, int(between.max()), step):
            n_out, n_in = ((many - done).clip(0, step) for many in (counts, received_counts))
            rows = np.concatenate([np.arange(start, start + n) for start, n in zip(starts + done, n_out, strict=True)])
            rows = rows if order is None else order[rows]
            arrived = self._swapped(values[rows], n_out, n_in)
            for start, part in zip(places + done, np.split(arrived, np.cumsum(n_in)[:-1]), strict=True):
                received[start : start + len(part)] = part
        return received, received_counts

    def _swapped(self, rows, n_out, n_in):
        """One round of an exchange: as many rows to each process, as many from each."""
        out = torch.from_numpy(rows.view(np.uint8)).to(_device())
        into = torch.empty(int(n_in.sum()) * rows.itemsize, dtype=torch.uint8, device=out.device)
        with self._transfer():
            dist.all_to_all_single(into, out, (n_in * rows.itemsize).tolist(), (n_out * rows.itemsize).tolist())
            return into.cpu().numpy().view(rows.dtype)

    def _summed(self, flat):
        total = flat.to(_device(flat.device), copy=True)
        with self._transfer():
            if not self.exact:
                dist.all_reduce(total)
                return total
            step = 1
            while step < self.size:  # afterwards each block of 2 * step ranks has the block's sum
                mate, other = self.rank ^ step, torch.empty_like(total)
                both = dist.P2POp(dist.isend, total, mate), dist.P2POp(dist.irecv, other, mate)
                for work in dist.batch_isend_irecv(list(both)):
                    work.wait()
                total = total + other
                step *= 2
            return total

    def _tell(self, operation, content=None):
        """Say what this process is about to do, and what the others must know of it; return what they said, by rank."""
        message = np.frombuffer(pickle.dumps((operation, content), pickle.HIGHEST_PROTOCOL), dtype=np.uint8)
        head = np.zeros(HEAD, dtype=np.uint8)
        head[:8] = np.array([len(message)]).view(np.uint8)
        head[8 : 8 + len(message)] = message[: HEAD - 8]
        with self._transfer():
            heads = self._gathered(head)
            lengths = [int(own[:8].view(np.int64)[0]) for own in heads]
            said = [own[8:] for own in heads]
            if max(lengths) > HEAD - 8:
                padded = np.zeros(max(lengths), dtype=np.uint8)
                padded[: len(message)] = message
                said = self._gathered(padded)
        told = [pickle.loads(own[:length].tobytes()) for own, length in zip(said, lengths, strict=True)]
        self._check(operation, told)
        return [own for _, own in told]

    def _gathered(self, values):
        own = torch.from_numpy(values).to(_device())
        all_of_them = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(all_of_them, own)
        return [one.cpu().numpy() for one in all_of_them]

    def _check(self, operation, told):
        """Raise what the processes' announcements leave to be raised."""
        failed = [(rank, content) for rank, (own, content) in enumerate(told) if own == FAILED]
        if failed:
            self._is_over = True
            rank, (text, diverged) = failed[0]
            if operation != FAILED:
                raise (DivergenceError if diverged else DistributedError)(
                    f"Rank {rank} of {self.size} has failed, which stops the fit on every rank. It raised {text}"
                )
            return
        for rank, (own, _) in enumerate(told):
            if own != told[0][0]:
                raise self._out_of_step(f"rank 0 is at {told[0][0]} and rank {rank} at {own}")

    def _out_of_step(self, what):
        self._is_over = True
        return DistributedError(
            f"The {self.size} ranks are out of step: {what}. Call fit on every rank with the same parameters, and with the same "
            "versions of Python's packages."
        )

    @contextmanager
    def _transfer(self):
        """Give an error of the backend words. Whatever leaves a transfer early, the others can no longer be told of it."""
        self._is_over = True
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise DistributedError(
                f"Rank {self.rank} of {self.size} has lost contact with the others: one of them has ended, hangs or cannot be "
                "reached. Look at what each of them printed last, and start all of them again. With a checkpoint the fit "
                "continues where it stopped. If one of them is only slow, pass a longer timeout to "
                f"torch.distributed.init_process_group. torch.distributed says: {reason}"
            ) from error
        self._is_over = False


class TreeSum:
    """A sum over numbered shards by a binary tree over their numbers: the same bits whichever process has which of them.

    Where the numbers of processes and of shards are powers of two and the processes have runs of equally many shards, in the order
    of ranks, their trees are subtrees of that of one process; ``DefaultGroup(exact=True)`` adds the rest of it.

    Examples
    --------
    >>> from sk_torchmf.distributed import TreeSum
    >>> tree = TreeSum()
    >>> for shard, value in enumerate([0.1, 0.2, 0.3, 0.4]):
    ...     tree.add(shard, value)
    >>> tree.total() == [(0.1 + 0.2) + (0.3 + 0.4)]
    True
    """

    def __init__(self):
        self._subtrees = []  # (last shard, sums), from left to right, each to the right smaller

    def add(self, shard, *parts):
        """Add a part to each of some sums.

        Parameters
        ----------
        shard : int
            The number of the shard that the parts come from, from 0; not below that of the last call. What comes from one shard is
            added in the order of the calls. A shard may have none.
        *parts : Tensor or number
            As many as before, and of the same shapes; they are left as they are.
        """
        done = self._subtrees
        if done and shard < done[-1][0]:
            raise ValueError(f"shards must come in the order of their numbers. Got {shard} after {done[-1][0]}.")
        if done and shard == done[-1][0]:
            done[-1] = shard, _added(done[-1][1], parts)
            return
        while len(done) > 1 and (done[-2][0] ^ done[-1][0]).bit_length() < (done[-1][0] ^ shard).bit_length():
            self._join()
        done.append((shard, list(parts)))

    def total(self):
        """Take the sums of what was added since the last time, an empty list where nothing was."""
        while len(self._subtrees) > 1:
            self._join()
        sums = self._subtrees.pop()[1] if self._subtrees else []
        return [own + 0 for own in sums]  # of -0.0 makes 0.0, as adding the nothing of another process does

    def _join(self):
        (_, left), (last, right) = self._subtrees[-2:]
        self._subtrees[-2:] = [(last, _added(left, right))]


def _added(sums, parts):
    return [old + new for old, new in zip(sums, parts, strict=True)]


def _kind(part):
    """The dtype and shape of a part of a sum; of a number its type and None."""
    if isinstance(part, torch.Tensor):
        return str(part.dtype).removeprefix("torch."), tuple(part.shape)
    return ("int64" if isinstance(part, int | np.integer) else "float64"), None


def _words(kinds):
    return ", ".join(f"{dtype} {'number' if shape is None else shape}" for dtype, shape in kinds)


def _dtypes(kinds):
    return [getattr(torch, dtype) for dtype in sorted({dtype for dtype, _ in kinds})]


def _n_values(kinds, dtype):
    return sum(math.prod(shape or ()) for own, shape in kinds if getattr(torch, own) == dtype)


def _flatten(parts, kinds):
    """Parts of sums as one tensor a dtype, in the order of ``_dtypes``, where the first tensor is."""
    where, flat = next((part.device for part in parts if isinstance(part, torch.Tensor)), "cpu"), []
    for dtype in _dtypes(kinds):
        own = [part for part, (name, _) in zip(parts, kinds, strict=True) if getattr(torch, name) == dtype]
        flat.append(torch.cat([torch.as_tensor(part, dtype=dtype, device=where).detach().reshape(-1) for part in own]))
    return flat


def _unflatten(flat, kinds, parts):
    """The inverse, to where the parts are; a number for a number."""
    rest, sums = {one.dtype: one for one in flat}, []
    for at, (dtype, shape) in enumerate(kinds):
        n, whole = math.prod(shape or ()), rest[getattr(torch, dtype)]
        own, rest[whole.dtype] = whole[:n], whole[n:]
        if shape is None:
            sums.append(own.item())
        else:
            sums.append(own.view(shape).to(parts[at].device if parts else "cpu"))
    return sums


def _as_bytes(flat):
    return flat.cpu().view(torch.uint8).numpy().tobytes()


def _from_bytes(message, dtype):
    return torch.frombuffer(bytearray(message), dtype=dtype) if message else torch.empty(0, dtype=dtype, device="cpu")


def _device(own=None):
    """Where a message must lie for the group's backends, at best where it is: those of torch but gloo send from an accelerator."""
    backends = dict(one.split(":") for one in dist.get_backend_config().split(","))
    if own is not None and backends.get(own.type, "gloo") != "gloo":
        return own
    return torch.device("cpu" if "cpu" in backends else next(iter(backends)))

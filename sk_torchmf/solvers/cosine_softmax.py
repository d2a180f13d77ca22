"""Softmax over cosines of rows that are smoothed over who has what, trained on blocks of users. Knows no estimator."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from sk_torchmf.model.factors import Factors
from sk_torchmf.nn import NegativeSampler
from sk_torchmf.solvers.base import Solver, copy_state
from sk_torchmf.solvers.ranking_descent import popularity_biases, user_weights

EPOCHS = 8
USERS = 2**10  # a block at most
BLOCKS = 24  # an epoch at least, where there are as many users
OTHERS = 2**11  # items that a block is shown beside those of its users
BLOCK = 2**24  # scores of a block at most
RATE, WARMING = 0.04, 10  # of Adam, and in how many steps it is reached; rows start at length 1
BETAS = 0.9, 0.99
OVERSAMPLED, ROUNDS = 10, 3  # of the spectral start
SMALL = 1e-3  # standard deviation of the random numbers in it
N_PAIRS, HOTTEST = 1e9, 0.3  # users times items where a temperature of 0.1 suits, and the highest where these are few
SMOOTHING = 30.0  # what an item's users together weigh beside the item's own row
HISTORY = 1.0  # what a user's items together weigh beside the user's own row, over the root of their number


class CosineSoftmax(Solver):
    r"""Fit positives above what users have not, by the softmax of cosines of rows smoothed over the graph of users and items.

    .. math:: \sum_{ui \in R} w_{ui} \log\left(1 + \sum_{j \notin R_u} \exp(s_{uj} - s_{ui})\right),
        \quad s_{ui} = p_u \cdot q_i / \tau \; (+ b_i)

    where, with :math:`\nu(x) = x / \lVert x \rVert` and free rows x of users and y of items,

    .. math:: p_u = \nu\Bigl(x_u + \frac{1}{\sqrt{n_u}} \sum_{i \in R_u} \nu(y_i)\Bigr),
        \quad q_i = \nu\Bigl(\nu(y_i) + \frac{30}{n_i} \sum_{u \in R_i} p_u\Bigr)

    Parameters
    ----------
    users, items : Tensor of shape (n_users, width) and (n_items, width)
        Where free rows start, as PlainMF or BiasedMF lays rows out; of the factors only the directions count.
    n_factors : int
        How many columns are factors.
    plan : Plan
        The positives, each pair once; every user has one, and one that the user has not.
    weight : Tensor of shape (n_pairs,)
        User-major, > 0.
    share, total, n_unobserved : Tensor of shape (n_items,), (n_users,) and (n_users,)
        See ``RankingObjective``.
    temperature : float
        :math:`\tau`.
    max_iter : int
        Epochs there will be: steps shrink towards the last.
    exact : bool
        Whether a block of users is shown all items.
    generator : torch.Generator
        A CPU generator: draws the blocks and their items, and is in one state in all processes.
    order : Tensor of shape (n_users,), int64, optional
        The users of this process in an order that does not depend on how many processes there are, those of one process coming
        after those of the processes before it; by default that of their numbers.

    Notes
    -----
    An epoch takes a step of Adam on each block of users, drawn anew: of 1024 of them, or fewer where that would make fewer than 32
    blocks. A block is shown the items that its users have, and 2048 of the others, each of which stands for as many as were left
    out: the sum over j is met in expectation, and nearly exactly. A step reaches all rows through the smoothing, whose gradient is
    the transposed smoothing. What is exported are p and q: scores stay an inner product.

    Several processes take the steps that one would, on the same blocks, each with those users of a block that it has. In a step
    they add up three times over the users what is of the items: what the smoothing makes of the users' rows, the gradients by q
    and the biases of the items that the block is shown, and what the smoothing makes of the gradients by the users' rows.

    References
    ----------
    .. [1] Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, ACM TOIS 2024.
    .. [2] He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020.
    """

    def __init__(
        self,
        users,
        items,
        plan,
        weight,
        share,
        total,
        n_unobserved,
        *,
        n_factors,
        temperature,
        max_iter,
        exact,
        generator,
        order=None,
    ):
        self.n_factors, self.biased = n_factors, users.shape[1] > n_factors
        self.rows = [F.normalize(side[:, :n_factors], dim=1) for side in (users, items)]
        if self.biased:  # [P, b_u, 1] and [Q, 1, b_i]
            self.rows.append(items[:, n_factors + 1 :].clone())
        self.plan, self.pairs, self.weight, self.temperature = plan, plan.pairs, weight, temperature
        self.share, self.against = share, torch.log(n_unobserved / total)
        self.max_iter, self.generator = max_iter, generator
        self.others = len(items) if exact else OTHERS
        self.smooth = Smoothing(plan, weight)
        n_users = self.pairs.shape[0]
        self.first = sum(plan.processes.all_gather(n_users)[: plan.processes.rank])  # of the places of users in all processes
        self.order = torch.arange(n_users, device=self.pairs.device) if order is None else order
        self.movers = [Adam(side) for side in self.rows]
        self.steps = 0

    def step(self):
        n_users, device, losses = self.plan.n_users, self.pairs.device, 0.0
        places = torch.randperm(n_users, generator=self.generator, device="cpu").to(device)
        size = users_of_a_block(n_users, min(self.others + 8 * USERS, len(self.share)))
        for block in places.split(size):
            here = block[(block >= self.first) & (block < self.first + len(self.order))] - self.first
            pace = min(self.steps / (self.max_iter * -(-n_users // size)), 1)
            rate = RATE * min(1, (self.steps + 1) / WARMING) * (1 + math.cos(math.pi * pace)) / 2
            p, q = self.smooth(*self.rows[:2])
            loss, to_p, to_q, *to_biases = self._loss(self.order[here].sort().values, p, q)
            losses = losses + loss.double()
            self.steps += 1
            for mover, gradient in zip(self.movers, (*self.smooth.back(to_p, to_q), *to_biases), strict=True):
                mover.step(gradient, rate, self.steps)
        self.plan.add(losses)
        return {"loss": float(self.plan.total()[0])}

    def _loss(self, users, p, q):
        """The loss of some users, numbers (b,) in order, and its gradients by p and, of all processes, by q and items' biases."""
        place, user = self.pairs.of_users(users)
        own = self.pairs.columns[place].long()
        columns, share = self._show(own)
        number = torch.empty_like(self.share, dtype=torch.int64)  # of an item among the columns
        number[columns] = torch.arange(len(columns), device=columns.device)
        rows, others = p[users] / self.temperature, q[columns]
        scores = torch.addmm(self.rows[2][columns, 0], rows, others.T) if self.biased else rows @ others.T
        loss, slope = softmax_slopes(scores, user, number[own], self.weight[place], share, self.against[users])
        to_p = torch.zeros_like(p).index_copy_(0, users, (slope @ others).div_(self.temperature))
        self.plan.add(slope.T @ rows, *([slope.sum(0)[:, None]] if self.biased else []))
        of_items = zip(self.plan.total(), (q, *self.rows[2:]), strict=True)
        return loss, to_p, *(torch.zeros_like(whole).index_copy_(0, columns, part) for part, whole in of_items)

    def _show(self, own):
        """Items to show a block whose users here have these: numbers (n,) in order, and for how many each of them stands."""
        if len(self.share) <= self.others:
            return torch.arange(len(self.share), device=own.device), self.share
        taken = torch.zeros_like(self.share, dtype=torch.int32)
        taken[own] = 1
        self.plan.add(taken)
        taken = self.plan.total()[0] > 0
        rest = torch.nonzero(~taken)[:, 0]
        if len(rest) <= self.others:
            return torch.arange(len(taken), device=rest.device), self.share
        drawn = rest[torch.randperm(len(rest), generator=self.generator, device="cpu")[: self.others].to(rest.device)]
        share = self.share.clone()
        share[drawn] *= len(rest) / self.others
        taken[drawn] = True
        columns = torch.nonzero(taken)[:, 0]
        return columns, share[columns]

    def solution(self):
        users, items = self.unit_rows()
        return Factors.from_rows(users, items, self.n_factors, self.plan.mean_of_users)

    def unit_rows(self):
        """Rows (n_users, width) and (n_items, width) whose inner products are the scores."""
        users, items = (side / self.temperature**0.5 for side in self.smooth(*self.rows[:2]))
        if not self.biased:
            return users, items
        zeros = torch.zeros_like(users[:, :1])
        return torch.cat([users, zeros, zeros + 1], 1), torch.cat([items, torch.ones_like(self.rows[2]), self.rows[2]], 1)

    def advice(self):
        return f" (temperature={self.temperature:.3g}). Raise temperature."

    def state(self):
        names = ("user", "item", "item")
        state: dict = {"user": {}, "item": {}, "rest": {"steps": self.steps, "generator": self.generator.get_state()}}
        for role, what, mover in zip(names, ("rows", "rows", "biases"), self.movers, strict=False):
            state[role] |= {what: mover.rows, f"{what}_mean": mover.mean, f"{what}_square": mover.square}
        return state

    def restore(self, state):
        for role, own in self.state().items():
            if role != "rest":
                for name, value in own.items():
                    value.copy_(state[role][name])
        self.generator.set_state(copy_state(state["rest"]["generator"]))
        self.steps = state["rest"]["steps"]


class Adam:
    """Adam of all rows of a table, in place.

    Parameters
    ----------
    rows : Tensor of shape (n, k)
    """

    def __init__(self, rows):
        self.rows, self.mean, self.square = rows, torch.zeros_like(rows), torch.zeros_like(rows)

    def step(self, gradient, rate, number):
        """Take a step of this number, counted from 1."""
        first, second = BETAS
        self.mean.mul_(first).add_(gradient, alpha=1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        length = rate * math.sqrt(1 - second**number) / (1 - first**number)
        self.rows.addcdiv_(self.mean, self.square.sqrt().add_(1e-8), value=-length)


class Smoothing:
    """How free rows become those that are scored, and how gradients come back; see ``CosineSoftmax``.

    Parameters
    ----------
    plan : Plan
    like : Tensor
        Of the rows' dtype.
    """

    def __init__(self, plan, like):
        self.plan, self.pairs = plan, plan.pairs
        self.one = torch.ones(self.pairs.n_pairs, dtype=like.dtype, device=like.device)
        n_users, n_items = (count.clamp_min(1).to(like)[:, None] for count in plan.sums())
        self.of_user, self.of_item = HISTORY / n_users.sqrt(), SMOOTHING / n_items

    def __call__(self, users, items):
        """The rows p (n_users, k) and q (n_items, k) of free rows."""
        self.free, self.free_length = unit(items)
        of_items = self.pairs.user_sums(self.one, self.free)
        self.p, self.p_length = unit(torch.addcmul(users, of_items, self.of_user))
        self.q, self.q_length = unit(torch.addcmul(self.free, item_sums(self.plan, self.one, self.p), self.of_item))
        return self.p, self.q

    def back(self, to_p, to_q):
        """Gradients by the free rows of the last call, of gradients by p and, of all processes, by q; these are used up."""
        to_q = through_unit(to_q, self.q, self.q_length)
        to_p += self.pairs.user_sums(self.one, to_q * self.of_item)
        to_users = through_unit(to_p, self.p, self.p_length)
        to_q += item_sums(self.plan, self.one, to_users * self.of_user)
        return to_users, through_unit(to_q, self.free, self.free_length)


def cosine_solver(
    module,
    plan,
    weight,
    *,
    temperature,
    popularity=False,
    exact=None,
    max_iter=None,
    generator=None,
    begun=None,
    spectral=True,
    order=None,
):
    """Make the solver that fits positives above what users have not by the softmax of cosines.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its factors are the start where that is not spectral, and small random numbers beside it where there is an ``order``.
    plan : Plan
        The positives, each pair once; every user has one, and one that the user has not.
    weight : Tensor of shape (n_pairs,)
        User-major, > 0, of mean 1.
    temperature : float
    popularity : bool
        Whether popular items weigh more among what a user has not, see ``NegativeSampler``.
    exact : bool, optional
        Whether blocks of users are shown all items; by default they are not.
    max_iter : int, optional
        Epochs there will be, by default 8.
    generator : torch.Generator
        A CPU generator.
    begun : Tensor of shape (n_items,), bool, optional
        Which items' biases start where the module has them.
    spectral : bool
        Whether to start from ``spectral_rows``.
    order : Tensor of shape (n_users,), int64, optional
        See ``CosineSoftmax``: given where the result must not depend on how many processes there are. The module's rows must not
        then either, and the generator must be in one state in all of them.

    Returns
    -------
    CosineSoftmax
    """
    k, pairs = module.user_factors.shape[1], plan.pairs
    sampler = NegativeSampler(pairs.tocsr(), popularity=popularity, item_counts=plan.sums()[1].cpu().numpy())
    own = plan.sums(weight)[0]
    plan.add(own.sum())
    (total,) = plan.total()
    weight = weight * user_weights(own, total / plan.n_users).to(weight)[pairs.users.long()]
    with torch.no_grad():
        users, items = (side.clone() for side in module.rows())  # (n_users, width), (n_items, width)
    if spectral:
        small = None if order is None else (users[:, :k], items[:, :k])
        users[:, :k], items[:, :k] = spectral_rows(plan, k, generator, users, small)
    if items.shape[1] > k:
        biases = popularity_biases(plan.sums(weight)[1], 1, sampler.share).to(weight)
        items[:, k + 1] = biases if begun is None else torch.where(begun, items[:, k + 1], biases)
    known = (torch.from_numpy(values).to(weight) for values in (sampler.share, sampler.total, sampler.n_unobserved))
    made = {"n_factors": k, "temperature": temperature, "max_iter": max_iter or EPOCHS, "exact": bool(exact)}
    return CosineSoftmax(users, items, plan, weight, *known, **made, generator=generator, order=order)


def suitable_temperature(n_users, n_items):
    """A temperature for so many users and items, chosen on validation parts of six data sets of 10^6.2 to 10^9.1 pairs."""
    return min(HOTTEST, (N_PAIRS / (n_users * n_items)) ** 0.125 / 10)


def softmax_slopes(scores, user, own, weight, share, against):
    """The loss of the positives of some users, and its slopes; see ``RankingLoss.expected``.

    Parameters
    ----------
    scores : Tensor of shape (b, n_columns)
        Of all items that are shown; used up.
    user, own : Tensor of shape (n,), int64
        Row and column of each positive.
    weight : Tensor of shape (n,)
    share : Tensor of shape (n_columns,)
        What each item counts for among the others.
    against : Tensor of shape (b,)
        The logarithm of what a share stands for, by user.

    Returns
    -------
    loss : Tensor of shape ()
    slope : Tensor of shape (b, n_columns)
        The derivative by each score.
    """
    positive = scores[user, own]
    scores += share.log()
    scores[user, own] = -torch.inf
    largest = scores.amax(1, keepdim=True)
    chance = scores.sub_(largest).exp_()
    partition = chance.sum(1, keepdim=True)
    behind = (largest + partition.log())[:, 0].add_(against)[user] - positive
    loss = torch.dot(F.softplus(behind), weight)
    pull = torch.sigmoid(behind).mul_(weight)
    slope = chance.mul_(torch.zeros_like(partition[:, 0]).index_add_(0, user, pull)[:, None] / partition)
    slope[user, own] = -pull
    return loss, slope


def unit(rows):
    """Rows of length 1, and the lengths (n, 1)."""
    length = rows.norm(dim=1, keepdim=True).clamp_min_(1e-12)
    return rows / length, length


def through_unit(gradient, rows, length):
    """The gradient by rows before ``unit`` of one by those after it."""
    return torch.addcmul(gradient, rows, (gradient * rows).sum(1, keepdim=True), value=-1).div_(length)


def item_sums(plan, value, rows):
    """Sum users' rows (n_users, k) by item, weighted by a value of the pairs, over all processes: (n_items, k)."""
    plan.add(plan.pairs.item_sums(value, rows))
    return plan.total()[0]


def spectral_rows(plan, k, generator, like, small=None):
    """Directions of users' and items' rows to start from, by who has what.

    They are singular vectors of the matrix of pairs, each divided by the roots of its user's and its item's numbers of pairs, times
    the roots of the singular values: found by block power iteration from a random start. Where there are fewer than k, and for what
    lies in none, there are small random numbers.

    Parameters
    ----------
    plan : Plan
    k : int
    generator : torch.Generator
        A CPU generator, in one state in all processes.
    like : Tensor
        Of the dtype and the device of the rows.
    small : tuple of Tensor of shape (n_users, k) and (n_items, k), optional
        The small random numbers; those of the items also choose among singular vectors where these are not unique, by ``settled``.
        By default they are drawn, and singular vectors are as they come.

    Returns
    -------
    tuple of Tensor of shape (n_users, k) and (n_items, k)
    """
    pairs, n_items = plan.pairs, plan.n_items
    of_users, of_items = (count.clamp_min(1).rsqrt() for count in plan.sums())
    value = (pairs.expand(of_users) * of_items[pairs.columns.long()]).to(like)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)

    rows = [SMALL * random(n, k) for n in pairs.shape] if small is None else [own.clone() for own in small]
    basis = orthonormal(pairs.user_sums(value, random(n_items, min(k + OVERSAMPLED, plan.n_users, n_items))), plan)
    for _ in range(ROUNDS):
        (basis,) = plan.agreed(torch.linalg.qr(item_sums(plan, value, basis))[0])
        basis = orthonormal(pairs.user_sums(value, basis), plan)
    right, size, turn = plan.agreed(*torch.linalg.svd(item_sums(plan, value, basis), full_matrices=False))
    if small is not None:
        right, size, turn = settled(right, size, turn, small[1])
    found = min(k, len(size))
    for own, vectors in zip(rows, (basis @ turn.T, right), strict=True):
        own[:, :found] += (vectors * size.sqrt())[:, :found]
    return rows


def orthonormal(rows, plan):
    """A basis (n_users, m) of the columns of users' rows (n_users, m), orthonormal over the users of all processes."""
    basis, triangle = torch.linalg.qr(rows)
    if plan.processes.size == 1:
        return basis
    triangles = plan.processes.all_gather(triangle.cpu())
    (turns,) = plan.agreed(torch.linalg.qr(torch.cat(triangles).to(rows))[0])
    return basis @ turns.split([len(own) for own in triangles])[plan.processes.rank]


def settled(right, size, turn, rows):
    """A singular value decomposition whose vectors are chosen where rounding would choose them.

    Of singular values that are equal, to the root of the precision, they are the vectors nearest to the columns of some rows; for a
    single one that is its sign. Singular values of zero become zero.

    Parameters
    ----------
    right, size, turn : Tensor of shape (n, m), (m,) and (m, m)
        The decomposition, singular values in descending order.
    rows : Tensor of shape (n, k)

    Returns
    -------
    right, size, turn : Tensor of shape (n, l), (l,) and (l, m)
        The first l = min(k, m) at most: those of singular values that are not zero.
    """
    tiny = torch.finfo(size.dtype).eps ** 0.5 * size[0]
    n = int((size > tiny).sum())
    edges = [0, *(1 + torch.nonzero(size[: n - 1] - size[1:n] > tiny)[:, 0]).tolist(), n]
    rights, turns = [], []
    for start, stop in pairwise(edges):
        if start >= rows.shape[1]:
            break
        nearest, _, of_rows = torch.linalg.svd(right[:, start:stop].T @ rows[:, start:stop], full_matrices=False)
        rights.append(right[:, start:stop] @ (nearest @ of_rows))
        turns.append((nearest @ of_rows).T @ turn[start:stop])
    found = torch.cat(rights, 1), torch.cat(turns)
    return found[0], size[: len(found[1])], found[1]


def users_of_a_block(n_users, n_columns):
    """How many of some users a block has that is shown about so many items."""
    return max(1, min(USERS, -(-n_users // BLOCKS), BLOCK // n_columns))

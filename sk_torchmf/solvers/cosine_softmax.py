"""Softmax over cosines of rows that are smoothed over who has what, trained on blocks of users. Knows no estimator."""

import math

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
        The positives, each pair once; every user has one, and one that the user has not. Users are drawn from those of this
        process, and steps are of it alone.
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
        A CPU generator: draws the blocks and their items.

    Notes
    -----
    An epoch takes a step of Adam on each block of users, drawn anew: of 1024 of them, or fewer where that would make fewer than 32
    blocks. A block is shown the items that its users have, and 2048 of the others, each of which stands for as many as were left
    out: the sum over j is met in expectation, and nearly exactly. A step reaches all rows through the smoothing, whose gradient is
    the transposed smoothing. What is exported are p and q: scores stay an inner product.

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
    ):
        self.n_factors, self.biased = n_factors, users.shape[1] > n_factors
        self.rows = [F.normalize(side[:, :n_factors], dim=1) for side in (users, items)]
        if self.biased:  # [P, b_u, 1] and [Q, 1, b_i]
            self.rows.append(items[:, n_factors + 1 :].clone())
        self.plan, self.pairs, self.weight, self.temperature = plan, plan.pairs, weight, temperature
        self.share, self.against = share, torch.log(n_unobserved / total)
        self.max_iter, self.generator = max_iter, generator
        self.others = len(items) if exact else OTHERS
        self.smooth = Smoothing(self.pairs, weight)
        self.movers = [Adam(side) for side in self.rows]
        self.steps = 0

    def step(self):
        n_users, device = self.pairs.shape[0], self.pairs.device
        order = torch.randperm(n_users, generator=self.generator, device="cpu").to(device)
        size = users_of_a_block(n_users, min(self.others + 8 * USERS, len(self.share)))
        for block in order.split(size):
            pace = min(self.steps / (self.max_iter * -(-n_users // size)), 1)
            rate = RATE * min(1, (self.steps + 1) / WARMING) * (1 + math.cos(math.pi * pace)) / 2
            p, q = self.smooth(*self.rows[:2])
            loss, to_p, to_q, *to_biases = self._loss(block.sort().values, p, q)
            self.plan.add(loss.double())
            self.steps += 1
            for mover, gradient in zip(self.movers, (*self.smooth.back(to_p, to_q), *to_biases), strict=True):
                mover.step(gradient, rate, self.steps)
        return {"loss": float(self.plan.total()[0])}

    def _loss(self, users, p, q):
        """The loss of some users, numbers (b,) in order, and its gradients by the rows p and q and by the items' biases."""
        place, user = self.pairs.of_users(users)
        own = self.pairs.columns[place].long()
        columns, share = self._show(own)
        number = torch.empty_like(self.share, dtype=torch.int64)  # of an item among the columns
        number[columns] = torch.arange(len(columns), device=columns.device)
        rows, others = p[users] / self.temperature, q[columns]
        scores = torch.addmm(self.rows[2][columns, 0], rows, others.T) if self.biased else rows @ others.T
        loss, slope = softmax_slopes(scores, user, number[own], self.weight[place], share, self.against[users])
        to_p = torch.zeros_like(p).index_copy_(0, users, (slope @ others).div_(self.temperature))
        to_q = torch.zeros_like(q).index_copy_(0, columns, slope.T @ rows)
        if not self.biased:
            return loss, to_p, to_q
        return loss, to_p, to_q, torch.zeros_like(self.rows[2]).index_copy_(0, columns, slope.sum(0)[:, None])

    def _show(self, own):
        """Items to show a block whose users have these: numbers (n,) in order, and for how many each of them stands."""
        taken = torch.zeros_like(self.share, dtype=torch.bool)
        taken[own] = True
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
        return Factors.from_rows(users, items, self.n_factors)

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
    pairs : Pairs
    like : Tensor
        Of the rows' dtype.
    """

    def __init__(self, pairs, like):
        self.pairs, self.one = pairs, torch.ones(pairs.n_pairs, dtype=like.dtype, device=like.device)
        n_users, n_items = (count.clamp_min(1).to(like)[:, None] for count in pairs.sums())
        self.of_user, self.of_item = HISTORY / n_users.sqrt(), SMOOTHING / n_items

    def __call__(self, users, items):
        """The rows p (n_users, k) and q (n_items, k) of free rows."""
        self.free, self.free_length = unit(items)
        of_items = self.pairs.user_sums(self.one, self.free)
        self.p, self.p_length = unit(torch.addcmul(users, of_items, self.of_user))
        self.q, self.q_length = unit(torch.addcmul(self.free, self.pairs.item_sums(self.one, self.p), self.of_item))
        return self.p, self.q

    def back(self, to_p, to_q):
        """Gradients by the free rows of the last call, of gradients by p and q, which are used up."""
        to_q = through_unit(to_q, self.q, self.q_length)
        to_p += self.pairs.user_sums(self.one, to_q * self.of_item)
        to_users = through_unit(to_p, self.p, self.p_length)
        to_q += self.pairs.item_sums(self.one, to_users * self.of_user)
        return to_users, through_unit(to_q, self.free, self.free_length)


def cosine_solver(
    module, plan, weight, *, temperature, popularity=False, exact=None, max_iter=None, generator=None, begun=None, spectral=True
):
    """Make the solver that fits positives above what users have not by the softmax of cosines.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its factors are the start where that is not spectral.
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

    Returns
    -------
    CosineSoftmax
    """
    k, pairs = module.user_factors.shape[1], plan.pairs
    sampler = NegativeSampler(pairs.tocsr(), popularity=popularity, item_counts=plan.sums()[1].cpu().numpy())
    own = plan.sums(weight)[0]
    weight = weight * user_weights(own, own.mean()).to(weight)[pairs.users.long()]
    with torch.no_grad():
        users, items = (side.clone() for side in module.rows())  # (n_users, width), (n_items, width)
    if spectral:
        users[:, :k], items[:, :k] = spectral_rows(pairs, k, generator, users)
    if items.shape[1] > k:
        biases = popularity_biases(plan.sums(weight)[1], 1, sampler.share).to(weight)
        items[:, k + 1] = biases if begun is None else torch.where(begun, items[:, k + 1], biases)
    known = (torch.from_numpy(values).to(weight) for values in (sampler.share, sampler.total, sampler.n_unobserved))
    made = {"n_factors": k, "temperature": temperature, "max_iter": max_iter or EPOCHS, "exact": bool(exact)}
    return CosineSoftmax(users, items, plan, weight, *known, **made, generator=generator)


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


def spectral_rows(pairs, k, generator, like):
    """Directions of users' and items' rows to start from, by who has what.

    They are singular vectors of the matrix of pairs, each divided by the roots of its user's and its item's numbers of pairs, times
    the roots of the singular values: found by block power iteration from a random start. Where there are fewer than k, and for what
    lies in none, there are small random numbers.

    Parameters
    ----------
    pairs : Pairs
    k : int
    generator : torch.Generator
        A CPU generator.
    like : Tensor
        Of the dtype and the device of the rows.

    Returns
    -------
    tuple of Tensor of shape (n_users, k) and (n_items, k)
    """
    n_users, n_items = pairs.shape
    of_users, of_items = (count.clamp_min(1).rsqrt() for count in pairs.sums())
    value = (pairs.expand(of_users) * of_items[pairs.columns.long()]).to(like)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)

    rows = [1e-3 * random(n, k) for n in pairs.shape]
    basis = torch.linalg.qr(pairs.user_sums(value, random(n_items, min(k + OVERSAMPLED, n_users, n_items))))[0]
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(pairs.item_sums(value, basis))[0]
        basis = torch.linalg.qr(pairs.user_sums(value, basis))[0]
    right, size, turn = torch.linalg.svd(pairs.item_sums(value, basis), full_matrices=False)
    found = min(k, len(size))
    for own, vectors in zip(rows, (basis @ turn.T, right), strict=True):
        own[:, :found] += (vectors * size.sqrt())[:, :found]
    return rows


def users_of_a_block(n_users, n_columns):
    """How many of some users a block has that is shown about so many items."""
    return max(1, min(USERS, -(-n_users // BLOCKS), BLOCK // n_columns))

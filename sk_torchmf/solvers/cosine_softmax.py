"""Softmax over cosines: rows of unit length, trained on blocks of users against some of the items. Knows no estimator."""

import torch
import torch.nn.functional as F

from sk_torchmf.model.factors import Factors
from sk_torchmf.nn.ranking_losses import expected_softmax
from sk_torchmf.solvers.base import Solver, copy_state

USERS = 2**7  # a block
OTHERS = 2**11  # items that a block is shown beside those of its users
BLOCK = 2**24  # scores of a block at most
RATE, LAST_RATE = 0.1, 0.01  # of Adam, in the first epoch and after the last; rows start at length 1
BETAS = 0.9, 0.99


class CosineSoftmax(Solver):
    r"""Fit positives above what users have not, by the softmax of cosines.

    .. math:: \sum_{ui \in R} w_{ui} \log\left(1 + \sum_{j \notin R_u} \exp(s_{uj} - s_{ui})\right),
        \quad s_{ui} = \frac{p_u \cdot q_i}{\tau \lVert p_u \rVert \lVert q_i \rVert} \; (+ b_i)

    Parameters
    ----------
    users, items : Tensor of shape (n_users, width) and (n_items, width)
        Where to start, as PlainMF or BiasedMF lays rows out; of the factors only the directions count.
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
    frozen : bool
        Whether the items are held fixed.
    generator : torch.Generator
        A CPU generator: draws the blocks and their items.

    Notes
    -----
    An epoch takes one step of Adam on each block of 128 users, drawn anew. The block is shown the items that its users have, most
    of the popular ones therefore, and 2048 of the others, each of which stands for as many as were left out: the sum over j is met
    in expectation, and nearly exactly. Only rows that were shown move. Lengths, of which the scores do not depend, grow as Adam
    moves; they are left out of the solution, whose inner products are the scores. This is the sampled softmax loss of [1]_, with
    its expectation over all items.

    References
    ----------
    .. [1] Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, ACM TOIS 2024.
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
        frozen=False,
    ):
        self.n_factors = n_factors
        self.rows = [F.normalize(side[:, :n_factors], dim=1) for side in (users, items)]
        self.biased = users.shape[1] > n_factors
        if self.biased:  # [P, b_u, 1] and [Q, 1, b_i]
            self.rows.append(items[:, n_factors + 1 :].clone())
        for side in self.rows:
            side.requires_grad_()
        self.plan, self.pairs, self.weight, self.temperature = plan, plan.pairs, weight, temperature
        self.share, self.total, self.n_unobserved = share, total, n_unobserved
        self.max_iter, self.frozen, self.generator = max_iter, frozen, generator
        self.others = len(items) if exact else OTHERS
        self.iteration = 0
        self.optimizer = torch.optim.SparseAdam(self.rows[: 1 if frozen else None], lr=RATE, betas=BETAS)

    def step(self):
        for group in self.optimizer.param_groups:
            group["lr"] = RATE + (LAST_RATE - RATE) * self.iteration / self.max_iter
        n_users, device = self.pairs.shape[0], self.pairs.device
        order = torch.randperm(n_users, generator=self.generator, device="cpu").to(device)
        for block in order.split(users_of_a_block(min(self.others + USERS, len(self.share)))):
            self.plan.add(self._step_on(block.sort().values).double())
        self.iteration += 1
        return {"loss": float(self.plan.total()[0])}

    def _step_on(self, block):
        """Take a step on some users, numbers (b,) in order; returns their loss before it."""
        place, user = self.pairs.of_users(block)
        own = self.pairs.columns[place].long()
        columns, share = self._show(own)
        number = torch.empty_like(self.share, dtype=torch.int64)  # of an item among the columns
        number[columns] = torch.arange(len(columns), device=columns.device)
        places = [block, columns, columns]
        shown = [side.detach()[index].requires_grad_() for side, index in zip(self.rows, places, strict=False)]
        p, q = (F.normalize(side, dim=1) for side in shown[:2])
        scores = (p / self.temperature) @ q.T  # (b, n_columns)
        if self.biased:
            scores = scores + shown[2][:, 0]
        known = self.weight[place], share, self.total[block], self.n_unobserved[block]
        loss = expected_softmax(scores, user, number[own], *known, 1)
        moved = zip(self.rows, places, torch.autograd.grad(loss, shown[: 1 if self.frozen else None]), strict=False)
        for side, index, gradient in moved:
            side.grad = torch.sparse_coo_tensor(index[None], gradient, side.shape, is_coalesced=True, check_invariants=False)
        self.optimizer.step()
        return loss.detach()

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
        users, items = (F.normalize(side.detach(), dim=1) / self.temperature**0.5 for side in self.rows[:2])
        if not self.biased:
            return users, items
        biases, zeros = self.rows[2].detach(), torch.zeros_like(users[:, :1])
        return torch.cat([users, zeros, zeros + 1], 1), torch.cat([items, torch.ones_like(biases), biases], 1)

    def advice(self):
        return f" (temperature={self.temperature:.3g}). Raise temperature."

    def state(self):
        rows = [side.detach() for side in self.rows]
        rest = {"iteration": self.iteration, "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}
        return {"user": {"rows": rows[0]}, "item": dict(zip(("rows", "biases"), rows[1:], strict=False)), "rest": rest}

    def restore(self, state):
        values, rest = [*state["user"].values(), *state["item"].values()], state["rest"]
        with torch.no_grad():
            for side, value in zip(self.rows, values, strict=True):
                side.copy_(value)
        self.optimizer.load_state_dict(copy_state(rest["optimizer"]))
        self.generator.set_state(rest["generator"])
        self.iteration = rest["iteration"]


def users_of_a_block(n_columns):
    """How many users a block has that is shown so many items."""
    return max(1, min(USERS, BLOCK // n_columns))

"""Small models and a container with the interface of Spotlight's, and its evaluation as plain loops. Imports nothing of it."""

import numpy as np
import torch
from scipy.stats import rankdata


class Container:
    """The attributes of Spotlight's Interactions, and nothing of ours."""

    def __init__(self, user_ids, item_ids, ratings=None, timestamps=None, weights=None, num_users=None, num_items=None):
        vars(self).update({name: value for name, value in locals().items() if name != "self"})


class Scores:
    """A model that was given its scores (n_users, n_items)."""

    def __init__(self, scores):
        self.scores, self.asked = scores, []

    def predict(self, user_ids, item_ids=None):
        self.asked.append(user_ids)
        return self.scores[user_ids] if item_ids is None else self.scores[user_ids, item_ids]


class Net(torch.nn.Module):
    """Two tables of rows and two of biases, by the names that Spotlight's BilinearNet has for them."""

    def __init__(self, n_users, n_items, k):
        super().__init__()
        self.user_embeddings, self.item_embeddings = torch.nn.Embedding(n_users, k), torch.nn.Embedding(n_items, k)
        self.user_biases, self.item_biases = torch.nn.Embedding(n_users, 1), torch.nn.Embedding(n_items, 1)
        for table in self.children():
            torch.nn.init.normal_(table.weight, std=0.1)

    def forward(self, user, item):
        if user.numel() == 1:
            raise IndexError("a batch of one")  # as Spotlight's squeeze() has it
        dot = (self.user_embeddings(user) * self.item_embeddings(item)).sum(-1)
        return dot + self.user_biases(user)[:, 0] + self.item_biases(item)[:, 0]


class ExplicitModel:
    """Trains on batches as Spotlight does: seeds torch in ``__init__``, and breaks on a batch of one."""

    losses = {"regression": lambda s: s, "poisson": torch.exp, "logistic": torch.sigmoid}

    def __init__(self, loss="regression", embedding_dim=4, n_iter=2, batch_size=64, net=None, use_cuda=False, random_state=None):
        self._loss, self._embedding_dim, self._n_iter, self._batch_size = loss, embedding_dim, n_iter, batch_size
        self._random_state, self._given, self._net = random_state, net, None
        torch.manual_seed(random_state.randint(2**31 - 1))

    def fit(self, interactions, verbose=False):
        self._num_users, self._num_items = interactions.num_users, interactions.num_items
        net = Net(self._num_users, self._num_items, self._embedding_dim)
        self._net = net if self._given is None else self._given
        self.trained_on = interactions
        optimizer = torch.optim.Adam(self._net.parameters(), lr=0.05)
        user, item = (torch.from_numpy(ids.astype(np.int64)) for ids in (interactions.user_ids, interactions.item_ids))
        for epoch in range(self._n_iter):
            order = torch.from_numpy(self._random_state.permutation(len(user)))
            for batch in order.split(self._batch_size):
                optimizer.zero_grad()
                loss = self._error(self._net(user[batch], item[batch]), interactions, batch, user[batch])
                loss.backward()
                optimizer.step()
            if verbose:
                print(f"epoch {epoch}")

    def _error(self, score, interactions, batch, user):
        rating = torch.from_numpy(interactions.ratings)[batch]
        return ((self.losses[self._loss](score) - rating) ** 2).mean()

    def predict(self, user_ids, item_ids=None):
        item_ids = np.arange(self._num_items) if item_ids is None else item_ids
        user, item = (torch.from_numpy(ids.astype(np.int64)) for ids in np.broadcast_arrays(user_ids, item_ids))
        return self.losses[self._loss](self._net(user, item)).detach().numpy()


class ImplicitModel(ExplicitModel):
    """Positives against drawn items."""

    losses = dict.fromkeys(["pointwise", "bpr", "hinge", "adaptive_hinge"], lambda s: s)

    def __init__(self, loss="bpr", **options):
        super().__init__(loss, **options)

    def _error(self, score, interactions, batch, user):
        drawn = torch.from_numpy(self._random_state.randint(0, interactions.num_items, len(user)))
        return (1 - torch.sigmoid(score - self._net(user, drawn))).mean()


def ranking_by_loop(model, test, train=None, k=(10,)):
    """Reciprocal ranks (n,), precision and recall (n, len(k)) by a loop over users and one over their test items.

    Ties at the k-th place go to the lower item number.
    """
    values = []
    for user in range(test.num_users):
        items = sorted(set(test.item_ids[test.user_ids == user].tolist()))
        if not items:
            continue
        scores = np.array(model.predict(user), dtype=np.float64)
        if train is not None:
            scores[train.item_ids[train.user_ids == user]] = -np.finfo(np.float32).max
        ranks = rankdata(-scores)
        order = sorted(range(len(scores)), key=lambda item, s=scores: (-s[item], item))
        hits = [len(set(order[:n]) & set(items)) for n in k]
        listed = [min(n, len(scores)) for n in k]
        values.append(
            (
                np.mean([1 / ranks[item] for item in items]),
                [h / n for h, n in zip(hits, listed, strict=True)],
                [h / len(items) for h in hits],
            )
        )
    mrr, precision, recall = zip(*values, strict=True)
    return np.array(mrr), np.array(precision), np.array(recall)

"""skorch around the textbook module: gather the embeddings of a minibatch, multiply, let autograd scatter the gradients."""

from importlib.metadata import version

import numpy as np
import torch
from harness import THREADS, main
from skorch import NeuralNetRegressor
from torch import nn


class EmbeddingMF(nn.Module):
    """mu + b_u + b_i + p_u . q_i, a bias being the first column of its table."""

    def __init__(self, n_users, n_items, k, mean):
        super().__init__()
        self.user, self.item = nn.Embedding(n_users, k + 1), nn.Embedding(n_items, k + 1)
        self.mean = nn.Parameter(torch.tensor(mean))
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs):
        p, q = self.user(pairs[:, 0]), self.item(pairs[:, 1])
        return self.mean + p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(-1)  # (batch,)


def prepare(split):
    return np.column_stack([split.user, split.item]).astype(np.int64), split.rating, split.n_users, split.n_items


def fit(data, k, max_epochs, lr, weight_decay, batch_size):
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    pairs, rating, n_users, n_items = data
    module = EmbeddingMF(n_users, n_items, k, float(rating.mean()))
    net = NeuralNetRegressor(
        module,
        max_epochs=max_epochs,
        lr=lr,
        batch_size=batch_size,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=weight_decay,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    return net.fit(pairs, rating)


def predict(model, split):
    return model.predict(np.column_stack([split.test_user, split.test_item]).astype(np.int64))


if __name__ == "__main__":
    main(version("skorch"), prepare, fit, predict)

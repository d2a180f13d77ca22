"""LensKit's BiasedMFScorer: damped biases first, then ALS on what they leave, in Rust."""

from importlib.metadata import version

import numpy as np
import pandas as pd
from harness import THREADS, main
from lenskit.als import BiasedMFScorer
from lenskit.data import from_interactions_df
from lenskit.parallel import initialize
from lenskit.training import TrainingOptions

initialize(processes=1, threads=THREADS, backend_threads=THREADS)


def prepare(split):
    frame = pd.DataFrame({"user_id": split.user, "item_id": split.item, "rating": split.rating})
    return from_interactions_df(frame, users=np.arange(split.n_users), items=np.arange(split.n_items))


def fit(data, **settings):
    model = BiasedMFScorer(**settings)
    model.train(data, TrainingOptions(rng=0))
    return model


def predict(model, split):
    user, item, bias = split.test_user, split.test_item, model.bias
    score = bias.global_bias + bias.user_biases[user] + bias.item_biases[item]
    return score + np.einsum("nk,nk->n", model.user_embeddings[user], model.item_embeddings[item])


if __name__ == "__main__":
    main(version("lenskit"), prepare, fit, predict)

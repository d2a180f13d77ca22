"""What a Spotlight model has learned, as a fitted estimator of ours."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import NotFittedError

from sk_torchmf.estimators import BiasedMatrixFactorization, ImplicitMatrixFactorization
from sk_torchmf.inputs import forms
from sk_torchmf.interactions import as_interactions
from sk_torchmf.spotlight._convert import check_container

EXPLICIT = {"regression": "squared_error", "poisson": "poisson", "logistic": "logistic"}
IMPLICIT = {"pointwise": "bpr", "bpr": "bpr", "hinge": "hinge", "adaptive_hinge": "adaptive_hinge"}
LEAST = 1e-6  # of the mean variance of the users' rows: their covariance can be inverted


def weights_from_spotlight(model, train=None):
    r"""Take a trained Spotlight factorization over into a fitted estimator.

    Parameters
    ----------
    model : ExplicitFactorizationModel or ImplicitFactorizationModel
        Trained, with a ``BilinearNet``, which is the default.
    train : Interactions, optional
        What it was trained on, ours or Spotlight's. Without it nothing is known to be seen: ``recommend`` leaves nothing out,
        every id counts as known, predictions have no limits for ``clip``, and new users cannot be folded in.

    Returns
    -------
    BiasedMatrixFactorization or ImplicitMatrixFactorization
        Its predictions are the model's to float32 rounding, for every user and item: raw scores of a model that ranks, ratings of
        one that predicts them (exp or sigmoid of the score for the losses ``poisson`` and ``logistic``). ``user_factors_`` and
        ``item_factors_`` are the model's embeddings, biases are the model's less their means, whose sum is ``global_mean_``. On
        the CPU, on arrays of its own; ``clone`` and ``fit`` train one of the same shape anew, by our losses.

    Raises
    ------
    TypeError
        For a sequence model, or one whose representation has no user and item embeddings and biases.

    Notes
    -----
    New users are folded in with the users' own distribution as the prior: a Gaussian with mean and covariance of their rows, and,
    for ratings, the mean squared error on ``train`` as the noise. An estimator that ranks folds in by our loss of the same name
    (``bpr`` is :math:`-\log \sigma` here, and stands in for ``pointwise``) with that loss's own regularisation.

    Examples
    --------
    ``theirs`` being a fitted ``spotlight.factorization.explicit.ExplicitFactorizationModel``::

        model = weights_from_spotlight(theirs, train)
        items, scores = model.recommend(k=5)
        vectors = model.embeddings()
    """
    users, items, user_bias, item_bias = _read_net(model)
    if model._loss in EXPLICIT:
        estimator = BiasedMatrixFactorization(users.shape[1], loss=EXPLICIT[model._loss], solver="adam")
    elif model._loss in IMPLICIT:
        estimator = ImplicitMatrixFactorization(users.shape[1], loss=IMPLICIT[model._loss], biased=True)
    else:
        raise TypeError(f"model has the loss {model._loss!r}, which is none of {', '.join(EXPLICIT | IMPLICIT)}.")
    data = None if train is None else as_interactions(check_container(train, "train"))
    _keep_ids(estimator, len(users), len(items), data)
    known_users, known_items = estimator.user_counts_ > 0, estimator.item_counts_ > 0
    estimator._biased = True
    estimator.user_factors_, estimator.item_factors_ = users, items
    estimator.mean_user_, estimator.mean_item_ = users[known_users].mean(0), items[known_items].mean(0)
    levels = [float(bias[known].mean(dtype=np.float64)) for bias, known in ((user_bias, known_users), (item_bias, known_items))]
    estimator.user_biases_, estimator.item_biases_ = user_bias - np.float32(levels[0]), item_bias - np.float32(levels[1])
    estimator.global_mean_ = float(np.float32(levels[0])) + float(np.float32(levels[1]))
    estimator.history_, estimator.n_iter_ = {"loss": [], "seconds": []}, model._n_iter
    if model._loss in EXPLICIT:
        _keep_ratings(estimator, data)
    return estimator


def _read_net(model):
    """Factors (n, k) and biases (n,) of both sides, float32, copies on the CPU."""
    net = getattr(model, "_net", None)
    if net is None and hasattr(model, "_net"):
        raise NotFittedError("model is not trained: it has no embeddings yet. Call its fit first.")
    names = "user_embeddings", "item_embeddings", "user_biases", "item_biases"
    if not all(hasattr(net, name) for name in names) or not hasattr(model, "_loss"):
        raise TypeError(
            f"model must be a factorization model of Spotlight with a BilinearNet. Got {type(model).__name__}"
            + ("." if net is None else f" with a {type(net).__name__}.")
        )
    found = []
    with torch.no_grad():
        for name, n in zip(names, (model._num_users, model._num_items) * 2, strict=True):
            layer = getattr(net, name)
            rows = layer(torch.arange(n, device=next(layer.parameters()).device)[:, None])  # a layer that hashes has no table
            found.append(rows.reshape(n, -1).float().cpu().numpy().copy())
    return *found[:2], found[2][:, 0], found[3][:, 0]


def _keep_ids(estimator, n_users, n_items, data):
    """Ids and what was observed of them; all are known where the training data are not."""
    estimator.form_, estimator.n_features_in_ = forms.INTERACTIONS, 2
    estimator.n_users_, estimator.n_items_ = n_users, n_items
    estimator.users_, estimator.items_ = np.arange(n_users), np.arange(n_items)
    if data is None:
        estimator.seen_ = sp.csr_array((n_users, n_items), dtype=bool)
        estimator.user_counts_, estimator.item_counts_ = np.ones(n_users), np.ones(n_items)
        return
    if (data.num_users, data.num_items) != (n_users, n_items):
        raise ValueError(
            f"train must be what model was trained on, with {n_users} users and {n_items} items. "
            f"Got {data.num_users} and {data.num_items}."
        )
    index = data.user_ids, data.item_ids
    estimator.seen_ = sp.csr_array(sp.coo_array((np.ones(len(data), dtype=bool), index), shape=(n_users, n_items)))
    estimator.user_counts_, estimator.item_counts_ = (
        np.bincount(ids, minlength=n).astype(np.float64) for ids, n in zip(index, (n_users, n_items), strict=True)
    )


def _keep_ratings(estimator, data):
    """What a model of ratings has besides: their range and their noise, and the prior of new users."""
    estimator.rating_scale_, estimator.noise_std_ = 1.0, None
    estimator.user_posterior_ = estimator.item_posterior_ = estimator.user_prior_ = None
    estimator.rating_range_ = np.array([-np.inf, np.inf])
    if data is None:
        return
    if data.ratings is None:
        raise ValueError("train has no ratings, which model was trained on. Pass Interactions with ratings.")
    rating = estimator._pointwise().check(np.asarray(data.ratings, dtype=np.float64))
    estimator.rating_range_ = np.array([rating.min(), rating.max()])
    noise = 0.5  # a log-likelihood has half the squares of its prior
    if estimator.loss == "squared_error":
        noise = float(np.mean((rating - estimator.predict(data)) ** 2))
        estimator.noise_std_ = noise**0.5
    known = estimator.user_counts_ > 0
    rows = np.column_stack([estimator.user_factors_, estimator.user_biases_])[known].astype(np.float64)
    covariance = np.atleast_2d(np.cov(rows.T, bias=True))
    covariance += (LEAST * np.trace(covariance) / len(covariance) + np.finfo(float).tiny) * np.eye(len(covariance))
    precision, shift = np.zeros((3, *covariance.shape)), np.zeros((3, len(covariance)))
    precision[0] = noise * np.linalg.inv(covariance)
    shift[0] = precision[0] @ rows.mean(0)
    estimator.user_prior_ = precision, shift

"""Converts a trained Spotlight model to a fitted estimator of this package."""

import torch
from sklearn.exceptions import NotFittedError

from sk_torchmf.estimators import BiasedMatrixFactorization, ImplicitMatrixFactorization
from sk_torchmf.interactions import as_interactions
from sk_torchmf.spotlight._convert import check_container

EXPLICIT = {"regression": "squared_error", "poisson": "poisson", "logistic": "logistic"}
IMPLICIT = {"pointwise": "bpr", "bpr": "bpr", "hinge": "hinge", "adaptive_hinge": "adaptive_hinge"}


def weights_from_spotlight(model, train=None):
    r"""Convert a trained Spotlight factorization to a fitted estimator.

    Parameters
    ----------
    model : ExplicitFactorizationModel or ImplicitFactorizationModel
        A trained model with a ``BilinearNet``, which is the default.
    train : Interactions, optional
        The data that it was trained on, in our container or Spotlight's. Without it no item counts as seen: ``recommend`` leaves
        none out, every id counts as known, ``clip`` has no limits, and new users cannot be folded in.

    Returns
    -------
    BiasedMatrixFactorization or ImplicitMatrixFactorization
        Its predictions are those of the model up to float32 rounding, for every user and item: raw scores for a model that ranks,
        ratings for one that predicts them (exp or sigmoid of the score for the losses ``poisson`` and ``logistic``).
        ``user_factors_`` and ``item_factors_`` are the model's embeddings. The biases are the model's minus their means, and the
        sum of the means is ``global_mean_``. The arrays are copies on the CPU. ``clone`` and ``fit`` train a new model of the same
        shape, with the losses of this package.

    Raises
    ------
    TypeError
        If the model is a sequence model, or its network has no user and item embeddings and biases.

    Notes
    -----
    New users are folded in with the distribution of the users' rows as the prior: a Gaussian with the mean and covariance of these
    rows and, for ratings, the mean squared error on ``train`` as the noise. An estimator that ranks uses the loss of the same name
    in this package (``bpr`` is :math:`-\log \sigma` here, and is also used for ``pointwise``), with the default regularisation of
    that loss.

    Examples
    --------
    If ``theirs`` is a fitted ``spotlight.factorization.explicit.ExplicitFactorizationModel``::

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
    if data is not None and (data.num_users, data.num_items) != (len(users), len(items)):
        raise ValueError(
            f"train must be the data that model was trained on, with {len(users)} users and {len(items)} items. Got "
            f"{data.num_users} and {data.num_items}."
        )
    if data is not None and data.ratings is None and model._loss in EXPLICIT:
        raise ValueError("train must have the ratings that model was trained on. It has none. Pass Interactions with ratings.")
    return estimator.set_factors(users, items, user_bias, item_bias, interactions=data, n_iter=model._n_iter)


def _read_net(model):
    """Factors (n, k) and biases (n,) of both sides, float32, copies on the CPU."""
    net = getattr(model, "_net", None)
    if net is None and hasattr(model, "_net"):
        raise NotFittedError("model must be trained, and it has no embeddings yet. Call its fit first.")
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

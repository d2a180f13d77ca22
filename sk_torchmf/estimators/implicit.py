"""Matrix factorization of implicit feedback: what users have is ranked above what they have not."""

from collections import ChainMap
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from sk_torchmf._validation import LARGEST, MOST, SMALLEST, check_device
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import ENCODER_CONSTRAINTS, FIT_CONSTRAINTS, work_of
from sk_torchmf.estimators._gathering import SavedInParts
from sk_torchmf.estimators._positives import AUTO, COSINE, PositivesPredictor
from sk_torchmf.estimators._positives_part import PositivesPart
from sk_torchmf.estimators._refusals import POSITIVES_NEEDS, check_shareable
from sk_torchmf.estimators._stored_part import StoredPositivesPart
from sk_torchmf.inputs.cached_shards import is_stored, open_stored
from sk_torchmf.inputs.forms import SHARDS, read_weighted
from sk_torchmf.inputs.labels import lookup
from sk_torchmf.inputs.shards import Shards
from sk_torchmf.inputs.stored_ratings import read_shards
from sk_torchmf.metrics._scorer import ScorerOfParts
from sk_torchmf.nn import RANKING
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.shared_validation import shared_validation
from sk_torchmf.training.validation import Validation

LOSSES: ChainMap[str, Any] = ChainMap({"ials": None, COSINE: None}, RANKING)  # these two are not in pairs


@documented(epoch="iteration", observations="positives", entries="seen_")
class ImplicitMatrixFactorization(SavedInParts, PositivesPredictor):
    r"""Matrix factorization of implicit feedback, :math:`s_{ui} = p_u \cdot q_i \; (+ b_i)`, for ranking.

    Every observation is a positive: an item that the user has bought, heard or read. The model learns to give it a higher score
    than the items that the user was not observed with.

    Parameters
    ----------
    @n_factors
    loss : {"cosine", "ials", "logistic", "bpr", "hinge", "adaptive_hinge", "softmax"}, default="cosine"
        What training minimises; the Notes have the formulas:

        - ``"cosine"``: softmax of cosines. It needs no tuning, and ranks at least as well as ``"ials"`` does after a search;
        - ``"ials"``: weighted squared error of all pairs. It is about ten times faster, and the features of users and items with
          positives influence training. Use it for tens of millions of positives;
        - ``"logistic"``, ``"softmax"``: a positive against drawn negatives, or against all of them, see ``exact``;
        - ``"bpr"``, ``"hinge"``: a positive against each of its drawn negatives;
        - ``"adaptive_hinge"``: a positive against the one of its drawn negatives that has the highest score.
    biased : bool, default=None
        Whether items have biases. If not, popularity becomes a part of the factors and is regularised with them, which ranks better
        where positives are few. None means True for ``cosine``, whose factors cannot express popularity, and False for all other
        losses.
    temperature : float or "auto", default="auto"
        With ``cosine``: what cosines are divided by to become scores; the biases of the items are then added. "auto" computes it
        from the numbers m and n of users and items that have positives, as :math:`0.1 \, (10^9 / mn)^{1/8}` but at most 0.3. That
        is 0.22 for 1,000 users and 1,700 items, and 0.1 for 30,000 users and as many items.
    alpha : float or "auto", default=None
        Strength of the regularisation; ``cosine`` has none. None takes a value that suits the loss. With ``ials``, "auto" searches
        for the value that best ranks held-out positives, a tenth of each user's. It tries at most 10 candidates for a few
        iterations each, which takes as long as 5 to 10 fits. The search is repeated in every ``fit`` and ``partial_fit``, and twice
        in a fit with ``early_stopping`` and ``refit``.
    confidence : float or "auto", default=None
        With ``ials``: how much more a positive of weight 1 counts in the loss than a pair that was not observed, which counts 1.
        None chooses the value for which the sum of this over all positives is a tenth of the number of all pairs. "auto" searches
        for it as described for ``alpha``; if both are "auto", in one search.
    n_negatives : int, default=4
        Number of negatives that are drawn for each positive, anew in each iteration; ``ials`` and ``cosine`` draw none in this way.
        If ``logistic`` compares a positive with all negatives (``exact``), it is the weight of all of these together. ``softmax``
        then ignores it.
    @negatives
    exact : bool, default=None
        Whether a positive is compared with all items that the user was not observed with, instead of a random sample. With
        ``logistic`` and ``softmax`` this computes the scores of all items for all users in each iteration; None does so if the
        number of users times that of items is at most 2**28, about 270 million. With ``cosine`` each block of users is shown all
        items; None means False. All other losses refuse True.
    max_iter : int, default=None
        Number of passes over the positives. None means 15 for ``ials``, 8 for ``cosine``, 25 for exact losses and 40 for losses
        with drawn negatives.
    @warm_start
    @user_encoder
    @item_encoder
    @tol
        Only ``ials`` and the exact losses ``logistic`` and ``softmax`` stop in this way.
    @early_stopping
        With drawn negatives, the step size decreases according to ``max_iter``, wherever training stops.
    @validation_fraction
    @n_iter_no_change
    @refit
        On MovieLens-100K (four splits) the NDCG@10 of ``ials`` was 0.344 with it, 0.332 without and 0.344 without early stopping.
        For ``bpr`` the three figures were 0.322, 0.307 and 0.331.
    @scoring
        None means NDCG@10 of lists without the items that were trained on.
    @handle_unknown
        ``recommend`` gives an unknown user what the mean user likes best.
    @user
    @item
    @checkpoint
    @dtype
    @device
    distributed : bool, default=False
        If True, all processes of the default group of ``torch.distributed`` fit one model together. Each of them calls ``fit`` with
        a part of the data. See ``gather``. A ``scoring`` other than None, "auto" for ``alpha`` and ``confidence``, and
        ``negatives="popularity"`` are refused. Initial factors, blocks of users and negatives depend on the labels of the users, so
        the number of processes changes the result by no more than rounding.
    @random_state
    @verbose

    Attributes
    ----------
    user_factors_, item_factors_ : ndarray of shape (n_users, n_factors) and (n_items, n_factors)
        The factors. The score of a pair is their inner product, plus the biases in a biased model.
    user_biases_ : ndarray of shape (n_users,)
        Where ``biased`` holds: the biases of the users, with mean zero. They are all zero except for ``logistic``, the only loss to
        which the level of a user's scores matters.
    item_biases_ : ndarray of shape (n_items,)
        Where ``biased`` holds: the biases of the items, with mean zero.
    global_mean_ : float
        Where ``biased`` holds: the constant that is part of every score.
    @mean_user_, mean_item_
    @users_, items_
    @n_users_, n_items_
    @seen_
    @user_counts_, item_counts_
    @pair_weights_
    n_positives_, n_active_users_ : int
        Number of different positives, and number of users who have any; in a distributed fit, of all processes together.
    alpha_ : float
        With all losses except ``cosine``: the strength of the regularisation that was used.
    confidence_ : float
        The confidence that ``ials`` used.
    temperature_ : float
        With ``cosine``: the temperature that was used.
    @user_encoder_, item_encoder_
    @user_features_, item_features_
    @user_described_, item_described_
    @user_feature_names_, item_feature_names_
    @user_feature_groups_, item_feature_groups_
    @user_feature_weights_, item_feature_weights_
    @user_feature_shares_, item_feature_shares_
    @user_feature_prior_, item_feature_prior_
    @history_
    @n_iter_
    @best_iter_
    @best_score_
    @form_
    @n_features_in_
    @feature_names_in_

    See Also
    --------
    TorchFactorization : A module of your own, with the same ranking losses.
    BiasedMatrixFactorization : For ratings.

    Notes
    -----
    ``ials`` minimises, over all m users and n items [1]_ [2]_,

    .. math::
        & \sum_{ui} s_{ui}^2 + \sum_{ui \in R} \left[ (1 + g_{ui}) (1 - s_{ui})^2 - s_{ui}^2 \right] \\
        & + \alpha \sum_u (G_u + n) \lVert p_u \rVert^2 \\
        & + \alpha \sum_i (G_i + m) \left( \lVert q_i \rVert^2 + b_i^2 \right)

    where R is the set of positives, :math:`g_{ui} = c \, w_{ui}` is the confidence c times the weight of a positive, and
    :math:`G_u` and :math:`G_i` are its sums over the positives of a user and of an item. So the score of a positive should be 1,
    and that of any other pair 0.

    All other losses minimise, over items j that the user was not observed with,

    .. math:: \sum_{ui \in R} w_{ui} \sqrt{\bar c / c_u} \; E_j \, \ell(s_{ui}, s_{uj}) + \text{ridge}

    where the weights have mean 1, :math:`c_u` is the sum of the weights of user u, and the ridge is that of
    ``BiasedMatrixFactorization``. The losses :math:`\ell` are in ``sk_torchmf.nn``; ``bpr`` is
    :math:`-\log \sigma(s_{ui} - s_{uj})` [3]_. Users who have every item teach these losses nothing and are left out.

    With features, a row is the sum of a part of its own and a linear map of the features, and the ridge applies to the own part and
    to the coefficients of the map. Users and items without positives get what their features say, by a regression of the fitted
    rows on the features.

    ``cosine`` is the softmax loss without a ridge, with scores :math:`s_{ui} = p_u \cdot q_i / \tau + b_i` and the ``temperature``
    :math:`\tau` [4]_. Rows are smoothed over the graph of positives [5]_:

    .. math::
        p_u & = \nu\Bigl(x_u + \frac{1}{\sqrt{n_u}} \sum_{i \in R_u} \nu(y_i)\Bigr) \\
        q_i & = \nu\Bigl(\nu(y_i) + \frac{30}{n_i} \sum_{u \in R_i} p_u\Bigr)

    where :math:`x_u` and :math:`y_i` are free rows, :math:`\nu(x) = x / \lVert x \rVert`, and :math:`n_u` and :math:`n_i` are
    numbers of positives. An item thus is nearly the mean of its users. The fitted factors are p and q, each divided by the root of
    the temperature. The free rows start at singular vectors of the matrix of positives. Each step takes up to 1024 users, the items
    they have and 2048 other items, which stand for all the rest. Features play no part in this training; they serve users and items
    without positives.

    References
    ----------
    .. [1] Hu, Koren, Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008.
    .. [2] Rendle, Krichene, Zhang, Koren, Revisiting the Performance of iALS on Item Recommendation Benchmarks, RecSys 2022.
    .. [3] Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.
    .. [4] Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, ACM TOIS 2024.
    .. [5] He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from sk_torchmf import ImplicitMatrixFactorization
    >>> X = sp.csr_array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1]])
    >>> model = ImplicitMatrixFactorization(n_factors=2, random_state=0).fit(X)
    >>> items, scores = model.recommend(1, k=1)
    >>> items
    array([2])

    A new user, of whom only the items are known:

    >>> model.recommend(sp.csr_array([[0, 0, 0, 0, 1]]), k=1)[0]
    array([[3]])

    An item that nobody has yet, of which only features are known:

    >>> attributes = [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]
    >>> X.resize(4, 6)
    >>> model = model.fit(X, item_features=sp.csr_array(attributes))
    >>> float(model.predict(2, 5)) > float(model.predict(0, 5))
    True
    """

    _parameter_constraints: dict = {
        "n_factors": [Interval(Integral, 1, MOST, closed="both")],
        "loss": [StrOptions(LOSSES.keys())],  # a view: a loss that joins the table is a value at once
        "biased": ["boolean", None],
        "alpha": [Interval(Real, 0, LARGEST, closed="both"), StrOptions({AUTO}), None],
        "confidence": [Interval(Real, SMALLEST, LARGEST, closed="both"), StrOptions({AUTO}), None],
        "n_negatives": [Interval(Integral, 1, MOST, closed="both")],
        "negatives": [StrOptions({"uniform", "popularity"})],
        "temperature": [Interval(Real, SMALLEST, LARGEST, closed="both"), StrOptions({"auto"})],
        "exact": ["boolean", None],
        "max_iter": [Interval(Integral, 1, MOST, closed="both"), None],
        "distributed": ["boolean"],
        **ENCODER_CONSTRAINTS,
        **FIT_CONSTRAINTS,
    }

    def __init__(
        self,
        n_factors=128,
        *,
        loss="cosine",
        biased=None,
        alpha=None,
        confidence=None,
        n_negatives=4,
        negatives="uniform",
        temperature="auto",
        exact=None,
        max_iter=None,
        user_encoder="auto",
        item_encoder="auto",
        tol=1e-4,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        refit=True,
        scoring=None,
        checkpoint=None,
        handle_unknown="mean",
        user=0,
        item=1,
        dtype="float32",
        device=None,
        warm_start=False,
        distributed=False,
        random_state=None,
        verbose=0,
    ):
        self.n_factors = n_factors
        self.loss = loss
        self.biased = biased
        self.alpha = alpha
        self.confidence = confidence
        self.n_negatives = n_negatives
        self.negatives = negatives
        self.temperature = temperature
        self.exact = exact
        self.max_iter = max_iter
        self.user_encoder = user_encoder
        self.item_encoder = item_encoder
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.refit = refit
        self.scoring = scoring
        self.checkpoint = checkpoint
        self.handle_unknown = handle_unknown
        self.user = user
        self.item = item
        self.dtype = dtype
        self.device = device
        self.warm_start = warm_start
        self.distributed = distributed
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    @documented(one="a positive", forms="table, Interactions or sparse matrix", epoch="iteration")
    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None, *, user_features=None, item_features=None):
        """Fit the model to positives, from scratch unless ``warm_start=True``.

        Parameters
        ----------
        @X
            The values of a matrix and the ``ratings`` of a container are ignored. A pair that occurs twice counts twice.

            With ``loss="ials"``, X may also be ``Shards``, a data set on disk. The model is the same as for a table with its rows,
            but memory does not grow with their number. Its ratings are ignored, and its weights take the place of ``y`` and
            ``sample_weight``, which must be None.

            A path of Parquet files, or a pyarrow Dataset, is made into such a data set, in a folder that is kept for the next call,
            see the guide. ``user``, ``item``, ``y`` and ``sample_weight`` then are names of its columns.
        y : array-like of shape (n,), optional
            Weights of the positives, >= 0, such as numbers of plays. Must be None for a sparse matrix.
        @sample_weight
            Weights multiply ``y``.
        @X_val
            A table or container has further positives of known users. A sparse matrix has positives of new users.
        y_val : array-like of shape (n_val,), optional
            Passed to ``scoring``; not used with ``scoring=None``.
        @user_features
        @item_features

        Returns
        -------
        @self
        """
        return self._fit(X, y, sample_weight, X_val, y_val, user=user_features, item=item_features)

    @with_callbacks
    @documented(unkept="got its factors from ``set_factors`` without ``interactions``")
    def partial_fit(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Continue with more positives: the estimator trains on these and on all earlier ones, which it has kept.

        Parameters
        ----------
        @X
            The weight of a pair that was observed before is added to the earlier one.
        @y
        @sample_weight
        @user_features
            The columns and the encoding are those of ``fit``.
        @item_features

        Returns
        -------
        @self

        Raises
        ------
        @ValueError
            Also if ``n_factors`` has changed since the estimator was fitted.

        Notes
        -----
        Training starts from the present factors. A call takes as long as a ``fit`` with ``warm_start=True`` to all positives so
        far, so pass many positives in each call. For a few new users use ``fold_in`` instead.
        """
        if is_stored(X):
            raise TypeError(
                "partial_fit takes no data on disk: it keeps all positives in memory. Use fit, with warm_start=True to go on from "
                "the rows."
            )
        return self._partial_fit(X, y, sample_weight, user=user_features, item=item_features)

    def _check(self):
        if self.exact and (self.loss == "ials" or self._link().expected is None):
            raise ValueError(
                f'exact=True is for loss="cosine", "logistic" and "softmax". Got loss="{self.loss}", which '
                + ("always counts all pairs." if self.loss == "ials" else "is drawn.")
            )
        for name, value in (("alpha", self.alpha), ("confidence", self.confidence)):
            if value == AUTO and self.loss != "ials":
                raise ValueError(f'{name}="auto" is for loss="ials". Got loss="{self.loss}". Pass a number, or None.')
        if self.temperature != AUTO and self.loss != COSINE:
            raise ValueError(
                f'temperature={self.temperature} is for loss="cosine", whose scores are cosines over it. Got loss="{self.loss}".'
            )
        return check_device(self.device)

    def _check_shared(self, processes, **given):
        check_shareable(self, processes, POSITIVES_NEEDS, **given)

    def _read(self, X, y, sample_weight):
        X, y, sample_weight = open_stored(X, y, sample_weight, self.user, self.item, rated=False)
        if isinstance(X, Shards):
            self._check_takes_shards()
            return read_shards(X, y, sample_weight, type(self).__name__, rated=False)
        return read_weighted(X, y, sample_weight, self.user, self.item, is_part=self.distributed)

    def _hold_out(self, given, seed):
        return shared_validation(self, given, seed) if self.distributed else super()._hold_out(given, seed)

    def _read_held_out(self, X, y):
        """Read validation data, of which others may have other parts; a Reading."""
        return read_weighted(X, None, None, self.user, self.item, is_part=True)

    def _judging(self, held_out, reading):
        """What judges by this process's part of held-out positives, a Reading, of its users beside what it was fitted to."""
        item, n_items = lookup(held_out.items, reading.items, "item"), reading.shape[1]
        item = np.where(item < 0, n_items + np.arange(len(item)), item)[held_out.data.item_ids]
        shape = len(held_out.users), n_items + len(held_out.items)
        relevant = sp.coo_array((np.ones(len(item), dtype=bool), (held_out.data.user_ids, item)), shape=shape)
        scorer = ScorerOfParts(held_out.users, sp.csr_array(relevant), reading.processes)
        return Validation(None, None, None, scorer)

    def _check_takes_shards(self):
        """Refuse what a fit to a data set on disk does not do."""
        if self.loss != "ials":
            raise ValueError(f'A fit to Shards needs loss="ials", which reads them block by block. Got loss="{self.loss}".')
        if AUTO in (self.alpha, self.confidence):
            raise ValueError(
                'alpha="auto" and confidence="auto" search in positives at hand. Search in a part of the Shards first.'
            )

    def _part(self, reading, device, seed, start):
        return (StoredPositivesPart if reading.form == SHARDS else PositivesPart)(self, reading, device, seed, start)

    def _work(self, reading):
        return work_of(reading, self.n_factors)

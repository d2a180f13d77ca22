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
    r"""Matrix factorization of implicit feedback, :math:`s_{ui} = p_u \cdot q_i \; (+ b_i)`, that ranks.

    Every observation is a positive: something a user has bought, heard, read. The model learns to score it above what that user has
    not.

    Parameters
    ----------
    @n_factors
    loss : {"cosine", "ials", "logistic", "bpr", "hinge", "adaptive_hinge", "softmax"}, default="cosine"
        What is minimised, see Notes. ``cosine`` needs no tuning, and ranks as well as ``ials`` does after a search or better.
        ``ials`` is some ten times faster, and learns from features of items and users that have positives too: take it for tens of
        millions of positives.
    biased : bool, default=None
        Whether items have biases. Without, popularity goes into a factor, which is regularised with the others: where positives
        are few that ranks better. None says yes for ``cosine``, where popularity can go nowhere else, and no for all others.
    alpha : float or "auto", default=None
        Regularisation; None chooses one that suits the loss. With ``ials`` "auto" searches for what ranks best positives that are
        held out meanwhile, a tenth of each user's: at most 10 candidates of a few iterations each, which together take as long as
        some 5 to 9 fits. Each fit searches, and so does ``partial_fit``; with ``early_stopping`` and ``refit`` both parts of it do.
    confidence : float or "auto", default=None
        With ``ials``, by how much a positive of weight 1 weighs more than a pair that was not observed; None makes the positives
        together weigh a tenth of what all pairs do, and "auto" is as for ``alpha``, both in one search.
    n_negatives : int, default=4
        Negatives drawn for each positive, anew in each iteration. Where the expectation is exact, the weight of all negatives of a
        positive with ``logistic``, and without effect with ``softmax``.
    @negatives
    temperature : float or "auto", default="auto"
        With ``cosine``: scores are cosines divided by the temperature, with the items' biases added. "auto" goes by the
        numbers m and n of users and items that have positives, :math:`0.1 \, (10^9 / mn)^{1/8}`, and 0.3 at most: 0.22 for 1,000
        users and 1,700 items, 0.1 for 30,000 users and as many items.
    exact : bool, default=None
        With ``logistic`` and ``softmax``: take the expectation over all negatives, scoring all items for all users in each
        iteration, instead of drawing some. None does so where users times items are at most 2**28, some 270 million. With
        ``cosine``: show each block of users all items; None does not. The pairwise losses have a term for each positive and
        negative, and are always drawn.
    max_iter : int, default=None
        Passes over the positives; None is 15 for ``ials``, 8 for ``cosine``, 25 for an exact expectation and 40 for drawn
        negatives.
    @user_encoder
    @item_encoder
    @tol
        Only ``ials`` and exact losses but ``cosine`` stop so.
    @early_stopping
        Steps on drawn negatives shrink as if all of ``max_iter`` came.
    @validation_fraction
    @n_iter_no_change
    @refit
        On MovieLens-100K (four splits) NDCG@10 was 0.344 with and 0.332 without for ``ials`` (0.344 without early stopping;
        ``bpr``: 0.322, 0.307, 0.331).
    @scoring
        None is NDCG@10, what was trained on being left out of the lists.
    @checkpoint
    @handle_unknown
        ``recommend`` gives an unknown user what the mean user likes best.
    @user
    @item
    @dtype
    @device
    @warm_start
    distributed : bool, default=False
        Whether this is one fit of all processes of the default group of ``torch.distributed``, each of which calls ``fit`` with
        a part of the data, see ``gather``. Another ``scoring`` than None, "auto" for ``alpha`` and ``confidence``, and
        ``negatives="popularity"`` are refused. Initial rows, blocks of users and negatives are drawn by the users' labels, so that
        the result does not depend, beyond rounding, on the number of processes.
    @random_state
    @verbose

    Attributes
    ----------
    user_factors_, item_factors_ : ndarray of shape (n_users, n_factors) and (n_items, n_factors)
        Factors; the score is their inner product, plus biases where there are any.
    user_biases_ : ndarray of shape (n_users,)
        Where ``biased``; of mean zero, and zero for all losses but ``logistic``, whose scores have a level.
    item_biases_ : ndarray of shape (n_items,)
        Where ``biased``; of mean zero.
    global_mean_ : float
        Where ``biased``; the level of the scores.
    @mean_user_, mean_item_
    @users_, items_
    @n_users_, n_items_
    @seen_
    @user_counts_, item_counts_
    @pair_weights_
    n_positives_, n_active_users_ : int
        Pairs of the fit, each counted once, and users who have any: of all processes that shared it.
    alpha_ : float
        With all losses but ``cosine``; the regularisation that was used.
    confidence_ : float
        The confidence that ``ials`` uses.
    temperature_ : float
        With ``cosine``; the temperature that it uses.
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
    TorchFactorization : Your own module, with the same ranking losses.

    Notes
    -----
    ``ials`` minimises, over all users u and items i and the positives R with weights w, gain :math:`g_{ui} = c \, w_{ui}` and its
    sums :math:`G_u, G_i` by row, c being ``confidence_``,

    .. math:: \sum_{ui} s_{ui}^2 + \sum_{ui \in R} \left[ (1 + g_{ui}) (1 - s_{ui})^2 - s_{ui}^2 \right]
        + \alpha \sum_u (G_u + n) \lVert p_u \rVert^2 + \alpha \sum_i (G_i + m) \left( \lVert q_i \rVert^2 + b_i^2 \right)

    for m users and n items [1]_ [2]_. The others minimise, with items j that u has not,

    .. math:: \sum_{ui \in R} w_{ui} \sqrt{\bar c / c_u} \; E_j \, \ell(s_{ui}, s_{uj}) + \text{ridge}

    where the weights have mean 1, :math:`c_u` is a user's sum of them and the ridge is that of ``BiasedMatrixFactorization``. The
    losses are in ``sk_torchmf.nn``: ``bpr`` is :math:`-\log \sigma(s_{ui} - s_{uj})` [3]_. A user who has every item has nothing to
    be ranked below, and is left out of them.

    Features of users and items say what rows shrink to: a row is its own part and a linear map of its features, and the ridge is
    that of its own part and of the map's coefficients. A user or item without positives is what its features say, by a regression
    of the finished rows on them.

    ``cosine`` is the softmax loss without a ridge, :math:`s_{ui} = p_u \cdot q_i / \tau + b_i` with the ``temperature``
    :math:`\tau` [4]_, of rows that are smoothed over who has what [5]_, :math:`\nu(x) = x / \lVert x \rVert` and
    :math:`n_u, n_i` being numbers of positives:

    .. math:: p_u = \nu\Bigl(x_u + \frac{1}{\sqrt{n_u}} \sum_{i \in R_u} \nu(y_i)\Bigr),
        \quad q_i = \nu\Bigl(\nu(y_i) + \frac{30}{n_i} \sum_{u \in R_i} p_u\Bigr)

    so that an item is nearly the mean of its users. The factors are p and q, each over the root of the temperature. Free rows x and
    y start at singular vectors of the matrix of positives. Each step takes up to 1024 users, the items that these have and 2048
    others, which stand for all that are left. Features have no part in that fit: they serve users and items without positives.

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

    A new user, by what she has:

    >>> model.recommend(sp.csr_array([[0, 0, 0, 0, 1]]), k=1)[0]
    array([[3]])

    An item that nobody has yet, by its attributes:

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
        """Fit to positives, from scratch unless ``warm_start``.

        Parameters
        ----------
        @X
            The values of a matrix and a container's ``ratings`` say nothing. A pair that comes twice counts twice.
            Or ``Shards``, a data set on disk, with the loss ``ials``: the model is that of its rows as a table, and memory does not
            grow with them. Its ratings say nothing, its weights are what ``y`` and ``sample_weight`` of a table are; both must be
            None.
            A path of Parquet files, or a pyarrow Dataset, becomes such a data set once, in a folder that is kept, see the guide;
            ``user``, ``item``, ``y`` or ``sample_weight`` then name its columns.
        y : array-like of shape (n,), optional
            Weights of the positives, >= 0, such as counts of plays. None for a sparse matrix.
        @sample_weight
            Weights multiply ``y``.
        @X_val
            These are further positives of known users, or a sparse matrix of new users.
        y_val : array-like of shape (n_val,), optional
            What ``scoring`` makes of it; with ``scoring=None`` nothing.
        @user_features
        @item_features

        Returns
        -------
        @self
        """
        return self._fit(X, y, sample_weight, X_val, y_val, user=user_features, item=item_features)

    @with_callbacks
    @documented(unkept="has its factors from ``set_factors`` without ``interactions``")
    def partial_fit(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Go on with more positives: the estimator has kept those so far, and trains on all of them, from the present rows.

        Parameters
        ----------
        @X
            A pair that comes again adds its weight.
        @y
        @sample_weight
        @user_features
            Their columns are those of ``fit``, and so is their encoding.
        @item_features

        Returns
        -------
        @self

        Raises
        ------
        @ValueError
            Another ``n_factors`` than that of the rows is refused too.

        Notes
        -----
        A call takes as long as a ``fit`` to all positives so far with ``warm_start``, so give it many at a time. For a few new
        users there is ``fold_in``.
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

"""Texts that the docstrings of several estimators share, and ``documented``, which puts them in. Knows no estimator.

A docstring has ``@name`` on a line of its own where the shared entry of that name is to stand. What is indented below that line is
for this class alone, and continues the last paragraph of the shared description; below a list it is a paragraph of its own.
"""

import inspect
import re
from collections.abc import Callable
from decimal import Decimal
from string import Template
from textwrap import dedent, fill, indent
from typing import TypeVar

Documented = TypeVar("Documented", bound=Callable)

HEADING = re.compile(r"^( *)(\w.*)\n\1-{3,}\n", re.MULTILINE)
SHARED = re.compile(r"^( *)@(.+)(?:\n|\Z)((?:\n*\1 +.*\n)*)", re.MULTILINE)  # margin, name, what goes on with the description
WIDTH = 120

PARAMETER_GROUPS = {  # the order of the parameters in the estimators' docstrings, and the headings above them in the reference
    "Model": ("module", "n_factors", "loss", "cut_points", "biased", "temperature", "options"),
    "Solver": (
        "solver",
        "optimizer",
        "scheduler",
        "parameter_options",
        "alpha",
        "confidence",
        "n_negatives",
        "negatives",
        "exact",
        "max_iter",
        "learning_rate",
        "batch_size",
        "warm_start",
    ),
    "Features": ("features", "user_encoder", "item_encoder", "seen_features", "cold_average", "effects", "time"),
    "Stopping": ("tol", "early_stopping", "validation_fraction", "n_iter_no_change", "refit", "scoring"),
    "Ids and predictions": ("user", "item", "handle_unknown", "clip"),
    "Machine": ("dtype", "device", "n_processes", "distributed", "checkpoint", "random_state", "verbose"),
}


def documented(**words: str) -> Callable[[Documented], Documented]:
    """Put shared entries into the docstring of a class, a function or a method.

    An entry is looked up in ``TEXTS`` by the section that it stands in and its name: for a class under the names of the class
    itself and its bases, in their order; for a function under its own name, then under ``any method``. Where the signature has a
    default, the entry's type says so.

    Parameters
    ----------
    **words : str
        What stands in a text as ``$word`` or ``${word}``.

    Returns
    -------
    callable
        The decorator. It returns what it is given, and leaves alone what has no docstring.

    Raises
    ------
    LookupError
        By the decorator, for an ``@name`` that names no shared entry, a word that an entry asks for and that was not given, and
        one that was given for nothing.
    """

    def decorate(target: Documented) -> Documented:
        if target.__doc__ is not None:  # as it is with python -OO
            target.__doc__ = _filled_in(target, words)
        return target

    return decorate


def _filled_in(target, words):
    """The docstring of a class or function with the shared entries in the place of their names."""
    owners = [base.__name__ for base in target.__mro__] if isinstance(target, type) else [target.__name__, "any method"]
    unused = set(words)

    def entry(match):
        margin, name, more = match.groups()
        section = ["", *(heading[2] for heading in HEADING.finditer(target.__doc__, 0, match.start()))][-1]
        where, text = f"@{name} in the {section} of {target.__qualname__}", Template(_entry(owners, section, name))
        asked = set(text.get_identifiers())
        if not text.template:
            raise LookupError(f"{where} names no shared text.")
        if asked - words.keys():
            raise LookupError(f"{where} needs documented({', '.join(f'{word}=...' for word in sorted(asked - words.keys()))}).")
        unused.difference_update(asked)
        header, _, description = text.substitute(words).partition("\n")
        if section == "Parameters" and not header.endswith(", optional"):
            header += _default(target, name)
        return indent(f"{header}\n{_wrapped(description, more)}\n", margin)

    filled = SHARED.sub(entry, target.__doc__)
    if unused:
        raise LookupError(f"No shared text of {target.__qualname__} asks for {', '.join(sorted(unused))}.")
    return filled


def _entry(owners, section, name):
    """The first owner's text of an entry; one that begins with @ goes on where the next owner's ends. Empty where there is none."""
    for place, owner in enumerate(owners):
        text = TEXTS.get(owner, {}).get((section, name), "")
        if text.startswith("@"):
            return _entry(owners[place + 1 :], section, name) + text.removeprefix(f"@{name}")
        if text:
            return text
    return ""


def _wrapped(description, more):
    """A shared description and what a class adds to it, as indented paragraphs; lists keep their lines."""
    shared, own = (re.split(r"\n\s*\n", dedent(text).strip("\n")) for text in (description, more))
    if not _is_list(shared[-1]):
        own[0] = f"{shared.pop()} {own[0]}"
    paragraphs = [text if _is_list(text) else _filled(text) for text in (*shared, *own) if text.strip()]
    return indent("\n\n".join(paragraphs), "    ")


def _is_list(paragraph):
    return paragraph.startswith("- ")


def _filled(paragraph):
    return fill(" ".join(paragraph.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _default(target, name):
    """What a signature says of a parameter's default, as the type of a documented parameter ends."""
    parameter = inspect.signature(target).parameters.get(name)
    if parameter is None or parameter.default is parameter.empty:
        return ""
    value = parameter.default
    if isinstance(value, float) and 0 < value < 0.001:
        return f", default={Decimal(repr(value)):e}"  # 1e-5, not 1e-05
    return f', default="{value}"' if isinstance(value, str) else f", default={value!r}"


def _entries(text):
    """The entries of a text with numpydoc's sections, by section and name."""
    _, *parts = HEADING.split(inspect.cleandoc(text))
    found = {}
    for section, body in zip(parts[1::3], parts[2::3], strict=True):
        for entry in re.split(r"^(?=\S)", body, flags=re.MULTILINE):
            name = entry.split("\n")[0].partition(" : ")[0].removeprefix("@")
            found[section, name] = entry.strip()
    return found


_WRITTEN = {
    # Classes.
    "Factorization": """
        Parameters
        ----------
        clip : bool
            If True, predictions are limited to the range of the training ratings.
        user : int or str
            Column of a table that holds the user ids: its position or, in a DataFrame, its name.
        item : int or str
            Column of a table that holds the item ids. Columns that no parameter names are ignored.

        Attributes
        ----------
        users_, items_ : ndarray of shape (n_users,) and (n_items,)
            The user ids and the item ids, sorted. The position of an id here is its row number in all other attributes.
        n_users_, n_items_ : int
            Number of users and number of items.
        seen_ : CSR array of shape (n_users, n_items), bool
            The pairs that have been observed so far, in ``fit`` and in every ``partial_fit`` since.
        user_counts_, item_counts_ : ndarray of shape (n_users,) and (n_items,)
            Sum of the weights of the observations of each user and of each item; 0 for an id that was never observed.
        form_ : {"sparse", "table", "interactions"}
            The form of the X that ``fit`` was given.
        n_features_in_ : int
            Number of columns of X, as scikit-learn counts them; 2 for a container.
        feature_names_in_ : ndarray of str
            Where ``X`` was a DataFrame whose column names are all strings: these names.
    """,
    "Fitting": """
        Parameters
        ----------
        negatives : {"uniform", "popularity"}
            How likely an item is to be drawn as a negative. A negative is an item that the user was not observed with.
            ``"uniform"`` draws all of these with the same probability, ``"popularity"`` each with a probability proportional to its
            number of users to the power 0.75.
        early_stopping : bool
            If True, training stops once it no longer improves the predictions of validation data. These are a part of each user's
            $observations that is held out, or the ``X_val`` of ``fit``. Training stops when their figure, see ``scoring``, has not
            improved by more than ``tol`` times its size for ``n_iter_no_change`` ${epoch}s, and the best $epoch is used. The
            training loss then does not end a fit.
        validation_fraction : float
            Fraction of each user's pairs that ``early_stopping`` holds out, drawn at random. All observations of a pair are held
            out together. Every user keeps at least one pair to train on and, where that is possible, so does every item.
        n_iter_no_change : int
            Number of ${epoch}s without improvement after which ``early_stopping`` ends training.
        tol : float
            Training stops once the objective has fallen by less than this fraction in each of five ${epoch}s in a row. With 0 it
            never stops for this reason.
        refit : bool
            What ``early_stopping`` does after it has found the best $epoch. If True, the model is fitted again, to all of X and for
            as many ${epoch}s. If False, the model of the best $epoch is kept. That takes half the time, but nothing is learned from
            the $observations that were held out.
        scoring : str or callable
            The figure that is computed on validation data: the name of a scorer of scikit-learn, or a function
            ``(estimator, X, y) -> float`` such as ``ranking_scorer("ndcg", k=10)``. Higher values are better.
        checkpoint : str or os.PathLike
            Path of a file to which the state of training is written after each $epoch. If the process is killed, the same call of
            ``fit`` continues from this file and ends with the same numbers, bit for bit on the CPU. The file of a different fit,
            with other parameters or data, is refused. The file is removed at the end of the fit, and two fits must not share one at
            the same time. With ``distributed`` the path is a folder that all processes can see, where each of them writes a file. A
            different number of processes may then continue the fit, with the same result up to rounding.
        device : str or torch.device
            Where to train, such as "cpu" or "cuda". None uses ``torch.get_default_device()``. The fitted model is on the CPU in any
            case.
        random_state : int, RandomState instance or None
            Seed of the initial values and of everything else that is random, such as which pairs are held out. None takes a new
            seed in every fit. No global random generator is changed.
        verbose : int
            1 prints a line after each $epoch. For progress bars and loggers see scikit-learn's ``set_callbacks`` (version 1.9 and
            later).
        user_encoder : {"auto", "passthrough"} or transformer
            What turns the table ``user_features`` into numbers. ``"auto"`` uses a ``FeatureEncoder``; ``"passthrough"`` takes a
            table of numbers as it is. Any other transformer of scikit-learn is cloned before use, and its parameters can be
            searched over as ``user_encoder__...``.
        item_encoder : {"auto", "passthrough"} or transformer
            The same for the table ``item_features``.

        Attributes
        ----------
        observed_ : CSR array of shape (n_users, n_items)
            All ratings so far, from which ``partial_fit`` continues. A pair that was observed more than once is stored as many
            times. If there is no such pair, the index arrays are those of ``seen_``.
        pair_weights_ : ndarray or None
            The weight of each entry of ``$entries``, from which ``partial_fit`` continues. None if all weights are one.
        user_encoder_, item_encoder_ : transformer
            With ``user_features`` or ``item_features``: the fitted encoders.
        user_features_, item_features_ : CSR array of shape (n, n_columns)
            With features of users or items: the encoded features of all ids.
        user_described_, item_described_ : ndarray of shape (n,), bool
            With features of users or items: whether an id had a row in the table.
        user_feature_names_, item_feature_names_ : ndarray of shape (n_columns,)
            With features of users or items: the names of the encoded columns.
        user_feature_groups_, item_feature_groups_ : dict of str to tuple of int
            With features of users or items: for each group of encoded columns, usually those made from one column of the table, the
            position of its first column and the position after its last.
        history_ : dict of list
            One value for each $epoch: ``loss``, ``seconds`` and, if there are validation data, ``validation_loss`` or
            ``validation_score``. ``pandas.DataFrame(model.history_)`` makes a table of it. After early stopping it describes the
            fit that was stopped, not the refit.
        n_iter_ : int
            Number of ${epoch}s in ``history_``.
        best_iter_ : int
            With ``early_stopping``: the $epoch with the best figure on validation data, counted from 1.
        best_score_ : float
            With ``early_stopping``: that figure, which is the lowest loss or the highest score.
    """,
    "FactorPredictor": """
        Parameters
        ----------
        n_factors : int
            Number of factors: the length of the vector that stands for a user or an item.
        handle_unknown : {"mean", "nan", "error"}
            What to predict for an id about which nothing is known:

            - ``"mean"``: what is predicted for the known ids on average;
            - ``"nan"``: NaN;
            - ``"error"``: raise ValueError.
        dtype : {"float32", "float64"}
            Precision of training and of the fitted factors.
        warm_start : bool
            If True, ``fit`` starts from the present factors of the ids that it knows, and from random ones only for new ids. The
            model is trained on the $observations of the new call alone.

        Attributes
        ----------
        mean_user_, mean_item_ : ndarray of shape (n_factors,)
            The factors that an unknown id gets: the mean of the known ones.
        user_feature_weights_, item_feature_weights_ : ndarray of shape (n_columns, width)
            With features of users or items: what each encoded column adds to the factors and, in a biased model, to the bias of an
            id without observations.
        user_feature_shares_, item_feature_shares_ : dict of str to float
            With features of users or items: the share of the variation among users, or among items, that each group of features
            explains, measured by its effect on scores. The group ``(seen)`` belongs to ``seen_features``. Groups that carry the
            same information divide it among themselves, so the shares need not add up to what all groups explain together.
        user_feature_prior_, item_feature_prior_ : dict of str to ndarray
            With features of users or items: the other parts of the linear map from features to the values that factors shrink
            towards.
        @form_
            ``transform`` takes data in the same form.
    """,
    "ExplicitFactorization": """
        Parameters
        ----------
        loss : {"squared_error", "huber", "poisson", "logistic", "ordinal"}
            The loss of a rating and its score, which also says how a prediction follows from a score; see ``sk_torchmf.nn``:

            - ``"squared_error"`` and ``"huber"``: the prediction is the score. Huber's loss is less sensitive to outliers;
            - ``"poisson"``: for counts; the prediction is the exponential of the score;
            - ``"logistic"``: for ratings of 0 and 1; the prediction is the sigmoid of the score, a probability;
            - ``"ordinal"``: for ratings that are levels, such as stars: an ordered logit with learned cut points between the
              levels. The prediction is the expected rating, and ``predict_proba`` gives the probability of each level. It needs
              ``solver="variational"``.
        cut_points : {"common", "user"}
            With ``loss="ordinal"``: whether all users share one set of cut points, or each user has a set of their own, shrunk
            towards the common one. A new user gets the common set. Sets of their own help where users have many ratings on few
            levels; they harm with dozens of levels or with few ratings. Other losses ignore this parameter.
        solver : {"variational", "als", "adam", "adagrad", "sgd", "lbfgs"}
            How the model is trained:

            - ``"variational"``: empirical Bayes. It learns the regularisation from the data, and how uncertain predictions are;
            - ``"als"``: minimises the objective in the Notes by alternating least squares, which is exact in each step;
            - ``"adam"``, ``"adagrad"``, ``"sgd"``, ``"lbfgs"``: minimise the same objective with torch's optimizer of that name.
        alpha : float
            Strength of the regularisation in the objective; it has no unit. ``variational`` ignores it.
        max_iter : int
            Number of passes over the ratings. None means 10 for ``variational``, 15 for ``als`` and 50 for torch's optimizers.
        @tol
            ``variational`` ignores it and always makes ``max_iter`` passes.
        learning_rate : float
            Learning rate of torch's optimizers. None chooses one that suits standardised ratings.
        batch_size : int
            For torch's optimizers except ``lbfgs``: the approximate number of ratings in a step. A batch consists of whole users.
            None takes all ratings in each step.
        distributed : bool or "exact"
            If True, all processes of the default group of ``torch.distributed`` fit one model together. Each of them calls ``fit``
            with a part of the ratings, of the tables of features and of the validation data; a part may be empty. See ``gather``.

            All solvers but ``lbfgs`` allow it, without ``batch_size``. ``scoring``, and ``seen_features`` of items, are refused.
            What is random depends on the labels of the users, so the number of processes changes the result by no more than
            rounding. With ``"exact"`` the results of 1, 2, 4, 8 and 16 processes agree in every bit. That takes longer, and
            ``effects``, ``time``, ``cold_average``, ``early_stopping`` and validation data are then refused.
        seen_features : {"user", "item", "both"}
            Whether the set of items that a user has rated is a feature of the user (``"user"``), the set of users who have rated an
            item a feature of the item (``"item"``), or both (SVD++). None means neither. ``"both"`` usually predicts better, and
            takes slightly more than twice the time.
        cold_average : {"macro", "micro"}
            For which error the predictions for ids without ratings are chosen: the mean squared error over ids, each of which
            counts once (``"macro"``), or over ratings (``"micro"``), as in the RMSE of a test set. The two differ since items that
            are liked get more ratings. None chooses for neither and takes the factors and the bias that are expected of an id. The
            parameter applies to users and items, with features and without. It does not change ids that have ratings.
        effects : list
            Further columns of a table X, by position or by the name in a DataFrame, whose values have biases of their own: a
            device, a weekday. How much these biases vary is learned. Instead of a column, ``("user", column)`` gives every user a
            bias for each value, and ``("item", column)`` every item. ``fit`` refuses missing values. ``predict`` and ``score`` add
            the biases where they are given a table. Where they are given ids, in all other methods, and for a value that ``fit``
            did not see, the average bias is used. It needs ``solver="variational"``.
        time : int, str or bool
            When the ratings were given: a column of a table as in ``effects``, of numbers (seconds) or of dates and times. True
            takes the ``timestamps`` of Interactions, which are seconds. The ratings of each user are divided into sessions in three
            ways (without a gap of more than 8 hours, without one of more than 60 seconds, and all at the same time) and into runs
            of 16 in a row. Every session and every run has a bias, learned as those of ``effects``. A pair to be predicted belongs
            to the nearest of the user's. It needs ``solver="variational"``.
        @refit
            On MovieLens-100K (four splits) the RMSE was 0.8856 with it and 0.8908 without, and 0.8853 without early stopping. With
            ``adam`` it was 0.8986 with it and 0.9042 without.
        @scoring
            None means the mean loss of standardised ratings, in the units of ``history_["loss"]`` with ``variational``.

        Attributes
        ----------
        user_factors_, item_factors_ : ndarray of shape (n_users, n_factors) and (n_items, n_factors)
            The factors, in units of the square root of a rating.
        noise_std_ : float or None
            Standard deviation of a rating about its expectation, in rating units. None if the solver does not learn it, and for
            losses that determine it themselves.
        @seen_
            After a fit to ``Shards``, rows are read from their folder when they are asked for.
        @observed_
            Not after a fit to ``Shards``, and neither is ``pair_weights_``.
        @form_
            It is ``"shards"`` after a fit to ``Shards``, and ``transform`` then takes tables.
        rating_range_ : ndarray of shape (2,)
            The lowest and the highest rating.
        rating_scale_ : float
            What ratings were divided by: their standard deviation. It is 1 for ``poisson``, ``logistic`` and ``ordinal``, whose
            scores have a scale of their own.
        levels_ : ndarray of shape (n_levels,)
            With ``loss="ordinal"``: the distinct ratings, sorted.
        cut_points_ : ndarray of shape (n_levels - 1,)
            With ``loss="ordinal"``: the common cut points, in increasing order, in logits. A rating is at most ``levels_[j]`` with
            the probability ``sigmoid(cut_points_[j] - slope * score)``, where the slope is the constant ``model.cut_points.SLOPE``.
        user_cut_points_, user_cut_covariance_ : ndarray of shape (n_users, n_levels - 1) and (n_levels - 1, n_levels - 1), or None
            With ``loss="ordinal"``: how far each user's own cut points lie from the common ones, and the covariance of these
            differences over the users. None for ``cut_points="common"``.
        user_prior_ : tuple of ndarray of shape (3, width, width) and (3, width)
            What the row of a new user is shrunk towards and how strongly, in standardised units; used by ``fold_in``. The width is
            ``n_factors``, or one more in a biased model.
        user_posterior_, item_posterior_ : tuple or None
            The uncertainty of the rows: ``(basis, curvature, noise, count)``, in standardised units. The variances of row u along
            the columns of ``basis``, which has the shape (width, width), are ``v = noise / (count[u] * curvature + noise)``. With
            features of users or items there is a fifth part, ``mean_variance``, and the variances are ``v + v**2 *
            mean_variance[u]``. None if the solver is not ``variational``.
        effects_ : list of Effect
            With ``effects`` or ``time``: how values of the columns, then of the time, become numbers of biases; see
            ``inputs.effects``.
        effect_biases_ : list of tuple of (ndarray, ndarray, float)
            With effects: for each of ``effects_`` the biases, their posterior variances, and the learned variance that the biases
            have among themselves, in units of the scores and their squares.
        observed_features_ : dict of int, str or None to ndarray
            With effects: the columns and, under the key None, the times in seconds, in the order of the entries of ``observed_``.
        @history_
            With ``variational`` it also has ``noise_std``, of standardised ratings.
    """,
    "ModulePredictor": """
        Parameters
        ----------
        handle_unknown : {"mean", "nan", "error"}
            What to predict for an id that ``fit`` did not see:

            - ``"mean"``: the average prediction for a sample of the ids that it saw;
            - ``"nan"``: NaN;
            - ``"error"``: raise ValueError.

        Attributes
        ----------
        rating_range_ : ndarray of shape (2,)
            The lowest and the highest rating; not where positives are ranked.
        background_ : dict of str to ndarray
            Row numbers of a sample of users and items that were observed. The prediction for an unknown id is the average over
            them.
    """,
    # Functions and methods.
    "any method": """
        Parameters
        ----------
        clip : bool, optional
            Whether to limit predictions to the range of the training ratings. By default the ``clip`` of the constructor decides.
        user_features : Features, DataFrame or matrix, optional
            Features of users that ``fit`` did not see, or saw without observations, with the same columns as in ``fit``. The users
            are predicted from these. Beside a sparse matrix of new users it has one row for each row of the matrix.
        item_features : Features, DataFrame or matrix, optional
            The same for items, which are known to this call only.
    """,
    "fit": """
        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            The observations, in one of these forms:

            - a scipy sparse matrix or array with one row for each user: every stored entry is $one, explicit zeros included;
            - a table, which is a dense array or a DataFrame: every row is $one, and the columns ``user`` and ``item`` hold the ids,
              of any type;
            - ``Interactions``: every element is $one, and ids are positions.
        y : array-like of shape (n,), optional
            The ratings. Required for a table; must be None for a sparse matrix. For a container they replace its ``ratings``.
        sample_weight : array-like, optional
            Weights >= 0, one for each row of X. Where X is sparse this is the weight of a user, and counts for all observations of
            that user. A weight of 2 is the same as giving the observation twice, a weight of 0 the same as leaving it out. If
            given, it replaces the ``weights`` of a container.
        X_val : $forms, optional
            Validation data, as ``score`` takes them. ``history_`` then has their figure for each $epoch, and ``early_stopping``
            uses them instead of holding out a part of X.
        y_val : array-like of shape (n_val,), optional
            Ratings of the validation data. By default those of a container.
        user_features : Features, DataFrame or matrix, optional
            Features of users, with one row for each user in any order. A DataFrame has the user ids in the column ``user``, or else
            in its index. Beside a sparse matrix or a container, a matrix has one row for each position. Users without a row are
            treated as average; users that are not in X become known by their features. In a search or a cross-validation pass
            ``Features(table)``.
        item_features : Features, DataFrame or matrix, optional
            The same for items, with the ids in the column ``item``.

        Returns
        -------
        self
            The fitted estimator.
    """,
    "partial_fit": """
        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            Further observations, in a form that ``fit`` takes; users and items may be new. A table needs the same columns as in the
            first call. In a container and a sparse matrix, ids are positions, and they may go beyond those known so far: row u of a
            matrix always is user u, and a matrix may have more columns than before, but not fewer.
        y : array-like of shape (n,), optional
            As in ``fit``.
        sample_weight : array-like, optional
            Weights of the rows of this X, as in ``fit``.
        user_features : Features, DataFrame or matrix, optional
            Features of new users, or changed ones of known users, as in ``fit``.
        item_features : Features, DataFrame or matrix, optional
            The same for items.

        Returns
        -------
        self
            The fitted estimator. If it was not fitted before, the result is that of ``fit``.

        Raises
        ------
        ValueError
            For everything that ``fit`` refuses; with ``early_stopping`` or ``checkpoint``; and for a model that does not have the
            earlier observations, since it was saved with ``save(path, ratings=False)``, comes from a file of an earlier version or
            $unkept. In all these cases the estimator stays as it was.
    """,
    "predict": """
        Parameters
        ----------
        user_ids : table, Interactions, sparse matrix, array-like or scalar
            - a table with the columns that ``fit`` saw, or a container, of n pairs: one prediction for each;
            - user ids, together with ``item_ids``: one prediction for each pair;
            - one user id without ``item_ids``: this user's predictions for all items, as Spotlight has it;
            - a sparse matrix (n_rows, n_items), whose rows are *new* users: their predictions for all items, by ``fold_in``.
        item_ids : array-like or scalar, optional
            Item ids, broadcast against ``user_ids``.

        Returns
        -------
        ndarray of float64
            The predictions, in a new array. The shape is (n,) for n pairs, the broadcast shape for ids, (n_items,) for one user and
            (n_rows, n_items) for a sparse matrix.

        Raises
        ------
        ValueError
            For several user ids without ``item_ids``, for an unknown id with ``handle_unknown="error"``, for a table without the
            columns that ``fit`` saw, and for Interactions if ``fit`` saw labels instead of positions.
        MemoryError
            If the dense predictions for a sparse matrix would not fit into memory.
    """,
    "inverse_transform": """
        Parameters
        ----------
        rows : array-like of shape (n_rows, width)
            Rows of users, as ``fold_in`` returns them.

        Returns
        -------
        ndarray of shape (n_rows, n_items), float64
            The predictions; ``inverse_transform(fold_in(X))`` equals ``predict(X)``.
    """,
    "recommend": """
        Parameters
        ----------
        users : array-like of shape (n,), scalar, Interactions, or sparse matrix of shape (n, n_items), optional
            The users to recommend for; by default all known users. They are given by their ids, by Interactions, which stand for
            the users in them, in order, or by a sparse matrix whose rows are new users; ``exclude_seen`` then leaves out the items
            in their rows. An unknown id gets the items that the mean user likes best.
        k : int
            Number of items for each user.
        exclude_seen : bool
            Whether to leave out the items that the user was observed with so far.
        items : array-like of shape (m,), optional
            Ids of the items to choose from; by default all items.
        progress : bool
            Whether to show the progress on stderr, as a bar if tqdm is installed.

        Returns
        -------
        items : ndarray of shape (n, k)
            Ids of the items, the best first; ties are in the order of ``items_``. If fewer than k items remain, the rest is filled
            with -1, or with None if ids are not numbers or -1 is one of them (NaT if they are times). For one user both arrays have
            the shape (k,).
        scores : ndarray of shape (n, k), float64
            The predictions, and -inf where no item remains.
    """,
    "save": """
        Parameters
        ----------
        path : str or os.PathLike
            Path of the file, with any extension or none. The file is written whole or not at all, and replaces one of that name.
        ratings : bool
            Whether the file also holds what ``partial_fit`` continues from: the observations so far, and the state of the
            optimizer. Without them the file is smaller. The loaded model then refuses ``partial_fit``, and ``warm_start`` begins
            with a new optimizer; everything else is the same.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        OSError
            If the path is a folder, or is in a folder that does not exist or cannot be written to.
    """,
    "load": """
        Parameters
        ----------
        path : str or os.PathLike
            The path that was given to ``save``.

        Returns
        -------
        estimator
            The fitted estimator, of this class, with the parameters it had.

        Raises
        ------
        ValueError
            If the file holds another estimator, was written by a newer version, is truncated or damaged, or is no such file at all.
        OSError
            If there is no such file, or it cannot be read.
    """,
}
TEXTS = {owner: _entries(text) for owner, text in _WRITTEN.items()}

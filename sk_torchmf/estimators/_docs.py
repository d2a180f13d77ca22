"""Texts that the docstrings of several estimators share, and ``documented``, which puts them in. Knows no estimator.

A docstring has ``@name`` on a line of its own where the shared entry of that name is to stand. What is indented below that line
goes on with the shared description, and says what is so in this class alone.
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
SHARED = re.compile(r"^( *)@(.+)(?:\n|\Z)((?:\1 +.*\n)*)", re.MULTILINE)  # margin, name, what goes on with the description
WIDTH = 120


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
    """A shared description and what goes on with it, as one indented paragraph or, where it is a list, one below the other."""
    if description.lstrip().startswith("- "):
        return indent("\n".join(map(dedent, (description, more))).rstrip(), "    ")
    text = " ".join([*description.split(), *more.split()])
    return indent(fill(text, WIDTH, break_long_words=False, break_on_hyphens=False), "    ")


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
            Limit predictions to the range of the training ratings.
        user : int or str
            Which column of a table holds the user ids, by position or by a frame's column name.
        item : int or str
            Which column holds the item ids. Columns that no parameter names are ignored.

        Attributes
        ----------
        users_, items_ : ndarray of shape (n_users,) and (n_items,)
            The ids of the rows, sorted.
        n_users_, n_items_ : int
            How many ids there are.
        seen_ : CSR array of shape (n_users, n_items), bool
            Which pairs were observed so far.
        user_counts_, item_counts_ : ndarray of shape (n_users,) and (n_items,)
            Weighted number of observations of each id; 0 where it was never observed.
        form_ : {"sparse", "table", "interactions"}
            The form of X in ``fit``.
        n_features_in_ : int
            Columns of X, as scikit-learn counts them: 2 for a container.
        feature_names_in_ : ndarray of str
            Where ``X`` is a frame with such names.
    """,
    "Fitting": """
        Parameters
        ----------
        negatives : {"uniform", "popularity"}
            Whether all items that a user has not are equally likely to be drawn as a negative, or each in proportion to its number
            of users to the power 0.75.
        early_stopping : bool
            Hold out a part of each user's $observations, or take ``fit``'s ``X_val``, and stop once the figure on it has not
            improved by more than ``tol`` times its size for ``n_iter_no_change`` ${epoch}s; the best $epoch is then used. The
            training loss then ends no fit.
        validation_fraction : float
            How much of each user's pairs to hold out: all observations of a pair or none, at random, but never all that a user has
            and, where it can be helped, never all of an item.
        n_iter_no_change : int
            How many ${epoch}s without a better figure end a fit that stops early.
        tol : float
            Training stops once the objective has fallen by less than this fraction in each of five ${epoch}s in a row; 0 never
            stops it.
        refit : bool
            After early stopping on a part of X, fit all of X for as many ${epoch}s as were best. False keeps the rows of the best
            $epoch: half the time, but what was held out has not taught the model.
        scoring : str or callable
            The figure on validation data: a scorer, by scikit-learn's name or ``(estimator, X, y) -> float``, higher being better,
            such as ``ranking_scorer("ndcg", k=10)``.
        checkpoint : str or os.PathLike
            A file that holds, after each $epoch, all that the next depends on. ``fit`` goes on from there where the same fit was
            killed, and ends with the same numbers, bit for bit on the CPU; the file of another fit, with other parameters or data,
            is refused. A fit that has ended removes it. One file serves one fit at a time. With ``distributed`` it is a folder that
            all processes see, in which each has a file; another number of processes may go on, to the same end but for rounding.
        device : str or torch.device
            Where to fit: "cpu" or "cuda"; None follows ``torch.get_default_device()``. What was fitted lies on the CPU either way.
        random_state : int, RandomState instance or None
            Seeds the initial values and all else that is drawn, such as what is held out. None draws a fresh seed. No global
            generator is changed.
        verbose : int
            1 prints a line an $epoch. For progress bars and loggers see scikit-learn's ``set_callbacks`` (1.9 and later).
        user_encoder : {"auto", "passthrough"} or transformer
            What makes numbers of ``user_features``: ``"auto"`` is a ``FeatureEncoder``, ``"passthrough"`` takes numbers as they
            are; any transformer of scikit-learn's is cloned, and its parameters are searched as ``user_encoder__...``.
        item_encoder : {"auto", "passthrough"} or transformer
            Likewise of ``item_features``.

        Attributes
        ----------
        observed_ : CSR array of shape (n_users, n_items)
            Every rating so far, for ``partial_fit`` to go on from. A pair that was observed more than once is stored as often;
            where none was, the index arrays are those of ``seen_``.
        pair_weights_ : ndarray or None
            A weight for each entry of ``$entries``, for ``partial_fit`` to go on from; None where all are one.
        user_encoder_, item_encoder_ : transformer
            Where there were features: what encodes them.
        user_features_, item_features_ : CSR array of shape (n, n_columns)
            Where there were features: the encoded features of all ids.
        user_described_, item_described_ : ndarray of shape (n,), bool
            Where there were features: whose are known.
        user_feature_names_, item_feature_names_ : ndarray of shape (n_columns,)
            Where there were features: the names of their columns.
        user_feature_groups_, item_feature_groups_ : dict of str to tuple of int
            Where there were features: the first column of each group, and the first behind it.
        history_ : dict of list
            A value an $epoch: ``loss``, ``seconds`` and, where there are validation data, ``validation_loss`` or
            ``validation_score``. ``pandas.DataFrame(model.history_)`` is a table of them. After early stopping it tells of the fit
            that was stopped, not of the refit.
        n_iter_ : int
            How many ${epoch}s ``history_`` has.
        best_iter_ : int
            With ``early_stopping``: the $epoch with the best validation figure, from 1.
        best_score_ : float
            With ``early_stopping``: that figure, the lowest loss or the highest score.
    """,
    "FactorPredictor": """
        Parameters
        ----------
        n_factors : int
            Length of a factor row, k.
        handle_unknown : {"mean", "nan", "error"}
            What to predict for ids that ``fit`` did not see: as the known ids do on average, NaN, or raise ValueError.
        dtype : {"float32", "float64"}
            Precision of the computation and of the fitted factors.
        warm_start : bool
            ``fit`` starts from the present rows where ids are the same, instead of from random ones; its $observations are the new
            call's.

        Attributes
        ----------
        mean_user_, mean_item_ : ndarray of shape (n_factors,)
            The factors of an unknown id: the mean of the known ones.
        user_feature_weights_, item_feature_weights_ : ndarray of shape (n_columns, width)
            Where rows have features: what each encoded column adds to the factors and, in a biased model, to the bias of a row
            without observations.
        user_feature_shares_, item_feature_shares_ : dict of str to float
            Where rows have features: what share of the variance of the rows, as it counts for scores, each group explains;
            ``(seen)`` is what they were observed with. Groups that say the same share it, so they need not add up to what all
            explain.
        user_feature_prior_, item_feature_prior_ : dict of str to ndarray
            Where rows have features: the other parts of the linear map from these to the prior means of rows.
        @form_
            ``transform`` takes that form again.
    """,
    "ExplicitFactorization": """
        Parameters
        ----------
        loss : {"squared_error", "huber", "poisson", "logistic", "ordinal"}
            Loss of a rating and its score, see ``sk_torchmf.nn``. Predictions are the score itself, its exponential for ``poisson``
            (counts), its sigmoid for ``logistic`` (0 or 1). For ``ordinal``, an ordered logit, the distinct ratings are levels with
            learned cut points between them, predictions are the expected rating, and there is ``predict_proba``; it needs the
            solver ``variational``.
        cut_points : {"common", "user"}
            With ``loss="ordinal"``: whether all users share their cut points, or each has their own, shrunk to the common ones; a
            new user has the common ones. Own ones pay where users have many ratings on few levels; with dozens of levels or few
            ratings they harm. Other losses do not look at it.
        solver : {"variational", "als", "adam", "adagrad", "sgd", "lbfgs"}
            ``variational`` learns the regularisation and knows its uncertainty; ``als`` minimises the objective below by exact
            alternating least squares, the others with torch's optimizer of that name.
        alpha : float
            Regularisation in that objective, unit-free. ``variational`` learns its own and does not look at it.
        max_iter : int
            Passes over the ratings; None is 10 for ``variational``, 15 for ``als`` and 50 for torch's optimizers.
        @tol
            ``variational`` takes all of ``max_iter``.
        learning_rate : float
            Learning rate of torch's optimizers; None chooses one that suits the standardised ratings.
        batch_size : int
            Torch's optimizers (not lbfgs) take a step on about so many ratings, in blocks of whole users; None takes all at once.
        distributed : bool or "exact"
            Whether this is one fit of all processes of the default group of ``torch.distributed``, each of which calls ``fit`` with
            a part of the data, see ``gather``: any ratings, rows of tables of attributes and validation data, or none. For all
            solvers but ``lbfgs``, without ``batch_size``; ``scoring`` and ``seen_features`` of items are refused, and attributes
            with other solvers than ``variational``. Initial rows are then drawn, and pairs are held out, by the users' labels, so
            that the result does not depend, beyond rounding, on the number of processes; with ``"exact"``, which takes longer and
            is for ``variational`` and ratings alone, it has the same bits on 1, 2, 4, 8 and 16 of them.
        seen_features : {"user", "item", "both"}
            Whose rows have what they were observed with among their features (SVD++): those of users, of items or both; None for
            nobody's. ``"both"`` usually predicts better, and takes a bit more than twice the time.
        cold_average : {"macro", "micro"}
            Over what the squared error of ids without ratings is averaged when it is decided where their rows are: over users or
            items, each of which counts once (``"macro"``), or over ratings (``"micro"``), as in the RMSE of a test set. Items that
            are liked get more ratings, so the two differ. None takes the row that is expected of an id, whatever its ratings. Of
            users and items alike, with features and without; rows of ids with ratings stay as they are.
        effects : list
            Columns of a table X, by position or by a frame's column name, each value of which has a bias of its own, with a learned
            variance: a device, a weekday. ``("user", column)`` is a bias for each user and value, ``("item", column)`` likewise.
            No value may be missing in ``fit``. For ``variational`` alone. ``predict`` and ``score`` of a table add the biases; they
            average out, as a value that ``fit`` did not see does, where ``predict`` gets ids, and in all other methods.
        time : int, str or bool
            When a rating was given: a column of a table as in ``effects``, of numbers, which are seconds, or of dates and times;
            True takes the ``timestamps`` of Interactions, which are seconds too. Biases as in ``effects`` are learned of the user's
            sessions (without a gap of more than 8 hours, or 60 seconds, or at one time) and of 16 of the user's ratings in a row;
            a pair to be predicted belongs to the nearest.
        @refit
            On MovieLens-100K (four splits) the RMSE was 0.8856 with and 0.8908 without (0.8853 without early stopping; ``adam``:
            0.8986, 0.9042).
        @scoring
            None is the mean loss of standardised ratings, in the units that ``history_["loss"]`` has with ``variational``.

        Attributes
        ----------
        user_factors_, item_factors_ : ndarray of shape (n_users, n_factors) and (n_items, n_factors)
            Factors, in units of the square root of a rating.
        noise_std_ : float or None
            Standard deviation of a rating about its expectation, in rating units; None where the solver does not learn it, and for
            losses that say it themselves.
        @seen_
            After a fit to ``Shards`` it reads the rows that are asked of it from their folder.
        @observed_
            Not after a fit to ``Shards``, and neither is ``pair_weights_``.
        @form_
            ``"shards"`` after a fit to ``Shards``, which takes tables again.
        rating_range_ : ndarray of shape (2,)
            Lowest and highest rating.
        rating_scale_ : float
            What ratings were divided by: their standard deviation; 1 for ``poisson``, ``logistic`` and ``ordinal``, whose scores
            have a scale of their own.
        levels_ : ndarray of shape (n_levels,)
            With ``loss="ordinal"``: the distinct ratings, sorted.
        cut_points_ : ndarray of shape (n_levels - 1,)
            With ``loss="ordinal"``: the common cut points, increasing, in logits: a rating is at most ``levels_[j]`` with the
            probability ``sigmoid(cut_points_[j] - slope * score)``; the slope is fixed, ``model.cut_points.SLOPE``.
        user_cut_points_, user_cut_covariance_ : ndarray of shape (n_users, n_levels - 1) and (n_levels - 1, n_levels - 1), or None
            With ``loss="ordinal"``: how far each user's own cut points lie from these, and the covariance of that over the users;
            None for ``cut_points="common"``.
        user_prior_ : tuple of ndarray of shape (3, width, width) and (3, width)
            What a new user's row is shrunk to and how much, see ``fold_in``; in standardised units. The width is ``n_factors``, and
            one more where there are biases.
        user_posterior_, item_posterior_ : tuple or None
            ``(basis, curvature, noise, count)``, in standardised units: the variances of row u along the columns of ``basis``, of
            shape (width, width), are ``v = noise / (count[u] * curvature + noise)``. Where rows have features there is a fifth
            part, ``doubt``, and they are ``v + v**2 * doubt[u]``. None where the solver is not ``variational``.
        effects_ : list of Effect
            With ``effects`` or ``time``: what was made of the columns, then of time; see ``inputs.effects``.
        effect_biases_ : list of tuple of (ndarray, ndarray, float)
            With effects: of each the biases of its codes, their posterior variances and the learned prior variance, in units of
            the scores and their squares.
        observed_features_ : dict of int, str or None to ndarray
            With effects: the columns, and under None the times in seconds, in the order of the entries of ``observed_``.
        @history_
            With ``variational`` it has ``noise_std`` of the standardised ratings too.
    """,
    "ModulePredictor": """
        Parameters
        ----------
        handle_unknown : {"mean", "nan", "error"}
            What to predict for ids that ``fit`` did not see: the average prediction over a sample of those it saw, NaN, or raise
            ValueError.

        Attributes
        ----------
        rating_range_ : ndarray of shape (2,)
            Lowest and highest rating; not where positives are ranked.
        background_ : dict of str to ndarray
            Row numbers of some users and items that were observed: an unknown id is predicted as these are on average.
    """,
    # Functions and methods.
    "any method": """
        Parameters
        ----------
        clip : bool, optional
            Limit predictions to the range of the training ratings; by default the constructor's ``clip``.
        user_features : Features, DataFrame or matrix, optional
            Attributes of users that ``fit`` did not see, or saw without observations, with the columns of ``fit``: they are
            predicted from these. Beside a sparse matrix of new users it has a row for each of its rows.
        item_features : Features, DataFrame or matrix, optional
            Likewise of items, which then are known to this call.
    """,
    "fit": """
        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            A sparse matrix has a user in each row, and every stored entry is $one, explicit zeros included. A table has $one in
            each row, ids of any type in the columns ``user`` and ``item``; a container likewise, ids being positions.
        y : array-like of shape (n,), optional
            Ratings. Required for a table, None for a sparse matrix; for a container they override its ``ratings``.
        sample_weight : array-like, optional
            Weights >= 0, one a row of X: an observation's or, where X is sparse, a user's, which counts for each of the user's
            observations. A weight of 2 is the observation given twice, a weight of 0 its absence. Given, it replaces a container's
            ``weights``.
        X_val : $forms, optional
            Validation data as ``score`` takes them. ``history_`` gets a figure an $epoch; with ``early_stopping`` it decides, and
            no part of X is held out.
        y_val : array-like of shape (n_val,), optional
            Ratings of the validation data; a container's own by default.
        user_features : Features, DataFrame or matrix, optional
            Attributes of users, one row each. A frame is keyed by its column ``user``, else by its index, in the ids of X, rows in
            any order; beside a sparse matrix or a container a matrix has one row a position. Users without a row are as the
            average; those that X has not become known. In a search or cross-validation pass ``Features(table)``.
        item_features : Features, DataFrame or matrix, optional
            Likewise of items, keyed by the column ``item``.

        Returns
        -------
        self
            The fitted estimator.
    """,
    "partial_fit": """
        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            As ``fit`` takes it; new users and items are welcome. A table has the columns of the first call. Positions, in a
            container or a sparse matrix, may go beyond those known: row u of a matrix is user u again, and it may have more
            columns, but not fewer.
        y : array-like of shape (n,), optional
            As ``fit`` takes it.
        sample_weight : array-like, optional
            Weights of the rows of this X, as ``fit`` takes them.
        user_features : Features, DataFrame or matrix, optional
            Attributes of new users, or new ones of users there are, as ``fit`` takes them.
        item_features : Features, DataFrame or matrix, optional
            Likewise of items.

        Returns
        -------
        self
            On an estimator that was not fitted, what ``fit`` would give.

        Raises
        ------
        ValueError
            For what ``fit`` refuses, for ``early_stopping`` and ``checkpoint``, and for a model that has not kept what was observed
            so far: one that was saved with ``save(path, ratings=False)``, that comes from a file of an earlier version, or that
            $unkept. Whatever the reason, the estimator then is as it was before.
    """,
    "predict": """
        Parameters
        ----------
        user_ids : table, Interactions, sparse matrix, array-like or scalar
            - a table (n, >= 2) with the columns ``fit`` saw, or a container of n interactions: one prediction a row;
            - with ``item_ids``: user ids, in the ids ``fit`` saw;
            - a scalar user id alone: its predictions for all items (Spotlight's convention);
            - a sparse matrix (n_rows, n_items) of *new* users: all their predictions, by ``fold_in``.
        item_ids : array-like or scalar, optional
            Item ids; broadcast against ``user_ids``.

        Returns
        -------
        ndarray of float64
            Of shape (n,), of the broadcast shape, (n_items,) for a scalar user, (n_rows, n_items) for a sparse matrix. A fresh
            array.

        Raises
        ------
        ValueError
            For a one-dimensional ``user_ids`` without ``item_ids``, an unknown id with ``handle_unknown="error"``, a table without
            the columns ``fit`` saw, Interactions after a fit on labels.
        MemoryError
            Where the dense predictions for a sparse matrix would not fit.
    """,
    "inverse_transform": """
        Parameters
        ----------
        rows : array-like of shape (n_rows, width)
            As ``fold_in`` gives them.

        Returns
        -------
        ndarray of shape (n_rows, n_items), float64
            Predictions; ``inverse_transform(fold_in(X))`` is ``predict(X)``.
    """,
    "recommend": """
        Parameters
        ----------
        users : array-like of shape (n,), scalar, Interactions, or sparse matrix of shape (n, n_items), optional
            User ids as ``fit`` saw them; all known users by default. A sparse matrix holds what is known of new users;
            ``exclude_seen`` then leaves out the items in its rows. An unknown user gets the items that the mean user likes best.
            Interactions stand for the users who occur in them, in order.
        k : int
            How many.
        exclude_seen : bool
            Leave out the items a user was observed with so far.
        items : array-like of shape (m,), optional
            Candidates, as item ids; all by default.
        progress : bool
            Show how far it is, on stderr: a bar if tqdm is there.

        Returns
        -------
        items : ndarray of shape (n, k)
            Best first, in the ids ``fit`` saw; ties by the order of ``items_``. Where fewer than k remain, the rest is -1, or None
            where ids are not numbers or -1 is one of them (NaT for times). For a scalar user both arrays have shape (k,).
        scores : ndarray of shape (n, k), float64
            Predictions; -inf where no item remains.
    """,
    "save": """
        Parameters
        ----------
        path : str or os.PathLike
            Any extension or none. The file is written whole or not at all, in the place of what was there.
        ratings : bool
            Whether the file holds what ``partial_fit`` goes on from: all that was observed so far, and the optimizer's state.
            Without it the file is smaller, ``partial_fit`` of what is loaded is refused, and ``warm_start`` begins with a fresh
            optimizer; all else is the same.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        OSError
            Where the folder does not exist or cannot be written to, or the path is a folder.
    """,
    "load": """
        Parameters
        ----------
        path : str or os.PathLike
            What ``save`` was given.

        Returns
        -------
        estimator
            Of this class, with its parameters and all that ``fit`` left.

        Raises
        ------
        ValueError
            For the file of another estimator or of a newer version, for one that is truncated or damaged, and any other file.
        OSError
            Where there is no such file or it cannot be read.
    """,
}
TEXTS = {owner: _entries(text) for owner, text in _WRITTEN.items()}

"""Draws the training loss of each iteration, and the loss or score on validation data."""

from collections.abc import Mapping

import numpy as np

from sk_torchmf.display import _figure
from sk_torchmf.display._sources import final_step, require

MANY = 25  # iterations beyond which a marker on each is clutter
WIDE_RANGE = 20  # of the largest and the smallest final loss, beyond which their axis is logarithmic


class TrainingCurveDisplay:
    """Draw curves of the training loss and, if there was early stopping, of the validation loss or score.

    Make one with ``from_estimator``.

    Parameters
    ----------
    histories : dict of str to dict
        For each curve, by its name, a ``history_``: lists of equal length, ``loss`` and optionally ``seconds`` (of each iteration
        alone), ``validation_loss`` and ``validation_score``.
    best_iters : dict of str to int, optional
        The number of the best iteration, by the name of the curve; the first is 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
    score_ax_ : matplotlib Axes or None
        The second axis, for validation scores; None if there are none.
    figure_ : matplotlib Figure
    lines_ : dict of str to Line2D
        Curves of the training losses, by name.
    validation_lines_ : dict of str to Line2D
        Curves of the validation losses or scores, by name.
    best_points_ : dict of str to Line2D
        Marks of the best iterations, by name.
    legend_ : matplotlib Legend or None

    Examples
    --------
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, display
    >>> X = datasets.make_ratings(100, 50, 1000, random_state=0).interactions
    >>> models = [BiasedMatrixFactorization(solver=solver, random_state=0).fit(X) for solver in ("als", "adam")]
    >>> curves = display.TrainingCurveDisplay.from_estimator(models)
    >>> list(curves.histories)
    ['BiasedMatrixFactorization, solver=als', 'BiasedMatrixFactorization, solver=adam']
    """

    def __init__(self, *, histories, best_iters=None):
        self.histories = histories
        self.best_iters = best_iters

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, x="iteration", relative=False, line_kwargs=None):
        """Draw the curves of one or several fitted estimators.

        Parameters
        ----------
        estimator : estimator, list of estimators, or dict of str to estimator
            Fitted estimators, or pipelines or searches that end in one. The keys of a dict are the names of the curves. Otherwise
            the names are those of the classes and, if a class occurs more than once, of the parameters in which its estimators
            differ.
        ax : matplotlib Axes, optional
            The axes to draw on. By default those of a new figure.
        x : {"iteration", "seconds"}, default="iteration"
            What the horizontal axis shows: the number of the iteration, or the time since training began.
        relative : bool, default=False
            Divide the losses of each curve by its first training loss. Use it to compare solvers or models whose losses differ in
            meaning and size.
        line_kwargs : dict, optional
            Keyword arguments for ``Axes.plot``, the same for all curves.

        Returns
        -------
        TrainingCurveDisplay
            The display; its attributes hold what was drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        TypeError
            If an estimator has no ``history_``.
        ImportError
            If matplotlib is not installed.
        """
        _figure.check_matplotlib(f"{cls.__name__}.from_estimator")
        if isinstance(estimator, Mapping):
            fitted = {str(name): final_step(one) for name, one in estimator.items()}
        else:
            several = [final_step(one) for one in (estimator if isinstance(estimator, list | tuple) else [estimator])]
            fitted = dict(zip(_names(several), several, strict=True))
        if not fitted:
            raise ValueError("estimator must be a fitted estimator, or a list or dict of them. Got an empty one.")
        for one in fitted.values():
            require(one, "history_", cls.__name__, "Those of sk_torchmf keep it.")
        best = {name: one.best_iter_ for name, one in fitted.items() if getattr(one, "best_iter_", None) is not None}
        display = cls(histories={name: one.history_ for name, one in fitted.items()}, best_iters=best)
        return display.plot(ax, x=x, relative=relative, line_kwargs=line_kwargs)

    def plot(self, ax=None, *, x="iteration", relative=False, line_kwargs=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            The axes to draw on. By default those of a new figure.
        x : {"iteration", "seconds"}, default="iteration"
            What the horizontal axis shows.
        relative : bool, default=False
            Divide the losses of each curve by its first training loss. Use it to compare solvers or models whose losses differ in
            meaning and size.
        line_kwargs : dict, optional
            Keyword arguments for ``Axes.plot``, the same for all curves.

        Returns
        -------
        self
            The display; its attributes hold what was drawn.
        """
        _figure.check_matplotlib(f"{type(self).__name__}.plot")
        from matplotlib.ticker import MaxNLocator

        _figure.check_axes(ax, 1)
        if not isinstance(self.histories, Mapping) or not self.histories:
            raise ValueError(f"histories must be a dict from names to histories that is not empty. Got {self.histories!r}.")
        if x not in ("iteration", "seconds"):
            raise ValueError(f'x must be "iteration" or "seconds". Got {x!r}.')
        across = {name: _check(name, history, x) for name, history in self.histories.items()}
        scored = {name for name, history in self.histories.items() if "validation_score" in history}
        best_iters = self._check_best(scored)

        self.ax_ = ax = _figure.one_axes(ax, (6.4, 4.2))
        self.figure_, self.score_ax_ = ax.figure, None
        if scored:
            self.score_ax_ = ax.twinx()
            _figure.style(self.score_ax_)
            self.score_ax_.spines["right"].set_visible(True)
            _figure.label_axes(self.score_ax_, y="Validation score")
        self.lines_, self.validation_lines_, self.best_points_ = {}, {}, {}
        for j, (name, history) in enumerate(self.histories.items()):
            look = {"color": _figure.COLOURS[j % len(_figure.COLOURS)], "linewidth": 1.6, "markersize": _figure.size(ax, 4)}
            if len(across[name]) <= MANY:
                look["marker"] = _figure.MARKERS[(j + j // len(_figure.COLOURS)) % len(_figure.MARKERS)]
            look |= line_kwargs or {}
            unit = history["loss"][0] if relative else 1.0
            (self.lines_[name],) = ax.plot(across[name], np.divide(history["loss"], unit), **look)
            if name in scored or "validation_loss" in history:
                values, at = np.divide(history.get("validation_loss", np.nan), unit), ax
                if name in scored:
                    values, at = history["validation_score"], self.score_ax_
                (line,) = at.plot(across[name], values, **look | {"linestyle": "--", "markerfacecolor": "white"})
                self.validation_lines_[name] = line
            if name in best_iters:
                self._mark(name, best_iters[name] - 1)
        last = [line.get_ydata()[-1] for line in self.lines_.values()]
        if all(min(line.get_ydata()) > 0 for line in self.lines_.values()) and max(last) > WIDE_RANGE * min(last):
            ax.set_yscale("log")
        what = "Loss" if self.validation_lines_.keys() - scored else "Training loss"
        _figure.label_axes(
            ax,
            "Iteration" if x == "iteration" else "Training time (s)",
            f"{what} / first training loss" if relative else what,
        )
        if x == "iteration":
            ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        ax.grid(alpha=0.25, linewidth=0.6)
        self._add_legend()
        _figure.fit_labels(*(part for part in (ax, self.score_ax_) if part is not None))
        return self

    def _check_best(self, scored):
        """The best iterations of those that have validation figures to mark."""
        best_iters = dict(self.best_iters or {})
        for name, best in best_iters.items():
            n = len(self.histories[name]["loss"]) if name in self.histories else 0
            if not 1 <= best <= n:
                raise ValueError(f"best_iters[{name!r}] must be one of the {n} iterations of its history, from 1. Got {best!r}.")
        return {name: best for name, best in best_iters.items() if name in scored or "validation_loss" in self.histories[name]}

    def _mark(self, name, at):
        line = self.validation_lines_[name]
        place = line.get_xdata()[at], line.get_ydata()[at]
        (self.best_points_[name],) = line.axes.plot(
            *([value] for value in place),
            color=line.get_color(),
            marker="*",
            markersize=_figure.size(line.axes, 13),
            markeredgecolor="white",
            linestyle="none",
            zorder=5,
        )

    def _add_legend(self):
        """Names where there are several; what line is what where there is more than one kind."""
        from matplotlib.lines import Line2D

        handles, names = [], []
        if len(self.lines_) > 1:
            handles, names = list(self.lines_.values()), list(self.lines_)
        if self.validation_lines_:
            colour = _figure.INK if handles else next(iter(self.lines_.values())).get_color()
            of = "score (right axis)" if self.score_ax_ is not None else "loss"
            handles += [Line2D([], [], color=colour, linestyle=kind, linewidth=1.6) for kind in ("-", "--")]
            names += ["training loss", f"validation {of}"]
        if self.best_points_:
            handles.append(Line2D([], [], color=colour, marker="*", markersize=11, linestyle="none"))
            names.append("best iteration")
        self.legend_ = None
        if handles:
            top = self.ax_ if self.score_ax_ is None else self.score_ax_  # drawn last, above all lines
            self.legend_ = _figure.add_legend(top, handles, names, host=self.ax_)


def _check(name, history, x):
    """Where the values of a history lie on the horizontal axis."""
    if not isinstance(history, Mapping) or "loss" not in history:
        raise ValueError(f'histories[{name!r}] must be a dict with a list "loss". Got {history!r}.')
    n = len(history["loss"])
    if n == 0:
        raise ValueError(f'histories[{name!r}]["loss"] must have at least one iteration. It is empty.')
    for key, values in history.items():
        if key in ("seconds", "validation_loss", "validation_score") and len(values) != n:
            raise ValueError(
                f"histories[{name!r}] must have lists of equal length. It has {n} losses, but {key} has {len(values)} values."
            )
    if x == "iteration":
        return np.arange(1, n + 1)
    if "seconds" not in history:
        raise ValueError(f'x="seconds" needs seconds in each history. histories[{name!r}] has {list(history)}.')
    return np.cumsum(history["seconds"])


def _names(estimators):
    """A name for each: its class, the parameters that tell it from others of the class, at last a number."""
    classes = [type(one).__name__ for one in estimators]
    names = []
    for one, kind in zip(estimators, classes, strict=True):
        same = [other.get_params() for other, name in zip(estimators, classes, strict=True) if name == kind]
        own = one.get_params()
        differ = [key for key in own if any(repr(params.get(key)) != repr(own[key]) for params in same)]
        names.append(", ".join([kind, *(f"{key}={own[key]}" for key in differ)]))
    return [name if names.count(name) == 1 else f"{name} ({names[: j + 1].count(name)})" for j, name in enumerate(names)]

"""Displays of each kind, and what is drawn in a figure."""

import numpy as np
import pytest
import tutorial
from contract import DATA, N_ITEMS, N_USERS
from data import as_form

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, TorchFactorization
from sk_torchmf.display import FactorMapDisplay, FeatureShareDisplay, RatingResidualDisplay, TrainingCurveDisplay

matplotlib = pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")
LONG = [f"The long and $winding$ title of film number {j}, as told by _those_ who saw it (19{j:02d})" for j in range(N_ITEMS)]
TIMED = Interactions(
    DATA.user_ids, DATA.item_ids, DATA.ratings, np.arange(len(DATA))[::-1] % 97, num_users=N_USERS, num_items=N_ITEMS
)
SIZES = [(6.4, 4.8), (3.2, 2.4), (12, 4)]


def fitted(kind=BiasedMatrixFactorization, form="interactions", data=DATA, **params):
    if kind is TorchFactorization:
        params = {"module": tutorial.Biased, "optimizer": "Adagrad", "max_iter": 3, "module__n_factors": 3} | params
    else:
        params = {"n_factors": 3} | params
    X, y = as_form(data, form)
    return kind(random_state=0, **params).fit(X, None if kind is ImplicitMatrixFactorization else y)


def texts_in(figure):
    """All texts that are drawn, as (text, box), ticks outside the limits excepted."""
    figure.canvas.draw()
    renderer, found = figure.canvas.get_renderer(), []
    for ax in figure.axes:
        found += [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title]
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible()]
        if ax.get_legend():
            found += [*ax.get_legend().get_texts(), ax.get_legend().get_title()]
    drawn = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text, matplotlib.text.Text.get_window_extent(text, renderer)) for text in drawn]


def check_texts(figure, path):
    """Once the figure is saved every text lies inside it, and none over another."""
    figure.savefig(path)
    shown = texts_in(figure)
    assert shown
    for text, box in shown:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1  # pixels
        assert inside, (text.get_text(), box, figure.bbox)
    boxes = [box.padded(-1) for _, box in shown]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    assert not [(shown[i][0].get_text(), shown[j][0].get_text()) for i, j in pairs]


def best_point(display, name):
    return [float(values[0]) for values in display.best_points_[name].get_data()]


def draw(kind, ax=None):
    """One display of each kind, with long names."""
    if kind is TrainingCurveDisplay:
        validated = {"loss": [3.0, 2.0, 1.5], "validation_score": [0.1, 0.3, 0.2]}
        return kind(histories={LONG[1]: validated, "_": validated}, best_iters={LONG[1]: 2}).plot(ax)
    if kind is FactorMapDisplay:
        return kind.from_estimator(fitted(), labels=LONG, color=[text[-5:-3] for text in LONG], color_label=LONG[0], ax=ax)
    if kind is FeatureShareDisplay:
        shares = {LONG[0]: {name: 0.01 * j for j, name in enumerate(LONG[:4])}, "items": {"_": 0.2}}
        return kind(shares=shares, weights={name: 0.1 * j - 0.3 for j, name in enumerate(LONG[:9])}, weights_title=LONG[1]).plot(ax)
    if kind is RatingResidualDisplay:
        return kind.from_estimator(fitted(), DATA, ax=ax)
    return kind.from_estimator(fitted(), 0, X=DATA, labels=LONG, ax=ax)

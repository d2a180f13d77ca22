"""myFM, LightFM and cmfrec with the attributes of ``features_sets.py``: their quality, their seconds, and ours for that quality.

All have the same ranks and features. myFM and cmfrec predict ratings: their quality is the RMSE. LightFM ranks: it learns which
ratings are 4 and more, and its quality is the AUC of that, for which ours is given the predicted rating.
"""

import numpy as np
import scipy.sparse as sp
from features_sets import SETTINGS, MovieLens, rmse, split, timed
from sklearn.metrics import roc_auc_score

from sk_torchmf import FeatureEncoder

SWEEPS = {"100k": 100, "1m": 20}  # of myFM, of which the last four fifths are averaged
LIGHTFM_EPOCHS = {"100k": 30, "1m": 10}
CMFREC = {"100k": {"lambda_": 0.1, "niter": 10, "scale_lam": True}, "1m": {"lambda_": 20.0, "niter": 5}}  # as in tuned.json
LIKED = 4


def optional(name):
    """A module, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


def quality(folder):
    """Quality of the peers with the same attributes, at random, and how long ours takes to reach it."""
    for name, settings in {"100k": ("side", "side + both"), "1m": ("side",)}.items():
        movielens = MovieLens.load(name, folder)
        train, test = split(movielens.data, 0)
        for setting in settings:
            ours = Ours(movielens, train, test, setting)
            for system, fit in {"cmfrec": cmfrec_quality, "myfm": myfm_quality, "lightfm": lightfm_quality}.items():
                seen = SETTINGS[setting].params.get("seen_features")
                if (seen and system != "myfm") or not (module := optional(system)):
                    continue  # cmfrec's attributes are dense; LightFM pays for each film that was seen, in each rating
                label, measure, theirs, seconds = fit(module, movielens, train, test, setting)
                own = {"data": name, "features": setting, "system": label, "measure": measure}
                yield own | {"theirs": theirs, "their seconds": seconds} | ours.reach(measure, theirs, seconds)


class Ours:
    """Fits with more and more iterations, each once, up to the number of the set's size."""

    def __init__(self, movielens, train, test, setting):
        self.movielens, self.train, self.test, self.setting = movielens, train, test, setting
        self.found = {}

    def fit(self, n):
        """What n iterations reach, by each measure, and their seconds."""
        if n not in self.found:
            model, seconds = timed(self.movielens.fit, self.train, self.setting, max_iter=n)
            predicted = model.predict(self.test).clip(1, 5)
            self.found[n] = {"RMSE": rmse(predicted, self.test), "AUC": auc(predicted, self.test)}, seconds
        return self.found[n]

    def reach(self, measure, theirs, seconds):
        """The first fit that is as good as theirs, or else the last."""
        last = self.movielens.size["max_iter"]
        for n in range(1, last + 1):
            found, own = self.fit(n)
            reached = found[measure] >= theirs if measure == "AUC" else found[measure] <= theirs
            if reached:
                break
        final = self.fit(last)[0][measure]
        times = {"times our seconds": seconds / own} if reached else {}
        return {"our seconds": own, "our iterations": f"{n}" if reached else "not reached", "ours at last": final} | times


def auc(score, test):
    """Of which ratings are liked."""
    return float(roc_auc_score(test.ratings >= LIKED, score))


def myfm_quality(myfm, movielens, train, test, setting):
    """RMSE and seconds of a whole fit."""
    n = SWEEPS[movielens.name]
    predicted, seconds = by_myfm(myfm, movielens, train, test, setting, n)
    return f"myFM, {n} sweeps", "RMSE", rmse(predicted, test), seconds


def by_myfm(myfm, movielens, train, test, setting, n_sweeps):
    """Predictions of myFM's regression, clipped, and seconds of its fit."""
    sides = list(matrices(movielens, train, setting))
    stacked = [sp.csr_matrix(sp.hstack(parts)) for parts in sides]

    def blocks(part):
        return [myfm.RelationBlock(ids.tolist(), rows) for ids, rows in zip((part.user_ids, part.item_ids), stacked, strict=True)]

    model = myfm.MyFMRegressor(rank=movielens.size["n_factors"], random_seed=0)
    options = {"n_iter": n_sweeps, "n_kept_samples": max(1, n_sweeps * 4 // 5)}
    groups = [part.shape[1] for parts in sides for part in parts]
    nothing = [sp.csr_matrix((len(part), 0)) for part in (train, test)]  # beside the blocks
    _, seconds = timed(model.fit, nothing[0], train.ratings.astype(np.float64), X_rel=blocks(train), group_shapes=groups, **options)
    return model.predict(nothing[1], blocks(test), n_workers=1).clip(1, 5), seconds


def sweep_of_myfm(myfm, movielens, train, setting):
    """Seconds of a Gibbs sweep with the attributes in relation blocks, by the difference of fits of three and of one."""
    few, more = (by_myfm(myfm, movielens, train, train[:1], setting, n)[1] for n in (1, 3))
    return (more - few) / 2


def cmfrec_quality(cmfrec, movielens, train, test, setting):
    """RMSE and seconds of the collective model's ALS, its other settings as they come."""
    described = SETTINGS[setting].described
    tables = [FeatureEncoder().fit_transform(table) for table in movielens.tables.values()] if described else (None, None)
    U, items = (None if table is None else np.asarray(sp.csr_array(table).todense()) for table in tables)
    entries = sp.coo_matrix((train.ratings, (train.user_ids, train.item_ids)), (train.num_users, train.num_items))
    model = cmfrec.CMF(
        k=movielens.size["n_factors"],
        method="als",
        use_float=True,
        nthreads=1,
        precompute_for_predictions=False,
        random_state=0,
        verbose=False,
        **CMFREC[movielens.name],
    )
    _, seconds = timed(model.fit, entries, U=U, I=items)
    predicted = np.nan_to_num(model.predict(test.user_ids, test.item_ids), nan=train.ratings.mean()).clip(1, 5)
    return "cmfrec", "RMSE", rmse(predicted, test), seconds


def lightfm_quality(lightfm, movielens, train, test, setting):
    """The best AUC after any five epochs with the logistic loss, and seconds of the epochs until then."""
    liked, users, items = for_lightfm(movielens, train, train, setting)
    model = lightfm.LightFM(no_components=movielens.size["n_factors"], loss="logistic", random_state=0)
    n_epochs, best, spent = LIGHTFM_EPOCHS[movielens.name], (0.0, 0.0), 0.0
    for _ in range(n_epochs // 5):
        spent += timed(model.fit_partial, liked, users, items, epochs=5)[1]
        score = model.predict(test.user_ids, test.item_ids, items, users)
        best = max(best, (auc(score, test), spent), key=lambda found: found[0])
    return f"LightFM, best of {n_epochs} epochs", "AUC", *best


def epoch_of_lightfm(lightfm, movielens, train, setting, share=50):
    """Seconds of an epoch with the logistic loss: each rating has its cost, so it is that of a fiftieth of them, times fifty."""
    part = train[np.random.default_rng(0).permutation(len(train))[: len(train) // share]]
    liked, users, items = for_lightfm(movielens, train, part, setting)
    model = lightfm.LightFM(no_components=movielens.size["n_factors"], loss="logistic", random_state=0)
    model.fit_partial(liked.tocsr()[:1].tocoo(), users[:1], items)  # the first call makes the rows
    return share * timed(model.fit_partial, liked, users, items)[1]


def for_lightfm(movielens, train, part, setting):
    """Which ratings of a part are liked, 1 or -1, and users' and items' ids and features as one matrix each."""
    users, items = (sp.csr_matrix(sp.hstack(parts), dtype=np.float32) for parts in matrices(movielens, train, setting))
    liked = np.where(part.ratings >= LIKED, 1, -1)
    return sp.coo_matrix((liked, (part.user_ids, part.item_ids)), (part.num_users, part.num_items)), users, items


def matrices(movielens, train, setting):
    """Of users and of items: an indicator of each, their encoded attributes, and what they were seen with, as in SVD++."""
    chosen = SETTINGS[setting]
    entries = sp.csr_matrix((np.ones(len(train)), (train.user_ids, train.item_ids)), (train.num_users, train.num_items))
    for table, own in zip(movielens.tables.values(), (entries, entries.T.tocsr()), strict=True):
        parts = [sp.eye(own.shape[0], format="csr")]
        if chosen.described:
            parts.append(sp.csr_matrix(FeatureEncoder().fit_transform(table)))
        if chosen.params.get("seen_features"):
            parts.append(sp.diags(np.maximum(own.sum(1).A1, 1) ** -0.5) @ own)
        yield parts

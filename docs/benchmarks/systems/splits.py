"""Splits that all systems share, one file each: MovieLens from a folder, or planted ratings of its size where there is none."""

import numpy as np

from sk_torchmf.datasets import make_ratings

SIZES = {"ml100k": (943, 1682, 100_000), "ml1m": (6040, 3706, 1_000_209)}
PLANTED = {1_000_000: (6040, 3706), 5_000_000: (35_000, 10_000), 20_000_000: (138_000, 27_000)}


class Splits:
    """Makes split files on demand.

    Parameters
    ----------
    data : Path or None
        A folder with ml100k.npz, ml1m.npz, ml100k_folds.npz.
    folder : Path
        Where the split files go.
    """

    def __init__(self, data, folder):
        self.data, self.folder = data, folder
        folder.mkdir(parents=True, exist_ok=True)

    def source(self, name):
        return f"{name}.npz" if self.data else "planted ratings of its size"

    def random(self, name, number):
        """The split of this number: 10 % held out at random."""
        return self._file(f"{name}_{number}", lambda: hold_out(*self._ratings(name), np.random.default_rng(number)))

    def validation(self, name):
        """Split 0 without its test part, with 10 % of the rest held out in its place."""

        def make():
            with np.load(self.random(name, 0)) as split:
                ratings = split["user"], split["item"], split["rating"], split["n_users"], split["n_items"]
            return hold_out(*ratings, np.random.default_rng(100))

        return self._file(f"{name}_validation", make)

    def whole(self, name):
        """All ratings and no test part, in five folds."""

        def make():
            user, item, rating, n_users, n_items = self._ratings(name)
            return assemble(user, item, rating, n_users, n_items, slice(None), slice(0, 0))

        return self._file(f"{name}_whole", make)

    def official(self):
        """MovieLens-100K's own folds u1 to u5; none without the data."""
        if self.data is None:
            return []

        def make(fold):
            with np.load(self.data / "ml100k_folds.npz") as archive:
                parts = [
                    np.concatenate([archive[f"{fold}_{part}_{name}"] for part in ("train", "test")])
                    for name in ("user_ids", "item_ids", "ratings")
                ]
                n = len(archive[f"{fold}_train_ratings"])
            return assemble(*parts, *SIZES["ml100k"][:2], slice(0, n), slice(n, None))

        return [self._file(f"ml100k_u{k}", lambda k=k: make(f"u{k}")) for k in range(1, 6)]

    def planted(self, n_ratings):
        """Planted ratings with a long tail and no test part."""

        def make():
            n_users, n_items = PLANTED[n_ratings]
            made = make_ratings(n_users, n_items, n_ratings, item_tail=1.8, random_state=0).interactions
            return assemble(made.user_ids, made.item_ids, made.ratings, n_users, n_items, slice(None), slice(0, 0))

        return self._file(f"planted_{n_ratings}", make)

    def _ratings(self, name):
        n_users, n_items, n = SIZES[name]
        if self.data is None:
            made = make_ratings(n_users, n_items, n, item_tail=1.8, random_state=0).interactions
            return made.user_ids, made.item_ids, made.ratings.clip(1, 5).round(), n_users, n_items
        with np.load(self.data / f"{name}.npz") as archive:
            return archive["user_ids"], archive["item_ids"], archive["ratings"], n_users, n_items

    def _file(self, name, make):
        path = self.folder / f"{name}{'' if self.data else '_generated'}.npz"
        if not path.exists():
            np.savez(path, **make())
        return str(path)


def hold_out(user, item, rating, n_users, n_items, rng):
    order = rng.permutation(len(rating))
    held_out = len(rating) // 10
    return assemble(user, item, rating, n_users, n_items, order[held_out:], order[:held_out])


def assemble(user, item, rating, n_users, n_items, train, test):
    """The arrays of a split, with five random folds of its training part."""
    rating = rating.astype(np.float32)
    n = len(rating[train])
    return {
        "user": user[train].astype(np.int32),
        "item": item[train].astype(np.int32),
        "rating": rating[train],
        "test_user": user[test].astype(np.int32),
        "test_item": item[test].astype(np.int32),
        "test_rating": rating[test],
        "n_users": n_users,
        "n_items": n_items,
        "fold": (np.random.default_rng(0).permutation(n) % 5).astype(np.int8),
    }

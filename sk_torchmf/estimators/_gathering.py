"""Estimators whose fit several processes may share: put together, saved by parts, loaded by any number of processes."""

import copy
import errno
import os
import secrets
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_torchmf.distributed import communicator, has_group
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._saving import Factorization, SavedEstimator, folded, is_fitted_attribute, unfolded
from sk_torchmf.inputs.earlier_rows import has_rows_to_go_on
from sk_torchmf.inputs.stable_hash import shares, stable_hash
from sk_torchmf.storage.archive import check_path, naming
from sk_torchmf.storage.packing import pack, unpack
from sk_torchmf.storage.parts import PartsFolder
from sk_torchmf.training.fitted_parts import common_of, joined, part_of, some_of, together

KIND = "model"  # of the folder that parts are saved to


class Gathering(Factorization):
    """An estimator whose fit several processes may share, and whose parts are put together. Before the other bases."""

    # parameters
    distributed: bool

    def gather(self):
        """Combine the parts of a fit with ``distributed=True`` into one estimator that has the users of all processes.

        After such a fit a process has its own users only or, with a module of your own, the whole module but the observations of
        its own users only. All processes must call this method at the same time, and each needs enough memory for all users and
        observations.

        Returns
        -------
        estimator
            An estimator of this class with ``distributed=False``, as if one process had fitted it to all the data. Every process
            gets it. If this estimator is not distributed, a copy of it.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the processes are not exactly those of the fit.
        DistributedError
            If another process fails or is lost.

        Examples
        --------
        >>> from sk_torchmf import BiasedMatrixFactorization, datasets
        >>> X = datasets.make_ratings(n_users=50, n_items=20, n_ratings=500, random_state=0).interactions
        >>> whole = BiasedMatrixFactorization(n_factors=2, random_state=0).fit(X).gather()
        >>> whole.n_users_
        50
        """
        check_is_fitted(self)
        attributes = {name: value for name, value in vars(self).items() if is_fitted_attribute(name)}
        if self.distributed:
            with communicator(True) as processes:
                attributes = self._joined(attributes, processes)
        return copy.copy(self)._publish(attributes).set_params(distributed=False)

    def _joined(self, attributes, processes):
        """The fitted attributes of all processes, see ``joined``."""
        return joined(attributes, processes)


class SavedInParts(Gathering, SavedEstimator):
    """One that goes into a folder too, in which each process has a file, and on from an earlier fit. Before the other bases."""

    # parameters
    n_factors: int
    # what fit leaves
    users_: np.ndarray
    items_: np.ndarray

    def _goes_on(self, reading):
        is_fitted = super()._goes_on(reading)
        if not self.distributed:
            return is_fitted
        return has_rows_to_go_on((self.users_, self.items_, self.n_factors) if is_fitted else None, reading)

    @documented()
    def save(self, path, *, ratings=True):
        """Write the fitted estimator to a file or, with ``distributed=True``, to a folder, without pickle.

        The file is an ``.npz`` file, whose arrays ``numpy.load`` can read. It has a JSON part for the parameters and everything
        else that is not an array. With ``distributed=True`` all processes call this method with the same path, which all of them
        must be able to see. Each writes a file with its own users, and the first also writes the rest. Until all files are
        complete, the folder has no model, or still the earlier one.

        Parameters
        ----------
        @path
            With ``distributed=True`` it is the path of a folder, which is created.
        @ratings

        Returns
        -------
        @self

        Raises
        ------
        @NotFittedError
        TypeError
            If an id or a parameter is an object that a file without code cannot hold. Ids may be numbers, str, bytes, times, dates
            and UUIDs. Of parameters, a ``RandomState`` is saved with its state, a ``torch.device`` and a path as text, and
            ``scoring`` if it is a name or what ``ranking_scorer`` returns. Callbacks are left out.
        @OSError
            Also for a folder that has other files in it.
        DistributedError
            If another process fails or is lost.
        """
        if not self.distributed:
            return super().save(path, ratings=ratings)
        folder = PartsFolder(path, KIND)
        check_is_fitted(self)
        with communicator(True) as processes:
            values, beside = self._content(ratings)
            state = values.pop("state")
            own = part_of(state)
            content = {"own": folded(own | {"seen_": state["seen_"]})}
            if processes.rank == 0:
                content |= values | {"state": common_of(state)}
            tree, arrays = pack(content)
            about = {"hashes": _ends(stable_hash(own["users_"], "user"))}
            part = {"estimator": type(self).__name__, "values": tree} | beside, arrays, about
            folder.write(f"model-{secrets.token_hex(6)}", {}, part, processes)
        return self

    @classmethod
    @documented()
    def load(cls, path):
        """Read a fitted estimator that ``save`` wrote.

        Nothing in the file is run, imported or unpickled. A model that was fitted on CUDA can be loaded where there is none: the
        fitted state is made of NumPy arrays, and the parameter ``device`` is not used before the next ``fit``.

        A model that was fitted with ``distributed=True`` is in a folder. Without a group of ``torch.distributed`` the whole folder
        is read, and the result is what ``gather`` returns. With a group, all of its processes must call this method; their number
        may differ from that of the fit. Each gets a part of the users and everything else, and the estimator is distributed as
        before.

        Parameters
        ----------
        @path

        Returns
        -------
        @estimator

        Raises
        ------
        @ValueError
        @OSError
        DistributedError
            If another process fails or is lost.
        """
        if not os.path.isdir(check_path(path)):
            return super().load(path)
        folder, among = PartsFolder(path, KIND), has_group()
        with communicator(among) as processes:
            manifest = processes.broadcast(folder.manifest() if processes.rank == 0 else None)
            if manifest is None:
                raise IsADirectoryError(errno.EISDIR, "This folder does not hold a complete model saved by several processes", path)
            found: Any = None
            parts = []
            for at, file in enumerate(manifest["files"]):
                if at and not _may_have(file["about"], processes):
                    continue
                meta, arrays = folder.read(file["name"])
                with naming(folder.at(file["name"])):
                    values = unpack(meta["values"], arrays)
                    own = unfolded(values.pop("own"))
                    found = (meta, values) if found is None else found
                    owner = shares(stable_hash(own["users_"], "user"), processes.size)
                    parts.append(some_of(own, np.flatnonzero(owner == processes.rank)))
            meta, values = found
            with naming(folder.path):
                values["state"] = together(values["state"], parts)
            return cls._made(folder.path, meta, values, {} if among else {"distributed": False})


def _ends(hashed):
    """The smallest and the largest of some numbers, an empty list of none."""
    return [int(hashed.min()), int(hashed.max())] if len(hashed) else []


def _may_have(about, processes):
    """Whether a file may have users of this process."""
    ends = shares(np.array(about.get("hashes", []), dtype=np.uint64), processes.size)
    return len(ends) > 0 and ends[0] <= processes.rank <= ends[-1]

"""Through a file or a pickle and back: equality to the bit, and a file changed by hand."""

import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal
from torch import nn

from sk_torchmf.storage.archive import read, write


def same(ours, theirs):
    """Equal to the bit, dtypes and types included."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        for pair in zip(ours, theirs, strict=True):
            same(*pair)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert_array_equal(ours, theirs)
        assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    elif sp.issparse(ours):
        same([ours.data, ours.indices, ours.indptr], [theirs.data, theirs.indices, theirs.indptr])
    elif not isinstance(ours, nn.Module):
        assert ours == theirs


def reloaded(model, folder, **params):
    model.save(folder / "model")
    return type(model).load(folder / "model", **params)


def rewrite(path, change):
    """Change the JSON content of a file, as someone with an editor could."""
    meta, arrays = read(path)
    change(meta)
    write(path, meta, arrays)


def through_pickle(estimator, folder):
    return pickle.loads(pickle.dumps(estimator))


def through_joblib(estimator, folder):
    joblib.dump(estimator, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def through_skops(estimator, folder):
    skops_io = pytest.importorskip("skops.io")
    file = skops_io.dumps(estimator)
    unknown = skops_io.get_untrusted_types(data=file)
    assert all(name.startswith(("sk_torchmf.", "scipy.sparse.")) for name in unknown), unknown
    return skops_io.loads(file, trusted=unknown)

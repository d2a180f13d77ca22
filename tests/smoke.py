"""Use an installed sk_torchmf as a newcomer would, with what it needs and nothing else: ``nox -s installed`` runs this.

With ``--readme``, which needs pandas, the first example of README.md too.
"""

import json
import pickle
import platform
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch
from saved_models import ANSWERS, CODE, FOLDER, MODELS, answers
from sklearn.model_selection import GridSearchCV

import sk_torchmf
from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization, datasets
from sk_torchmf.nn import BiasedMF, kernels_in_use

README = Path(__file__).resolve().parents[1] / "README.md"


def use(model, data):
    """Fit, predict, recommend, and the same once more out of a file and a pickle."""
    model.fit(data)
    expected, (items, _) = model.predict(data), model.recommend([7, 8], k=5)
    assert np.isfinite(expected).all()
    assert items.shape == (2, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        for again in (type(model).load(model.save(path) and path), pickle.loads(pickle.dumps(model))):
            np.testing.assert_array_equal(again.predict(data), expected)


def main():
    assert "site-packages" in Path(sk_torchmf.__file__).parts, sk_torchmf.__file__
    planted = datasets.make_ratings(n_users=200, n_items=100, n_ratings=5000, noise_std=0.5, random_state=0)
    data = planted.interactions
    for kind in (MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization):
        use(kind(n_factors=4, random_state=0), data)
    use(TorchFactorization(BiasedMF, module__n_factors=4, max_iter=3, random_state=0), data)
    model = BiasedMatrixFactorization(n_factors=8, random_state=0).fit(data[:4500])
    rmse = np.sqrt(np.mean((model.predict(data[4500:]) - data.ratings[4500:]) ** 2))
    assert 0.45 < rmse < 0.9, rmse  # the noise alone is 0.5
    search = GridSearchCV(BiasedMatrixFactorization(random_state=0), {"n_factors": [2, 4]}, cv=2, error_score="raise")
    search.fit(data.tocsr())
    assert search.predict(data.tocsr()[:3]).shape == (3, 100)

    files = sorted(FOLDER.glob("*/*.model"))
    for path in files:
        recorded = json.loads(path.with_name(ANSWERS).read_text(encoding="utf-8"))[path.stem]
        found = answers(type(MODELS[path.stem]).load(path, **CODE.get(path.stem, {})))
        np.testing.assert_allclose(found["predict"], recorded["predict"], rtol=1e-5, atol=1e-6)

    if "--readme" in sys.argv:
        blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.S | re.M)
        exec(compile(blocks[0], "README.md", "exec"), {})
    versions = {"Python": platform.python_version()} | {
        own.__name__: own.__version__ for own in (sk_torchmf, torch, np, scipy, sklearn)
    }
    print(f"works with {kernels_in_use()} kernels, {len(files)} saved files loaded, {versions}")


if __name__ == "__main__":
    main()

"""
Save, load, serve
=================

A model is fitted, saved and loaded. Then it answers requests in three ways in which a service may use it: by the estimator itself,
by a module in ONNX format, which needs neither Python nor torch, and by a nearest-neighbour index. All give the same answers; the
time of each request is printed.

Install what it needs with ``pip install matplotlib onnx onnxscript onnxruntime faiss-cpu``, then run
``python docs/examples/serving.py``, which takes ten seconds.
"""

import multiprocessing
import os
import tempfile
import time
import warnings

import faiss
import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch

from sk_torchmf import BiasedMatrixFactorization, datasets

K = 10
milliseconds = {}


def timed(what, call, repeats=20):
    """Print the median time of a call, and return what it returns."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - start)
    milliseconds[what] = 1e3 * np.median(seconds)
    print(f"{milliseconds[what]:9.3f} ms  {what}")
    return answer


# %%
# Fit, save, load
# ---------------
# The file contains arrays and JSON. Loading runs no code from it, and needs no GPU even if the model was fitted on one.

ratings = datasets.make_ratings(n_users=3000, n_items=2000, n_ratings=200_000, random_state=0).interactions
fitted = BiasedMatrixFactorization(n_factors=32, clip=True, random_state=0).fit(ratings)

folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "model")
timed("save", lambda: fitted.save(path), repeats=3)
model = timed("load", lambda: BiasedMatrixFactorization.load(path), repeats=3)
print(f"{os.path.getsize(path) / 2**20:9.1f} MiB")
assert np.array_equal(model.predict(ratings), fitted.predict(ratings))

# %%
# Predictions by ONNX
# -------------------
# The exported module takes positions in ``users_`` and ``items_``; -1 stands for an unknown id. Batches may have any size.

n = torch.export.Dim("n")
example = torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns about its own exporter
    program = torch.onnx.export(
        model.to_module(),
        example,
        dynamo=True,
        dynamic_shapes={"user": {0: n}, "item": {0: n}},
        input_names=["user", "item"],
        output_names=["rating"],
        verbose=False,
    )
program.save(os.path.join(folder.name, "model.onnx"))
session = onnxruntime.InferenceSession(os.path.join(folder.name, "model.onnx"), providers=["CPUExecutionProvider"])

users, items = np.array([7, 7, -1, 2999]), np.array([3, -1, 5, 1999])
nobody = 10**6  # an id that fit did not see
answers = timed("4 ratings by onnxruntime", lambda: session.run(["rating"], {"user": users, "item": items})[0])
expected = timed(
    "4 ratings by predict", lambda: model.predict(np.where(users < 0, nobody, users), np.where(items < 0, nobody, items))
)
assert np.allclose(answers, expected, rtol=1e-5)

one, all_items = np.full(model.n_items_, 7), np.arange(model.n_items_)
answers = timed("all items of a user by onnxruntime", lambda: session.run(["rating"], {"user": one, "item": all_items})[0])
expected = timed("all items of a user by predict", lambda: model.predict(7))
assert np.allclose(answers, expected, rtol=1e-5)

# %%
# Recommendations by an index
# ---------------------------
# The score is the inner product of a user's and an item's vector, biases included. Any index of inner products therefore finds what
# ``recommend`` finds; for millions of items use an approximate one, such as ``faiss.IndexHNSWFlat``. Items whose scores are almost
# equal in float32 may change places, so the scores are compared here.

user_vectors, item_vectors = model.embeddings()
index = faiss.IndexFlatIP(item_vectors.shape[1])
index.add(item_vectors)

scores, found = timed(f"{K} items of a user by the index", lambda: index.search(user_vectors[7:8], K))
recommended, expected = timed(f"{K} items of a user by recommend", lambda: model.recommend([7], K, exclude_seen=False))
assert np.allclose(np.clip(scores, *model.rating_range_), expected, rtol=1e-5)
print(f"{np.isin(found, recommended).sum()} of {K} items are the same")

scores, found = timed(f"{K} items of all users by the index", lambda: index.search(user_vectors, K), repeats=3)
recommended, expected = timed(f"{K} items of all users by recommend", lambda: model.recommend(k=K, exclude_seen=False), repeats=3)
assert np.allclose(np.clip(scores, *model.rating_range_), expected, rtol=1e-5)

# %%
# A new user
# ----------
# ``fold_in`` computes the factors and the bias of a new user from the user's ratings; ``[p, b + mu, 1]`` is the user's vector.

new_user = ratings.tocsr()[:1]
rows = timed("fold_in of a new user", lambda: model.fold_in(new_user))
vector = np.column_stack([rows[:, :-1], rows[:, -1] + model.global_mean_, np.ones(1)]).astype(np.float32)
scores, found = index.search(vector, K)
recommended, expected = timed("recommend to a new user", lambda: model.recommend(new_user, K, exclude_seen=False))
assert np.allclose(np.clip(scores, *model.rating_range_), expected, rtol=1e-5)

# %%
# Forked workers
# --------------
# A server that loads the model once and then forks its workers (``gunicorn --preload``) shares the model's memory among them. The
# model may be used before the fork, for example to warm up. A forked process does not have the threads on which torch computes, and
# the methods of an estimator do not need them there. Code of your own that calls torch in a worker, such as the module above, would
# wait forever: begin it with ``torch.set_num_threads(1)``. :doc:`/limits` says more about forks and threads.

if "fork" in multiprocessing.get_all_start_methods():
    forking = multiprocessing.get_context("fork")
    answers = forking.SimpleQueue()
    workers = [forking.Process(target=lambda: answers.put(model.recommend(new_user, K, exclude_seen=False))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
        found, scores = answers.get()
        assert np.allclose(scores, expected, rtol=1e-5)

print("All agree.")
folder.cleanup()

# %%
# What a request costs
# --------------------
# Times on the machine that built this page.

requests = {what: value for what, value in milliseconds.items() if "user" in what and "users" not in what}
fig, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
bars = ax.barh(list(requests), list(requests.values()), color="#0072B2")
ax.bar_label(bars, fmt="{:.2g}", padding=3)
ax.margins(x=0.15)
ax.invert_yaxis()
ax.set(xlabel="Milliseconds", title="Time of a request")
plt.show()

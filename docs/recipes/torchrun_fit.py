"""Fit ratings that are spread over several processes, started by ``torchrun --nproc-per-node 2 torchrun_fit.py``."""

import numpy as np
import torch.distributed as dist

from sk_torchmf import BiasedMatrixFactorization, datasets

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()

# Each process may read any part of the table. Here each generates the same one, as large as MovieLens-100K, and keeps a part.
ratings = datasets.make_ratings(n_users=943, n_items=1682, n_ratings=100_000, noise_std=0.9, random_state=0)
is_test = np.random.default_rng(0).random(len(ratings.data)) < 0.1
train, test = np.flatnonzero(~is_test)[rank::size], np.flatnonzero(is_test)

model = BiasedMatrixFactorization(distributed=True, random_state=0, verbose=1)
model.fit(ratings.data[train], ratings.target[train])
print(f"rank {rank} of {size}: {model.n_users_} users, {model.n_items_} items, {model.observed_.nnz} ratings")

# A process predicts for its own users without communication.
mine = test[np.isin(ratings.data[test, 0], model.users_)]
error = model.predict(ratings.data[mine]) - ratings.target[mine]
print(f"rank {rank} of {size}: RMSE {np.sqrt(np.mean(error**2)):.4f} of {len(mine)} ratings held out")

# gather() returns the model of all users, an ordinary estimator, in every process.
whole = model.gather()
if rank == 0:
    error = whole.predict(ratings.data[test]) - ratings.target[test]
    print(f"all {whole.n_users_} users: RMSE {np.sqrt(np.mean(error**2)):.4f} of {len(test)} ratings held out")
    whole.save("model.npz")

dist.destroy_process_group()

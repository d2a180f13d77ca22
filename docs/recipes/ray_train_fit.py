"""Fit ratings in the workers of Ray Train: ``python ray_train_fit.py`` on a machine of a Ray cluster or on any single machine."""

import tempfile
from pathlib import Path

import numpy as np
import ray.train
from ray.train import Checkpoint, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from sk_torchmf import BiasedMatrixFactorization, datasets


def fit_part(config):
    """Runs in each worker, where Ray has created the process group."""
    rank, size = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    # Each worker may read any part of the table. Here each generates the same one and keeps every size-th row.
    ratings = datasets.make_ratings(n_users=943, n_items=1682, n_ratings=100_000, noise_std=0.9, random_state=0)
    model = BiasedMatrixFactorization(distributed=True, random_state=0, **config)
    model.fit(ratings.data[rank::size], ratings.target[rank::size])
    print(f"rank {rank} of {size}: {model.n_users_} users, {model.n_items_} items, {model.observed_.nnz} ratings")

    whole = model.gather()  # all users; each worker could also report its own part
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            whole.save(Path(folder) / "model.npz")
        found = {"loss": model.history_["loss"][-1]}
        ray.train.report(found, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


if __name__ == "__main__":
    trainer = TorchTrainer(
        fit_part,
        train_loop_config={"n_factors": 32},
        torch_config=TorchConfig(backend="gloo", timeout_s=60),
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
    )
    result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        model = BiasedMatrixFactorization.load(Path(folder) / "model.npz")
    print(f"loss {result.metrics['loss']:.4f}, {model.n_users_} users, {model.predict(np.array([[1, 2]]))} for user 1 and item 2")

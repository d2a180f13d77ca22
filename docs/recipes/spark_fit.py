"""Fit ratings in tasks of Spark's TorchDistributor: ``spark-submit spark_fit.py``, or ``python spark_fit.py`` on one machine."""

import os
import tempfile

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from sk_torchmf import BiasedMatrixFactorization, datasets


def fit_part(source, folder):
    """Runs in each task, started by ``torchrun``: fit to the files of this rank. Spark returns the result of rank 0."""
    from datetime import timedelta
    from pathlib import Path

    import pandas as pd
    import torch.distributed as dist

    from sk_torchmf import BiasedMatrixFactorization

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, size = dist.get_rank(), dist.get_world_size()
    files = sorted(Path(source).glob("*.parquet"))[rank::size]
    table = pd.concat([pd.read_parquet(file) for file in files])
    model = BiasedMatrixFactorization(user="user", item="item", distributed=True, random_state=0)
    model.fit(table, table["rating"])
    print(f"rank {rank} of {size}: {model.n_users_} users, {model.n_items_} items, {model.observed_.nnz} ratings")
    whole, loss = model.gather(), model.history_["loss"][-1]
    if rank == 0:
        whole.save(f"{folder}/model.npz")
    dist.destroy_process_group()
    return loss


if __name__ == "__main__":
    spark = SparkSession.builder.master(os.environ.get("SPARK_MASTER", "local[2]")).appName("sk_torchmf").getOrCreate()
    folder = tempfile.mkdtemp()  # on a cluster, a folder that all machines can reach

    # Spark writes the table; there must be at least as many files as tasks.
    ratings = datasets.make_ratings(n_users=943, n_items=1682, n_ratings=100_000, noise_std=0.9, random_state=0)
    rows = [(int(user), int(item), float(rating)) for (user, item), rating in zip(ratings.data, ratings.target, strict=True)]
    table = spark.createDataFrame(rows, "user long, item long, rating float")
    table.repartition(4).write.parquet(f"{folder}/ratings")

    local = spark.sparkContext.master.startswith("local")
    loss = TorchDistributor(num_processes=2, local_mode=local, use_gpu=False).run(fit_part, f"{folder}/ratings", folder)
    model = BiasedMatrixFactorization.load(f"{folder}/model.npz")
    print(f"loss {loss:.4f}, {model.n_users_} users, {model.predict([[1, 2]])} for user 1 and item 2")
    spark.stop()

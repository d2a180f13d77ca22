"""Write the best products of all customers to a Parquet file: ``recommend_all.py MODEL OUTPUT``."""

import argparse
import sys

from sk_torchmf import BiasedMatrixFactorization
from sk_torchmf.parquet import write_recommendations


def main():
    parser = argparse.ArgumentParser(description="Recommend products to all customers.")
    parser.add_argument("model", help="the file that save wrote")
    parser.add_argument("output", help="the Parquet file to write, or to replace")
    parser.add_argument("-k", type=int, default=10, help="how many products for each customer (10)")
    parser.add_argument("--products", metavar="FILE", help="recommend only these: an id on each line")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=sys.stderr.isatty(),
        help="a progress bar; by default only in a terminal, so not from cron",
    )
    arguments = parser.parse_args()
    try:
        model = BiasedMatrixFactorization.load(arguments.model)
        products = None
        if arguments.products:
            with open(arguments.products, encoding="utf-8") as lines:
                products = sorted({line.strip() for line in lines} & set(model.items_))
            if not products:
                raise ValueError(f"{arguments.products} has no product that the model knows.")
        options = {"k": arguments.k, "items": products, "progress": arguments.progress}
        n_rows = write_recommendations(model, arguments.output, **options)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"{n_rows:,} recommendations for {model.n_users_:,} customers in {arguments.output}")


if __name__ == "__main__":
    main()

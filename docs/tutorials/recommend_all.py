"""Write the best products of all customers to a Parquet file: ``python recommend_all.py MODEL OUTPUT``, by hand or from cron."""

import argparse
import sys

from sk_torchmf import BiasedMatrixFactorization
from sk_torchmf.parquet import write_recommendations


def main():
    parser = argparse.ArgumentParser(description="Write the best products of all customers to a Parquet file.")
    parser.add_argument("model", help="the file that save wrote")
    parser.add_argument("output", help="the Parquet file to write; what was there is replaced when all is written")
    parser.add_argument("-k", type=int, default=10, help="how many products for each customer (10)")
    parser.add_argument("--products", metavar="FILE", help="recommend these only, such as what is in stock: an id on each line")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=sys.stderr.isatty(),
        help="a progress bar; by default where there is a terminal, which cron has not",
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
        n_rows = write_recommendations(model, arguments.output, k=arguments.k, items=products, progress=arguments.progress)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"{n_rows:,} recommendations for {model.n_users_:,} customers in {arguments.output}")


if __name__ == "__main__":
    main()

"""A fitted factorization as one value: rows, biases, uncertainty. Knows no estimator and no solver."""

"""What a caller hands over, whatever its form, as containers and row numbers. Writes on no estimator."""

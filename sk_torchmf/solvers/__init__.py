"""Solvers: arrays and generators in, arrays out."""

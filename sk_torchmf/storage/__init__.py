"""Bytes on disk: values to arrays and JSON, whole files, checkpoints. No code goes in, none is run on the way out."""

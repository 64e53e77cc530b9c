"""A warm Python: one process that has imported the libraries and forks what would have been `python -m MODULE`."""

"""Root-mean-square normalisation of rows, with a residual: see `spec.py`."""

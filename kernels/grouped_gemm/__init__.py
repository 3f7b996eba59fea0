"""Matrix multiplication of groups of rows, each with its own weights: see `spec.py`."""

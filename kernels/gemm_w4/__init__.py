"""Matrix multiplication with 4-bit weights: see `spec.py`."""

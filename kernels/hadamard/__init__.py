"""The normalised Walsh-Hadamard transform of rows: see `spec.py`."""

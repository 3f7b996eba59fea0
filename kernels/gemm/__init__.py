"""General matrix multiplication: see `spec.py`."""

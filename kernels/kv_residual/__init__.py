"""Quantised KV pages with residuals: see `spec.py`."""

"""Attention of a few queries over a paged KV cache: see `spec.py`."""

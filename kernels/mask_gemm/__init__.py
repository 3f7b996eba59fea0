"""Rows in bf16 or in int8, as a packed selection says: see `spec.py`."""

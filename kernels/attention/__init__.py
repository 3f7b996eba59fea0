"""Scaled dot-product attention, prefill: see `spec.py`."""

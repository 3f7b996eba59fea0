"""Rotary position embedding: see `spec.py`."""

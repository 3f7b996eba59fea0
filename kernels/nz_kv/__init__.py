"""KV pages in the NZ layout: see `spec.py`."""

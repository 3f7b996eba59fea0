"""int8 codes of activations, a scale for each token or channel: see `spec.py`."""

"""A gated activation, silu(gate) * up: see `spec.py`."""

"""Dispatch tables: sweeps over sizes, the division into few ranges, their regret."""

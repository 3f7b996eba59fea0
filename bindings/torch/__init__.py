"""Torch ops through the stable ABI: what gets shipped."""

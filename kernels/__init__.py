"""Kernel families, one folder each. Adding a family touches its own folder and nothing else."""

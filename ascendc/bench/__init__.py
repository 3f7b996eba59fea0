"""Kernels that use one part of the machine, and the published timings the cycle model is held against."""

"""Jitted functions that Triton kernels of several families share."""

"""AscendC kernels, one folder a family."""

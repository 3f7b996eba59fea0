"""AscendC kv_residual: kernels, tiling and host adapter."""

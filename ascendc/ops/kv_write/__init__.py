"""AscendC kv_write: kernels, tiling and host adapter."""

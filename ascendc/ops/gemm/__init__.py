"""AscendC gemm: kernel, tiling and host adapter."""

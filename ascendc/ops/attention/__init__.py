"""AscendC attention: kernel, tiling and host adapter."""

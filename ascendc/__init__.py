"""AscendC: the API headers, the twin that runs kernels without an NPU, and our kernels."""

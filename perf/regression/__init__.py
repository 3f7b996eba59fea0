"""The regression gate: two builds of the host kernels, compared benchmark by benchmark in interleaved rounds."""

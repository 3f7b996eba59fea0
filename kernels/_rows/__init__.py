"""What kernels over the rows of a matrix share on the CPU."""

"""What kernels over rows of a matrix share: tiles of rows, their copies and casts."""

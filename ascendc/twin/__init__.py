"""The twin: runs, checks and records AscendC kernels on the host."""

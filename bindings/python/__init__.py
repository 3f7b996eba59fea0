"""The pybind11 workbench module `tilewright._C`: raw kernels, timers, twin runs."""

"""The only code that knows pybind11 and torch's C++: generated from one table of ops."""

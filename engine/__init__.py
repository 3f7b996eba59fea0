"""The reference inference engine: a real model end to end on the kernels of this package."""

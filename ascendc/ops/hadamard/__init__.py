"""hadamard on Ascend: steps of neighbours' sums and differences on the vector cores."""

"""gemm_w4 on Ascend: vector cores dequantise tiles of the weights, the cube core multiplies them."""

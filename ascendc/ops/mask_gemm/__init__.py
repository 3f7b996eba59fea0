"""mask_gemm on Ascend: vector cores sort and gather rows by path, cube cores multiply, vector cores place them."""

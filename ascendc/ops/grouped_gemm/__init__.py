"""grouped_gemm on Ascend: gemm's cube and vector parts over tiles of groups."""

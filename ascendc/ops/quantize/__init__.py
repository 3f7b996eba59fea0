"""quantize on Ascend: scales of tokens or channels and their codes, on the vector cores."""

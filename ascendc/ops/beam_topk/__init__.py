"""beam_topk on Ascend: sorted survivors on the vector cores."""

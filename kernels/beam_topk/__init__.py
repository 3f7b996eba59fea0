"""beam_topk: the largest logits of each row with their probabilities, and the step of a beam search."""

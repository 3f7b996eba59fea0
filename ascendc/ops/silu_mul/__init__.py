"""silu_mul on Ascend: tiles of gates and ups on the vector cores."""

"""rope on Ascend: turned pairs on the vector cores."""

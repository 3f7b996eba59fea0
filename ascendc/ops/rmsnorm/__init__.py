"""rmsnorm on Ascend: rows kept in UB between their sum of squares and their scaling, on the vector cores."""

"""How each kind of plot is drawn; `perf.plots` lists them."""

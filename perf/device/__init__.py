"""Calls on a GPU, timed by the GPU: its queue, its events, its graphs, its ceilings, and the watch over it."""

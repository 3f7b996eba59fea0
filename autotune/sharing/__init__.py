"""Many processes on one study: storages, turns, claims, workers."""

"""Studies of our own tools: long, resumable, one command each, with a page of results."""

"""What is tried next: the pool of legal configs, the surrogate over it, the samplers, warm starts."""

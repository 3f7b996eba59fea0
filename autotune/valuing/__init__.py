"""What a config is worth: the static gate, the check, screening, models, several objectives."""

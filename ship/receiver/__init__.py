"""What a bundle carries to verify itself; copied into it as it stands, so nothing here imports tilewright."""

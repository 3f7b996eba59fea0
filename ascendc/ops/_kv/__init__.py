"""What the AscendC kernels of the KV families share: headers, and checks and arrays on the host's side."""

"""What the KV-cache families share: page layouts, quantised formats, their encoders and page tables."""

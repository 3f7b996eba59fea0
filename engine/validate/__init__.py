"""Proof that the engine answers as others do: Hugging Face transformers, and our own plain forward."""

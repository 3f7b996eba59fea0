"""The stages of verify.py that run only after every hash is right. Standard library and torch only."""

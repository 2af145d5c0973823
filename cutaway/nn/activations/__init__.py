"""Activations by address: where the forward pass exposes them, what is recorded, and what is edited."""

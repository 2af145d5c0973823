"""Text to ids and back: one base class, one file an algorithm, and a registry from names to classes."""

"""Models that are made of two, each of a family of its own."""

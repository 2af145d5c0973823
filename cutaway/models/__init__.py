"""Whole models: the backbone, the heads, and loading, saving and precision of both."""

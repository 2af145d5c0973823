"""The engine: one transformer for every family, built from an `Architecture`."""

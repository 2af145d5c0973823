"""The engine: one attention, one feed-forward layer, one block, one stack, built from an `Architecture`."""

"""One file per family: its config, its architecture, its names. No module with a forward is defined here."""

"""cutaway: transformer text models that are fast and open at every joint."""

__version__ = "0.1.0"

"""What any library on torch pays before it begins."""

from __future__ import annotations

from pathlib import Path


class Imports:
    """torch, numpy, tokenizers and safetensors, and nothing done with them."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import numpy
        import safetensors
        import tokenizers
        import torch

        self.version = " ".join(m.__version__ for m in (torch, numpy, tokenizers, safetensors))

    def vectors(self, texts: list[str]) -> None:
        """Nothing."""

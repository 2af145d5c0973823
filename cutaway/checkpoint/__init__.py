"""Files to named tensors: safetensors, PyTorch files (tensors only) and GGUF, read and written.

The names are imported when they are first used: what checks fields of files needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.checkpoint.checkpoint import Checkpoint, open_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("cutaway.checkpoint.checkpoint"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

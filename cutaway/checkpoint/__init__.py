"""Files to named tensors: safetensors, PyTorch files (tensors only) and GGUF, read and written.

What reads tensors is imported when it is first used: the checks of fields, which stand here too, need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.checkpoint.checkpoint import Checkpoint, open_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cutaway.checkpoint import checkpoint

    return getattr(checkpoint, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

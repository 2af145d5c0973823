"""Files to named tensors: safetensors, PyTorch files (tensors only) and GGUF, read and written."""

from cutaway.checkpoint.checkpoint import Checkpoint, open_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "save_checkpoint"]

"""Whether a compiled kernel may compute in the place of torch's operators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cutaway import native

DTYPES = (torch.float32, torch.bfloat16)
_TYPES = (Tensor, nn.Parameter)


def serves(*inputs: Tensor) -> bool:
    """Whether these are numbers on the processor, all float32 or all bfloat16, and no gradient follows them."""
    dtype = inputs[0].dtype
    if native.LIBRARY is None or dtype not in DTYPES or torch.is_autocast_enabled("cpu"):
        return False
    graded = torch.is_grad_enabled()
    for x in inputs:
        if type(x) not in _TYPES or x.dtype is not dtype or not x.is_cpu or (graded and x.requires_grad):
            return False
    return not _transforming()


def transformed(x: Tensor) -> bool:
    """Whether `x` stands for a computation of torch's (compiled, vmapped, forward-differentiated), not for numbers."""
    return type(x) not in _TYPES or _transforming()


def _transforming() -> bool:
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )

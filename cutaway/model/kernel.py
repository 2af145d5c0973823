"""Whether a compiled kernel may compute in the place of torch's operators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cutaway import native

DTYPES = (torch.float32, torch.bfloat16)


def serves(*inputs: Tensor) -> bool:
    """Whether these are numbers on the processor, all float32 or all bfloat16, and no gradient follows them."""
    if native.LIBRARY is None or torch.is_autocast_enabled("cpu"):
        return False
    dtype, graded = inputs[0].dtype, torch.is_grad_enabled()
    for x in inputs:
        if x.dtype != dtype or not x.is_cpu or (graded and x.requires_grad) or transformed(x):
            return False
    return dtype in DTYPES


def transformed(x: Tensor) -> bool:
    """Whether `x` stands for a computation of torch's (compiled, vmapped, forward-differentiated), not for numbers."""
    return (
        type(x) not in (Tensor, nn.Parameter)
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or forward_ad._current_level >= 0
    )

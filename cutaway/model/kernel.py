"""The compiled kernels: whether they may compute in the place of torch's operators, and the call of one."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cutaway import native

DTYPES = (torch.float32, torch.bfloat16)
_TYPES = (Tensor, nn.Parameter)
_RUN: Any = None if native.LIBRARY is None else native.LIBRARY.cw_run


class _Noted(threading.local):
    """What this thread's calls are noted in, if they are: each with what keeps its memory."""

    calls: list[tuple[native.Op, tuple[Any, ...]]] | None = None


noted = _Noted()


def run(op: native.Op, *kept: Any) -> None:
    """Do what `op` says, with as many threads as torch takes; kept: what it reads beside the rows.

    MemoryError where there is no room for it.
    """
    if _RUN(ctypes.addressof(op), torch.get_num_threads()):
        raise MemoryError(f"No memory for a kernel's work on {op.rows} rows ({type(op).__name__}).")
    if noted.calls is not None:
        noted.calls.append((op, tuple(x.detach() if isinstance(x, Tensor) else x for x in kept)))


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

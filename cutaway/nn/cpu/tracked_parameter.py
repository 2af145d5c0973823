"""Parameters that notice their changes, so that what was made of them is made anew.

torch counts changes in place, and `TrackedParameter` counts who was given its `.data`. Other ways to write into a
parameter are not counted: a numpy array or a `.data` from before, a buffer that parameters are views of, a copy of
storages, another process. So some numbers of a parameter are kept beside what was made of it, and compared before each
use.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import sys
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.nn.cpu.ops import at
from cutaway.nn.cpu.torch_private import MAKE_SUBCLASS, version

EACH = 4  # numbers that one use compares
# bytes of a number -> memoryview's name of whole numbers of that size
_UNITS: dict[int, Any] = {1: "B", 2: "H", 4: "I", 8: "Q"}


class TrackedParameter(nn.Parameter):
    """A parameter that notices when its `.data` is handed out, which torch's own count of changes does not."""

    data_accesses = 0

    @property
    def data(self) -> Tensor:
        self.data_accesses += 1
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined, no-any-return]

    @data.setter
    def data(self, value: Tensor) -> None:
        self.data_accesses += 1
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]

    def detach(self) -> Tensor:
        """A plain tensor, as of any parameter; but `nn.Parameter(weight)` insists on one of the same class."""
        plain = torch.Tensor.detach(self)
        if sys._getframe(1).f_code is _CONSTRUCTOR:
            return MAKE_SUBCLASS(TrackedParameter, plain)  # type: ignore[no-any-return]
        return plain


_CONSTRUCTOR: Any = nn.Parameter.__new__.__code__


def _stepped(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    """Marks the weights of an optimizer: one with `fused=True` changes them, and torch does not count it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if type(parameter) is TrackedParameter:
                parameter.data_accesses += 1


@functools.cache
def _watch_optimizers() -> None:
    """From now on, know of every optimizer's step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(_stepped)


class Seen:
    """A parameter as it was at one moment, before something was made of it.

    What is kept are numbers of every row and every column. A use compares EACH of them, from all over the parameter,
    and the next use others: a write to all of it is found at once, one to a whole row or column within
    max(rows, columns) / EACH uses, one to a single number as a rule never.

    Raises:
        RuntimeError: the parameter is not in the processor's memory, or its storage was cut.
    """

    def __init__(self, parameter: Tensor, copied: bool = True) -> None:
        """copied: whether what is made of the parameter has memory of its own; else its numbers are not compared."""
        _watch_optimizers()
        if type(parameter) is nn.Parameter:
            parameter.__class__ = TrackedParameter
        self._parameter = weakref.ref(parameter)  # not its id, which the next parameter may get
        self._handed_out = getattr(parameter, "data_accesses", 0)
        self._count, self._at = version(parameter), parameter.data_ptr()
        numbers = _numbers(parameter) if copied else memoryview(b"")
        self._turns, self._turn = -(-len(numbers) // EACH), 0
        self._looks = [numbers[turn :: self._turns] for turn in range(self._turns)]
        self._kept = [look.tobytes() for look in self._looks]

    def holds(self, parameter: Tensor | None) -> bool:
        """Whether `parameter` is the same one and, as far as can be told, what it was."""
        if (
            parameter is None
            or self._parameter() is not parameter
            or parameter.data_ptr() != self._at
            or version(parameter) != self._count
            or getattr(parameter, "data_accesses", 0) != self._handed_out
        ):
            return False
        if not self._turns:
            return True
        self._turn = turn = (self._turn + 1) % self._turns
        return self._looks[turn].tobytes() == self._kept[turn]


def _numbers(parameter: Tensor) -> memoryview:
    """Some numbers of a parameter [n] or [n, k], as `Seen` keeps them; valid while it lies where it does."""
    at(parameter, parameter.dtype, parameter.shape, parameter.dim(), lasting=True)
    size, extent = parameter.itemsize, 1
    for n, stride in zip(parameter.shape, parameter.stride(), strict=True):
        extent += (n - 1) * stride
    extent = extent if parameter.numel() else 0
    memory = memoryview((ctypes.c_char * (extent * size)).from_address(parameter.data_ptr()) if extent else b"")
    flat: memoryview = memory.cast("B").cast(_UNITS[size])
    if getattr(parameter, "mapped", False):  # all other pages are given back to the system
        return flat[: mmap.PAGESIZE // size : 17]
    if parameter.dim() != 2 or not extent:
        return flat
    (n, k), (row, column) = parameter.shape, parameter.stride()
    if parameter.is_contiguous():  # with a step that has no factor in common with k, the columns come round one by one
        return flat[:: next(step for step in range(min(n, k), 0, -1) if math.gcd(step, k) == 1)]
    along = max(n // k, 1) * row + max(k // n, 1) * column  # on a slant, past what lies between the rows
    return flat[: min(n, k) * along : max(along, 1)]

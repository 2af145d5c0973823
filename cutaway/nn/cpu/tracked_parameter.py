"""Parameters that notice their changes, so that what was made of them is made anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from cutaway.nn.cpu.torch_private import version


class TrackedParameter(nn.Parameter):
    """A parameter that notices when its `.data` is handed out, which torch's own count of changes does not."""

    @property
    def data(self) -> Tensor:
        self.data_accesses = getattr(self, "data_accesses", 0) + 1
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined, no-any-return]

    @data.setter
    def data(self, value: Tensor) -> None:
        self.data_accesses = getattr(self, "data_accesses", 0) + 1
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]


def _stepped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Marks the weights of an optimizer: one with `fused=True` changes them, and torch does not count it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if type(parameter) is TrackedParameter:
                parameter.data_accesses = getattr(parameter, "data_accesses", 0) + 1


register_optimizer_step_post_hook(_stepped)


def version_key(parameter: Tensor | None) -> tuple[Any, ...]:
    """What must stay the same for a packed copy of `parameter` to be right."""
    if parameter is None:
        return ()
    if type(parameter) is nn.Parameter:
        parameter.__class__ = TrackedParameter
    return (id(parameter), version(parameter), parameter.data_ptr(), parameter.__dict__.get("data_accesses"))

"""Which heads an answer needs (Michel et al., 2019, "Are Sixteen Heads Really Better than One?", 1905.10650)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, tower_of
from cutaway.show.sheet import Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class HeadImportance(Result):
    """`slope` [layers, heads]: how the loss changes with each head's gate at 1; `importance`: its absolute value."""

    SCALES: ClassVar[dict[str, Scale]] = {"slope": "signed"}

    slope: Tensor
    importance: Tensor


def gate_slopes(
    model: LanguageModel,
    inputs: Inputs,
    loss: Callable[[Any], Tensor] | None = None,
    *,
    tower: str | None = None,
    cross: bool = False,
) -> HeadImportance:
    """d loss / d gate at gate = 1, where each head's mixed values are multiplied by its gate (eq. 2).

    It equals the finite difference of the loss when the gate is moved a little. The paper takes the mean of absolute
    values over examples; call it once per example for that.

    Args:
        inputs: with labels, unless `loss` is given. loss: a function of the model's output that returns a number.
    """
    handle = tower_of(model, tower)
    places = handle.layers("cross.z" if cross else "attn.z")
    with torch.enable_grad(), model.record(*places) as r:
        out = model(**inputs)
        value = out.loss if loss is None else loss(out)
        slopes = torch.autograd.grad(value, [r[a] for a in places])
    # d loss / d gate = sum of gradient times value: the gate multiplies z
    slope = torch.stack([(g * r[a]).sum((0, 1, 3)) for g, a in zip(slopes, places, strict=True)]).detach()
    return HeadImportance(slope, slope.abs())

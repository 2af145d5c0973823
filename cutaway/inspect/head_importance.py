"""Which heads an answer needs (Michel et al., 2019, "Are Sixteen Heads Really Better than One?", 1905.10650)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cutaway.inspect.measure import measure
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


@measure
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
    # gradients are asked of the token vectors too: weights in blocks have none, and nothing would follow them
    vectors = handle.vectors(inputs[handle.ids]).detach().flatten(0, -3).requires_grad_()  # [texts, length, width]
    with torch.enable_grad(), handle.reading(vectors), model.record(*places) as r:
        out = model(**inputs)
        value = out.loss if loss is None else loss(out)
        slopes = torch.autograd.grad(value, [r[a] for a in places])
    # d loss / d gate = sum of gradient times value: the gate multiplies z
    slope = torch.stack([(g * r[a]).sum((0, 1, 3)) for g, a in zip(slopes, places, strict=True)]).detach()
    return HeadImportance(slope, slope.abs())


@measure
def most_effective(
    model: LanguageModel,
    inputs: Inputs,
    number: Callable[[Any], Tensor],
    *,
    tower: str | None = None,
    cross: bool = False,
    tried: int = 8,
) -> tuple[Tensor, int, int, float]:
    """The head without which a number falls most: (slopes [layers, heads], its layer, its number, the fall).

    To first order a head's removal costs the slope of its gate (`gate_slopes`). The `tried` heads with the largest
    slopes are then switched off one by one, each head's output at zero, and the largest true fall is taken.

    Args:
        number: a function of the model's output, [n] or a number; `inputs` hold one text.
    """
    handle = tower_of(model, tower)
    slopes = gate_slopes(model, inputs, lambda out: number(out).sum(), tower=tower, cross=cross).slope
    with torch.no_grad():
        intact = float(number(model(**inputs)))
        falls = {}
        for at in slopes.flatten().argsort(descending=True)[:tried].tolist():
            layer, head = divmod(at, slopes.shape[1])
            place = handle.at(f"blocks.{layer}.{'cross' if cross else 'attn'}.head.{head}.out")
            with model.edit({place: 0.0}):
                falls[layer, head] = intact - float(number(model(**inputs)))
    layer, head = max(falls, key=lambda one: falls[one])
    return slopes, layer, head, falls[layer, head]

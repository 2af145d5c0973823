"""Whether a product that is fused with what follows may be taken apart without changing a bit.

A recording of what stands between the two would otherwise cost a second product, because what is shown must not change
the result.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.config.architecture import Activation
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.linear import Linear, linear_op
from cutaway.nn.residual import ResidualAdd

if TYPE_CHECKING:
    from torch import nn


def is_bitwise_splittable(layer: nn.Module, x: Tensor, activation: Activation | None = None) -> bool:
    """Whether layer(x), and then `activation` or a sum with the residual, is bit for bit what one pass gives."""
    op = linear_op(layer)
    if not op.fuses(x):
        return True  # it is computed in two steps anyway
    return x.dtype == torch.float32 and not op.int8 and _alike(activation)


@cache
@torch.inference_mode(False)  # weights made in that mode are never packed
@torch.no_grad()
def _alike(activation: Activation | None) -> bool:
    """Tried out once: in float32 oneDNN works on the finished sums, on every processor that was looked at."""
    draw = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # first weights would be drawn from the generator that a training draws from
        layer = Linear(64, 48).eval()
    layer = layer.to_empty(device="cpu")
    for p in layer.parameters():
        p.copy_(torch.randn(p.shape, generator=draw))
    for rows in (1, 33):
        x, residual = torch.randn(rows, 64, generator=draw), torch.randn(rows, 48, generator=draw)
        if activation is None:
            one, two = layer.add_residual(x, ResidualAdd(residual)), residual + layer(x)
        else:
            one, two = layer.activated(x, activation), ACTIVATION[activation](layer(x))
        if not torch.equal(one, two):
            return False
    return True

"""Products of bytes: a weight as int8 with one scale per output, rows as bytes with one scale per row.

    x[i, k] = scale[i] (q[i, k] - 128) + offset[i]        scale[i] = (max x[i] - min x[i]) / 255, the range with 0 in it
    y[i, j] = (scale[i] sum_k (q[i, k] - 128) w[j, k] + offset[i] sum_k w[j, k]) column[j] + bias[j]

with column[j] = max|weight[j]| / 127 (dynamic, asymmetric rows; Jacob et al., 2018, section 2; Dettmers et al., 2022).
The sums are exact whole numbers, so a row's result does not depend on its batch, and every way to compute it agrees to
float32's rounding: the compiled kernel, torch's product of int8 matrices, or float32 products of whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cutaway.checkpoint.checkpoint import quantize_rows
from cutaway.config.architecture import Activation
from cutaway.nn.cpu.packed_weight import PackedWeight, served
from cutaway.nn.cpu.torch_private import INT_PRODUCT

EXACT = 1024  # so many products of two bytes add up in float32 without rounding: 1024 * 128 * 127 < 2^24
DTYPES = (torch.float32, torch.bfloat16)


class Int8Weight:
    """A weight [n, k] and its bias in the form that the product reads; about n * k bytes."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gated: bool = False) -> None:
        values, self.scale = quantize_rows(weight)  # [n, k], [n]
        self.n, self.k = values.shape
        self.panels = PackedWeight(values, bias, self.scale, gated) if served(torch.int8, self.k) else None
        if self.panels is None:
            self.bias = None if bias is None else bias.detach().float()
            self.values = values.contiguous()
            self.sums = self.values.sum(1, dtype=torch.int32).float()  # [n]

    def product(
        self,
        x: Tensor,
        activation: Activation | None = None,
        residual: Tensor | None = None,
        plain: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """activation(x w^T + bias) + residual: x [..., k] -> [..., n], in x's dtype.

        `plain` is the activation as a function, for where no kernel was built.
        """
        if self.panels is not None:
            return self.panels.product(x, activation, residual)
        y = self._by_torch(x)
        y = y if plain is None else plain(y)
        return (y if residual is None else y + residual).to(x.dtype)

    def _by_torch(self, x: Tensor) -> Tensor:
        """x [..., k] -> x w^T + bias [..., n] in float32, by torch's operators."""
        rows = x.reshape(-1, self.k).float()  # [rows, k]
        low = rows.amin(1, keepdim=True).clamp(max=0)  # [rows, 1]
        span = rows.amax(1, keepdim=True).clamp(min=0) - low  # [rows, 1]; NaN or infinite where a number of the row is
        scale = torch.where(span.isfinite(), span / 255, torch.nan)
        q = ((rows - low) * torch.where(span > 0, 255 / span, 0.0)).round_() - 128
        if INT_PRODUCT is not None:
            sums = INT_PRODUCT(q.to(torch.int8), self.values.T).float()
        else:
            pieces = zip(q.split(EXACT, 1), self.values.split(EXACT, 1), strict=True)
            first, *others = (a @ b.float().T for a, b in pieces)
            sums = sum(others, first)
        y = (sums * scale + (low + 128 * scale) * self.sums) * self.scale
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.n)

"""Products of bytes: a weight as int8 with one scale per output, rows as bytes with one scale per row.

    x[i, k] = scale[i] (q[i, k] - 128) + offset[i]        scale[i] = (max x[i] - min x[i]) / 255, the range with 0 in it
    y[i, j] = (scale[i] sum_k (q[i, k] - 128) w[j, k] + offset[i] sum_k w[j, k]) column[j] + bias[j]

with column[j] = max|weight[j]| / 127 (dynamic, asymmetric rows; Jacob et al., 2018, section 2; Dettmers et al., 2022).
The sums are exact whole numbers, so a row's result does not depend on its batch, and every way to compute it agrees to
float32's rounding: the compiled kernel, torch's product of int8 matrices, or float32 products of whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cutaway.checkpoint.checkpoint import quantize_rows
from cutaway.config.architecture import Activation
from cutaway.nn.cpu.packed_weight import PackedWeight, served
from cutaway.nn.cpu.torch_private import INT_PRODUCT

EXACT = 1024  # so many products of two bytes add up in float32 without rounding: 1024 * 128 * 127 < 2^24
DTYPES = (torch.float32, torch.bfloat16)


class Int8Rows:
    """A weight [n, k] as bytes with a scale per row, without its floats: what a `BlockWeight` may answer from.

    Its bytes move into the first packed form that is made of them, from where they are read from then on.

    Attributes:
        n, k: its shape. name: what is said of it. scale: [n].
    """

    name = "int8"

    def __init__(self, weight: Tensor) -> None:
        values, self.scale = quantize_rows(weight)  # [n, k], [n]
        self.n, self.k = values.shape
        self._values: Tensor | None = values.contiguous()
        self._packed: tuple[PackedWeight, Tensor] | None = None

    @property
    def data(self) -> Tensor:
        """The bytes, wherever they lie."""
        return self.values() if self._packed is None else self._packed[0].packed

    @property
    def nbytes(self) -> int:
        """How many bytes it is."""
        return self.n * (self.k + self.scale.itemsize)

    def values(self, rows: Tensor | None = None) -> Tensor:
        """The bytes, [n, k] int8, or those of some rows [m], [m, k]."""
        values = self._values
        if values is not None:
            return values if rows is None else values[rows]
        assert self._packed is not None
        panels, places = self._packed
        return panels.rows(places if rows is None else places[rows])

    def dequantized(self, rows: Tensor) -> Tensor:
        """Rows by their numbers [m] -> [m, k] float32."""
        return self.values(rows).float().mul_(self.scale[rows, None])

    def move_to(self, panels: PackedWeight, places: Tensor) -> None:
        """Read the bytes from `panels` from now on, where row i lies at places[i]."""
        if self._packed is None:
            self._packed = (panels, places)
            self._values = None


def joined_rows(parts: Sequence[Int8Rows], bias: Tensor | None, gated: bool) -> Int8Weight:
    """Rows one after another, or those of a gate and of what it lets through in turns of 16, as one weight."""
    values, scale = [part.values() for part in parts], [part.scale for part in parts]
    places = torch.arange(sum(part.n for part in parts))
    if gated:
        order = torch.stack([x.unflatten(0, (-1, 16)) for x in places.split([part.n for part in parts])], 1).flatten()
        places = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))  # row i's place in the turns
        joined = Int8Weight.of(torch.cat(values)[order], torch.cat(scale)[order], bias, True)
    elif len(parts) == 1:
        joined = Int8Weight.of(values[0], scale[0], bias)
    else:
        joined = Int8Weight.of(torch.cat(values), torch.cat(scale), bias)
    if joined.panels is not None:
        for part, rows in zip(parts, places.split([part.n for part in parts]), strict=True):
            part.move_to(joined.panels, rows)
    return joined


class Int8Weight:
    """A weight [n, k] and its bias in the form that the product reads; about n * k bytes."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gated: bool = False) -> None:
        self._lay_out(*quantize_rows(weight), bias, gated)

    @classmethod
    def of(cls, values: Tensor, scale: Tensor, bias: Tensor | None, gated: bool = False) -> Int8Weight:
        """The same of bytes [n, k] with their scales [n]."""
        made = cls.__new__(cls)
        made._lay_out(values, scale, bias, gated)
        return made

    def _lay_out(self, values: Tensor, scale: Tensor, bias: Tensor | None, gated: bool) -> None:
        self.scale = scale
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

"""A weight as the compiled kernels read it, and the product with it."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from cutaway import native
from cutaway.config.architecture import Activation
from cutaway.nn.cpu.memory import weight_memory
from cutaway.nn.cpu.ops import at, run
from cutaway.nn.cpu.torch_private import AMX

_OF = {torch.float32: native.FP32_WEIGHT, torch.bfloat16: native.BF16_WEIGHT, torch.int8: native.INT8_WEIGHT}
# with tiles for matrices, oneDNN multiplies bfloat16 several times as fast as vectors can
_TILES = AMX


def served(dtype: torch.dtype, n_inputs: int) -> bool:
    """Whether the kernels multiply rows of so many numbers by a weight of this dtype, and nothing here is faster."""
    if native.LIBRARY is None:
        return False
    if dtype == torch.bfloat16:
        return native.BF16 and not _TILES and n_inputs % 2 == 0
    return dtype in _OF


class PackedWeight:
    """A weight [n, k] (float32, bfloat16, or int8 with its scales [n]) and its bias, in panels of 32 outputs.

    A gated one holds 16 gates, then the 16 outputs that they let through, and so on: its product has n / 2 outputs.
    """

    def __init__(self, values: Tensor, bias: Tensor | None, scale: Tensor | None = None, gated: bool = False) -> None:
        library: Any = native.LIBRARY
        n, self.k = values.shape
        self.n, self.gated = n // 2 if gated else n, gated
        self.dtypes = (torch.float32, torch.bfloat16) if values.dtype == torch.int8 else (values.dtype,)
        self.bias = None if bias is None else bias.detach().float().contiguous()
        self.scale = scale
        panels, steps = -(-n // 32), -(-self.k * values.element_size() // 4)
        self.packed = weight_memory(panels * steps * 128).view(torch.int8)
        self.shift = torch.empty(panels * 32 if values.dtype == torch.int8 else 0, dtype=torch.int32)
        values = values.detach().contiguous()
        kind = _OF[values.dtype]
        packed, shift = self.packed.data_ptr(), self.shift.data_ptr()
        bias_at, scale_at = (None if x is None else at(x, torch.float32, (n,), 0, True) for x in (self.bias, scale))
        library.cw_pack(at(values, values.dtype, (n, self.k), 0, True), n, self.k, kind, packed, shift)
        self._struct = native.Weight(packed, bias_at, scale_at, shift, n, self.k, kind, gated)
        self._at = ctypes.addressof(self._struct)

    @property
    def bytes(self) -> int:
        return self.packed.numel()

    def rows(self, places: Tensor) -> Tensor:
        """Rows of a weight of bytes by where they lie, [m] -> [m, k] int8."""
        panels = self.packed.view(-(-self._struct.n // 32), -1, 32, 4)  # [panels, steps, 32, 4 inputs]
        return panels[places // 32, :, places % 32].flatten(1)[:, : self.k]  # [m, steps, 4] -> [m, k]

    def product(
        self,
        x: Tensor,
        activation: Activation | None = None,
        residual: Tensor | None = None,
        norm: native.Norm | None = None,
    ) -> Tensor:
        """norm(activation(x w^T + bias) + residual): x [..., k] -> [..., n], in x's dtype.

        x and residual [..., n] are of the weight's dtype; with a weight of bytes, both float32 or both bfloat16. To the
        last bit, a row's result does not depend on the rows beside it.
        """
        if residual is not None and (
            self.gated or residual.dtype != x.dtype or residual.shape != (*x.shape[:-1], self.n)
        ):
            return residual + self.product(x, activation)
        out = torch.empty(*x.shape[:-1], self.n, dtype=x.dtype)
        self._run(native.Product, None, x, activation, residual, out, norm)
        return out

    def chain(
        self,
        down: PackedWeight,
        x: Tensor,
        activation: Activation | None,
        residual: Tensor,
        norm: native.Norm | None = None,
    ) -> Tensor:
        """down.product(self.product(x, activation), None, residual, norm), the same to the last bit.

        What lies between the two is a few rows at a time, which stay in the cache.
        """
        out = torch.empty(*x.shape[:-1], down.n, dtype=x.dtype)
        self._run(native.Chain, down, x, activation, residual, out, norm)
        return out

    def _run(
        self,
        kind: type[native.Product],
        down: PackedWeight | None,
        x: Tensor,
        activation: Activation | None,
        residual: Tensor | None,
        out: Tensor,
        norm: native.Norm | None,
    ) -> None:
        dtype = x.dtype
        bf16 = dtype is torch.bfloat16
        if x.shape[-1] != self.k or dtype not in self.dtypes:  # the kernel would read past the rows
            raise RuntimeError(
                f"rows of {x.shape[-1]} numbers {dtype} cannot be multiplied by a weight of {self.k} inputs "
                f"{self.dtypes[0]}"
            )
        rows = x if x.dim() == 2 else x.reshape(-1, self.k)  # [rows, k]
        stride, count = rows.stride(), rows.shape[0]
        if stride[1] != 1:
            rows = rows.contiguous()
            stride = rows.stride()
        residual_at = norm_at = down_at = None
        if residual is not None:
            residual = residual.contiguous()
            residual_at = at(residual, dtype, out.shape)
        if norm is not None:
            if norm.n != out.shape[-1] or norm.bf16 != bf16:
                raise RuntimeError(f"a norm of {norm.n} numbers cannot follow a product of {out.shape[-1]}, {dtype}")
            norm_at = ctypes.addressof(norm)
        if down is not None:
            if down.k != self.n or down.gated or dtype not in down.dtypes:
                raise RuntimeError(f"a product of {self.n} numbers cannot be multiplied by a weight of {down.k} inputs")
            down_at = down._at
        x_at = at(rows, dtype, (count, self.k), 1)
        activation_number = native.ACTIVATION_NUMBERS[activation]
        op = kind(
            count, self._at, down_at, x_at, residual_at, out.data_ptr(), norm_at, stride[0], activation_number, bf16
        )
        run(op, self, down, norm)

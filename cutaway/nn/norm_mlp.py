"""The small layers: norms and the feed-forward layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway import native
from cutaway.config.architecture import FeedForward, Norm
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.activations.taps import Tap
from cutaway.nn.call_context import evaluating
from cutaway.nn.cpu.ops import row_norm, serves, within
from cutaway.nn.dropout import dropout as drop
from cutaway.nn.exact_fusion import is_bitwise_splittable
from cutaway.nn.linear import Linear, PackedGate, called, each, hooked, linear_op
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.residual import ResidualAdd


class Embedding(PaddedHooks, nn.Embedding):
    """torch's table without its first weights; on the meta device, drawing them alone would import torch's compiler.

    `embed_scale`: a factor on what it gives, or None. Other libraries ask for it by this name (PEFT).
    """

    embed_scale: float | None = None

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""

    def forward(self, input: Tensor) -> Tensor:
        """ids [...] -> [..., width]."""
        vectors = super().forward(input)
        return vectors if self.embed_scale is None else times_rounded(vectors, self.embed_scale)


def times_rounded(vectors: Tensor, scale: float) -> Tensor:
    """vectors * scale, the factor rounded to their dtype, as families publish it."""
    return vectors * float(torch.tensor(scale, dtype=vectors.dtype, device="cpu"))


class Sinusoids(Embedding):
    """A table of positions that is not trained: sines, then cosines, of wavelengths from 2 pi to 10,000 * 2 pi.

    Vaswani et al. (2017), section 3.5, with the sines side by side instead of between the cosines.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.weight.requires_grad_(False)

    def table(self) -> Tensor:
        """The numbers, [rows, width]."""
        rows, width = self.weight.shape
        steps = torch.arange(width, dtype=torch.float64, device="cpu").div(2, rounding_mode="floor") * 2 / width
        angles = torch.arange(rows, dtype=torch.float64, device="cpu")[:, None] / 10000**steps  # [rows, width]
        return torch.cat((angles[:, 0::2].sin(), angles[:, 1::2].cos()), 1)


class Waves(nn.Module):
    """Positions of any number as sines, then cosines, of wavelengths from 2 pi to 10,000 * 2 pi; no weights.

    As in tensor2tensor, the longest wave is that of the last sine (in `Sinusoids`, one more would have it).
    """

    num_embeddings = 2**31  # the bound of positions that a caller gives

    def __init__(self, width: int, empty: int) -> None:
        super().__init__()
        self.width, self.empty = width, empty  # `empty`: the position of padding, whose vector is zeros
        self._held = torch.empty(0, width)

    def forward(self, position_ids: Tensor) -> Tensor:
        """position_ids [...] -> float32 [..., width]."""
        needed = int(position_ids.max()) + 1 if position_ids.numel() else 0
        if self._held.shape[0] < needed or self._held.device != position_ids.device:
            with torch.inference_mode(False):  # training may use it later
                self._held = self._table(max(256, 2 * needed)).to(position_ids.device)
        return self._held[position_ids]

    def _table(self, rows: int) -> Tensor:
        half = self.width // 2
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / max(half - 1, 1)))
        angles = torch.arange(rows, dtype=torch.float32)[:, None] * frequencies  # [rows, half]
        table = torch.cat((angles.sin(), angles.cos(), torch.zeros(rows, self.width % 2)), 1)
        table[self.empty] = 0
        return table


class LayerNorm(PaddedHooks, nn.LayerNorm):
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias (Ba et al., 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if _served(x, weight, bias):
            return row_norm(x, weight, bias, self.eps)
        return super().forward(x)

    def kernel(self, x: Tensor) -> native.Norm | None:
        """This norm of rows like x as the last step of a product; None where it must be called."""
        if hooked(self) or "forward" in self.__dict__:
            return None
        weight, bias = self.weight, self.bias
        return within(x, weight, bias, self.eps) if _served(x, weight, bias) else None


def _served(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if x.shape[-1:] != weight.shape:
        return False
    return serves(x, weight) if bias is None else serves(x, weight, bias)


class RMSNorm(PaddedHooks):
    """x / sqrt(mean(x^2) + eps) * (weight + offset), in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if x.shape[-1:] == weight.shape and serves(x, weight):
            return row_norm(x, weight, None, self.eps, self.offset, rms=True)
        if x.dtype in (torch.float16, torch.bfloat16):
            normed = F.rms_norm(x.float(), weight.shape, None, self.eps)
            # with an offset the product is rounded, else the factor (as Gemma's and Llama's authors do)
            return ((weight.float() + self.offset) * normed).to(x.dtype) if self.offset else weight * normed.to(x.dtype)
        return F.rms_norm(x, weight.shape, weight + self.offset if self.offset else weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def make_norm(spec: Norm, size: int) -> nn.Module:
    """The layer that `spec` names, over the last dimension."""
    if spec.kind == "layer":
        return LayerNorm(size, eps=spec.eps, bias=spec.bias)
    return RMSNorm(size, spec.eps, spec.offset)


class MLP(PaddedHooks, NamedModule):
    """The feed-forward layer of a block: [rows, hidden] -> [rows, hidden]."""

    side_by_side = ("gate", "up")  # the layers that `packed` multiplies as one, where there is a gate

    def __init__(self, spec: FeedForward, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        if spec.gated:
            self.gate = Linear(hidden_size, spec.size, bias=spec.bias)
            self.packed = PackedGate()
        self.up = Linear(hidden_size, spec.size, bias=spec.bias)
        self.down = Linear(spec.size, hidden_size, bias=spec.bias if spec.down_bias is None else spec.down_bias)

    def forward(self, x: Tensor, tap: Tap | None = None, join: ResidualAdd | None = None) -> Tensor:
        """down(activation(up(x))), joined to the stream where it is given."""
        activation = self.spec.activation
        if tap is not None:
            x = tap.expose("mlp.in", x)
        closed = tap is None or not tap.wants("mlp.pre", "mlp.act", "mlp.out")
        training = self.training and not evaluating()
        gate, up, down = self.gate if self.spec.gated else None, self.up, self.down
        if closed and join is not None and not training:
            group, layers = (linear_op(up).packed, (up,)) if gate is None else (self.packed, (gate, up))
            joined = group.fused_mlp(layers, down, x, activation, join)
            if joined is not None:
                return joined
        first = up if gate is None else gate
        if gate is not None and called((gate, up)) is not None:
            pre, passed = each((gate, up), x)
            if tap is not None:
                pre = tap.expose("mlp.pre", pre)
            act = ACTIVATION[activation](pre) * passed
        elif tap is not None and tap.wants("mlp.pre"):
            pre = tap.expose("mlp.pre", first(x))
            apart = tap.is_live("mlp.pre") or is_bitwise_splittable(first, x, activation)
            act = ACTIVATION[activation](pre) if apart else linear_op(first).activated(x, activation)
            act = act if gate is None else act * up(x)
        elif gate is not None:
            act = self.packed.gated((gate, up), x, activation)
        else:
            act = linear_op(up).activated(x, activation)
        if tap is not None:
            act = tap.expose("mlp.act", act)
        dropped = drop(act, self.spec.dropout) if training else act
        if tap is not None and tap.wants("mlp.out"):
            out = tap.expose("mlp.out", down(dropped))
            if tap.is_live("mlp.out") or is_bitwise_splittable(down, dropped):
                return out if join is None else join(out)
        return down(dropped) if join is None else linear_op(down).add_residual(dropped, join)

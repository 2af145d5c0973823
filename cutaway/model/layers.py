"""The small layers: norms, activations, the feed-forward layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.architecture import Activation, FeedForward, Norm
from cutaway.model.part import Part
from cutaway.model.taps import Tap


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATION: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "gelu_quick": _gelu_quick,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Linear(nn.Linear):
    """torch's layer without its first weights: the model draws or loads them, so drawing them here too is in vain."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


class Embedding(nn.Embedding):
    """torch's table without its first weights; on the meta device, drawing them alone would import torch's compiler."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def make_norm(spec: Norm, size: int) -> nn.Module:
    """The layer that `spec` names, over the last dimension."""
    return nn.LayerNorm(size, eps=spec.eps) if spec.kind == "layer" else RMSNorm(size, spec.eps)


class MLP(Part):
    """The feed-forward layer of a block: [rows, hidden] -> [rows, hidden]."""

    def __init__(self, spec: FeedForward, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        if spec.gated:
            self.gate = Linear(hidden_size, spec.size, bias=spec.bias)
        self.up = Linear(hidden_size, spec.size, bias=spec.bias)
        self.down = Linear(spec.size, hidden_size, bias=spec.bias)
        self.activation = ACTIVATION[spec.activation]

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        pre = self.gate(x) if self.spec.gated else self.up(x)
        act = self.activation(pre)
        if self.spec.gated:
            act = act * self.up(x)
        out: Tensor = self.down(F.dropout(act, self.spec.dropout, self.training))
        if tap is not None:
            tap.take("mlp.pre", pre)
            tap.take("mlp.act", act)
            tap.take("mlp.out", out)
        return out

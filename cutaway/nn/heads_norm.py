"""Norms of queries and keys, [..., heads, size], but for the one that has the same weights for every head."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.config.architecture import Norm
from cutaway.nn.linear import hooked
from cutaway.nn.norm_mlp import LayerNorm, make_norm
from cutaway.nn.padded_hooks import PaddedHooks

HALF = (torch.float16, torch.bfloat16)


class OwnHeadsNorm(PaddedHooks):
    """A LayerNorm without bias over each head, with weights of its own [heads, size] for each (Cohere)."""

    def __init__(self, heads: int, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads, size))

    def forward(self, x: Tensor) -> Tensor:
        """[..., heads, size] -> the same shape; computed in float32."""
        normed = F.layer_norm(x.float() if x.dtype in HALF else x, x.shape[-1:], None, None, self.eps)
        return (normed * self.weight).to(x.dtype)


class NormPerHead(nn.Module):
    """A LayerNorm without bias for each head, published one by one (StableLM)."""

    def __init__(self, heads: int, size: int, eps: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(size, eps, bias=False) for _ in range(heads))

    def forward(self, x: Tensor) -> Tensor:
        """[..., heads, size] -> the same shape."""
        if any(hooked(norm) or "forward" in norm.__dict__ for norm in self.norms):  # somebody watches their calls
            return torch.stack([norm(part) for norm, part in zip(self.norms, x.unbind(-2), strict=True)], -2)
        first: nn.LayerNorm = self.norms[0]  # type: ignore[assignment]
        weight = torch.stack([norm.weight for norm in self.norms])  # type: ignore[misc]
        return F.layer_norm(x, x.shape[-1:], None, None, first.eps) * weight


def make_heads_norm(spec: Norm, heads: int, size: int, over: Literal["head", "own", "parts", "all"]) -> nn.Module:
    """The layer over queries or keys [..., heads, size], or over "all" heads [..., heads * size]."""
    if over == "all":
        return make_norm(spec, heads * size)
    if over != "head":
        return (OwnHeadsNorm if over == "own" else NormPerHead)(heads, size, spec.eps)
    return make_norm(spec, size)

"""One block of a stack: attention, cross-attention where there is a memory, feed-forward; norms before or after."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.config.architecture import Stack
from cutaway.nn.activations.taps import Tap
from cutaway.nn.attention import Attention, Context, CrossAttention
from cutaway.nn.call_context import evaluating
from cutaway.nn.linear import hooked
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.norm_mlp import MLP, make_norm
from cutaway.nn.residual import ResidualAdd


class Block(NamedModule):
    """[rows, hidden] -> [rows, hidden]; pre-norm (Xiong et al., 2020), post-norm (Vaswani et al., 2017) or parallel
    (Black et al., 2022: attention and feed-forward layer read the same input).
    """

    def __init__(self, spec: Stack, number: int) -> None:
        super().__init__()
        self.bounds_sums, self.bounds_end = spec.float16_bound == "additions", spec.float16_bound == "blocks"
        self.pre, self.parallel = spec.norm_place != "post", spec.norm_place == "parallel"
        self.dropout, attn_out_dropout = spec.dropout, spec.attention.out_dropout
        self.attn_dropout = spec.dropout if attn_out_dropout is None else attn_out_dropout
        self.attn = Attention(spec.attention, spec.hidden_size)
        normed = spec.first_norm or number > 0
        self.attn_norm = make_norm(spec.norm, spec.hidden_size) if normed else nn.Identity()
        self.has_cross = spec.cross
        if spec.cross:
            self.cross = CrossAttention(spec.attention, spec.hidden_size)
            self.cross_norm = make_norm(spec.norm, spec.hidden_size)
        self.mlp = MLP(spec.feed_forward, spec.hidden_size)
        self.mlp_norm = make_norm(spec.norm, spec.hidden_size)

    def forward(self, x: Tensor, context: Context, layer: int, tap: Tap | None = None) -> Tensor:
        entered = x
        x = self._add(self.attn, self.attn_norm, x, x, self.attn_dropout, context, layer, tap)
        if tap is not None:
            x = tap.expose("resid_mid", x)
        if self.has_cross:
            x = self._add(self.cross, self.cross_norm, x, x, self.dropout, context, layer, tap)
            if tap is not None:
                x = tap.expose("resid_cross", x)
        x = self._add(self.mlp, self.mlp_norm, x, entered if self.parallel else x, self.dropout, tap)
        if self.bounds_end:
            x = within_float16(x)
        if tap is not None:
            x = tap.expose("resid", x)
        return x

    def _add(
        self, part: NamedModule, norm: nn.Module, x: Tensor, read: Tensor, dropout: float, *args: object
    ) -> Tensor:
        """x plus what `part` makes of `read`, with the norm on its side."""
        inside = norm(read) if self.pre else read
        join = ResidualAdd(x, dropout, self.training and not evaluating(), None if self.pre else norm)
        if hooked(part):  # a hook is shown the part's own output
            x = join(part(inside, *args))
        else:
            x = part(inside, *args, join=join)
        return within_float16(x) if self.bounds_sums else x


def within_float16(x: Tensor) -> Tensor:
    """x with the infinities of float16 bounded, as published models that overflow do; other dtypes as they are."""
    if x.dtype is not torch.float16 or not bool(x.isinf().any()):
        return x
    most = torch.finfo(torch.float16).max - 1000
    return x.clamp(-most, most)

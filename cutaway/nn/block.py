"""One block of a stack: attention, cross-attention where there is a memory, feed-forward; norms before or after."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.config.architecture import DistanceWaves, Relative, Stack
from cutaway.nn.activations.taps import Tap
from cutaway.nn.attention import Attention, Context, CrossAttention
from cutaway.nn.call_context import evaluating
from cutaway.nn.convolution import NeighbourSum
from cutaway.nn.dropout import dropout as drop
from cutaway.nn.experts import make_feed_forward
from cutaway.nn.linear import hooked
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.norm_mlp import make_norm
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.positions import RelativeBias
from cutaway.nn.relative_attention import RelativeAttention
from cutaway.nn.residual import ResidualAdd


class Block(PaddedHooks, NamedModule):
    """[rows, hidden] -> [rows, hidden]; pre-norm (Xiong et al., 2020), post-norm (Vaswani et al., 2017) or parallel
    (Black et al., 2022: attention and feed-forward layer read the same input).

    `number`: which of its stack's blocks it was built as; what a layer has of its own (a window, rotary positions)
    stays with it wherever it is put.
    """

    def __init__(self, spec: Stack, number: int) -> None:
        super().__init__()
        self.number = number
        self.bounds_sums, self.bounds_end = spec.float16_bound == "additions", spec.float16_bound == "blocks"
        self.pre, self.parallel = spec.norm_place != "post", spec.norm_place == "parallel"
        self.dropout, attn_out_dropout = spec.dropout, spec.attention.out_dropout
        self.attn_dropout = spec.dropout if attn_out_dropout is None else attn_out_dropout
        self._build_attention(spec, number)
        self.has_cross = spec.cross
        if spec.cross:
            self.cross = CrossAttention(spec.attention_of(number), spec.hidden_size)
            self.cross_norm = make_norm(spec.norm, spec.hidden_size)
        self.mlp = make_feed_forward(spec.feed_forward, spec.hidden_size)
        self.mlp_norm = make_norm(spec.norm, spec.hidden_size)
        self.has_conv = spec.convolution is not None and number == 0
        if self.has_conv and spec.convolution is not None:
            self.conv = NeighbourSum(spec.convolution, spec.norm, spec.hidden_size)

    def _build_attention(self, spec: Stack, number: int) -> None:
        relative = spec.positions if isinstance(spec.positions, Relative) and spec.positions.per_layer else None
        own_bias = None if relative is None else RelativeBias(relative, spec.attention.n_heads, spec.causal)
        self.attn = Attention(spec.attention_of(number), spec.hidden_size, spec.interleaved, own_bias)
        normed = spec.first_norm or number > 0
        self.attn_norm = make_norm(spec.norm, spec.hidden_size) if normed else nn.Identity()

    def forward(self, x: Tensor, context: Context, layer: int, tap: Tap | None = None) -> Tensor:
        entered = x
        x = self._add(self.attn, self.attn_norm, x, x, self.attn_dropout, context, layer, tap)
        if tap is not None:
            x = tap.expose("resid_mid", x)
        if self.has_cross and context.memory is not None:
            x = self._add(self.cross, self.cross_norm, x, x, self.dropout, context, layer, tap)
            if tap is not None:
                x = tap.expose("resid_cross", x)
        x = self._add(self.mlp, self.mlp_norm, x, entered if self.parallel else x, self.dropout, tap)
        if self.has_conv:
            x = self.conv(entered, x, context.rows, tap)
        if self.bounds_end:
            x = within_float16(x)
        if tap is not None:
            x = tap.expose("resid", x)
        return x

    def _add(
        self, part: NamedModule, norm: nn.Module, x: Tensor, read: Tensor, dropout: float, *args: object
    ) -> Tensor:
        """x plus what `part` makes of `read`, with the norm on its side; dropout: the rate of what it makes."""
        return self._join(part, norm(read) if self.pre else read, x, None if self.pre else norm, dropout, *args)

    def _join(
        self, part: NamedModule, inside: Tensor, x: Tensor, after: nn.Module | None, dropout: float, *args: object
    ) -> Tensor:
        """after(x plus what `part` makes of `inside`)."""
        join = ResidualAdd(x, dropout, self.training and not evaluating(), after)
        if hooked(part):  # a hook is shown the part's own output
            x = join(part(inside, *args))
        else:
            x = part(inside, *args, join=join)
        return within_float16(x) if self.bounds_sums else x


class SharedNormBlock(Block):
    """A parallel block whose layers read the same norm of its input (GPT-J, Phi, Falcon, Cohere)."""

    def __init__(self, spec: Stack, number: int) -> None:
        super().__init__(spec, number)
        del self.mlp_norm

    def forward(self, x: Tensor, context: Context, layer: int, tap: Tap | None = None) -> Tensor:
        """As Block.forward."""
        inside = self.attn_norm(x)
        x = self._join(self.attn, inside, x, None, self.attn_dropout, context, layer, tap)
        if tap is not None:
            x = tap.expose("resid_mid", x)
        x = self._join(self.mlp, inside, x, None, self.dropout, tap)
        if tap is not None:
            x = tap.expose("resid", x)
        return x


class ResultBlock(Block):
    """A block that norms or scales what each layer makes before it joins the stream (Gemma 2, OLMo 2, Granite).

    The addition cannot be the last step of a product here.
    """

    def __init__(self, spec: Stack, number: int) -> None:
        super().__init__(spec, number)
        self.scale = spec.residual_scale
        if spec.norm_place == "result":
            self.attn_norm, self.mlp_norm = nn.Identity(), nn.Identity()
        if spec.norm_place in ("both", "result"):
            self.attn_result_norm = make_norm(spec.norm, spec.hidden_size)
            self.mlp_result_norm = make_norm(spec.norm, spec.hidden_size)
        else:
            self.attn_result_norm, self.mlp_result_norm = nn.Identity(), nn.Identity()

    def _add(
        self, part: NamedModule, norm: nn.Module, x: Tensor, read: Tensor, dropout: float, *args: object
    ) -> Tensor:
        """x plus what `part` makes of `read`, normed and scaled."""
        out = (self.attn_result_norm if part is self.attn else self.mlp_result_norm)(part(norm(read), *args))
        return torch.add(x, drop(out, dropout, self.training and not evaluating()), alpha=self.scale)


class WaveBlock(Block):
    """A block whose attention goes by waves of distances; the norm after it stands in its module, as published."""

    def _build_attention(self, spec: Stack, number: int) -> None:
        self.attn = RelativeAttention(spec.attention_of(number), spec.hidden_size, spec.norm)

    def _join(
        self, part: NamedModule, inside: Tensor, x: Tensor, after: nn.Module | None, dropout: float, *args: object
    ) -> Tensor:
        """As Block._join; attention is always called with what follows it, which a hook on it sees upstream."""
        if part is not self.attn:
            return super()._join(part, inside, x, after, dropout, *args)
        joined: Tensor = part(inside, *args, join=ResidualAdd(x, dropout, self.training and not evaluating(), after))
        return joined

    @property
    def attn_norm(self) -> nn.Module:  # type: ignore[override]
        return self.attn.layer_norm  # type: ignore[no-any-return]


def make_block(spec: Stack, number: int) -> Block:
    """Block `number` of a stack."""
    if isinstance(spec.attention.distances, DistanceWaves):
        return WaveBlock(spec, number)
    if spec.norm_place == "shared":
        return SharedNormBlock(spec, number)
    on_result = spec.norm_place in ("both", "result") or spec.residual_scale != 1.0
    return (ResultBlock if on_result else Block)(spec, number)


def within_float16(x: Tensor) -> Tensor:
    """x with the infinities of float16 bounded, as published models that overflow do; other dtypes as they are."""
    if x.dtype is not torch.float16 or not bool(x.isinf().any()):
        return x
    most = torch.finfo(torch.float16).max - 1000
    return x.clamp(-most, most)


GradientCheckpointingLayer = Block  # upstream's name for a layer that can be computed twice in training

"""One block of a stack: attention, cross-attention where there is a memory, feed-forward; norms before or after."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cutaway.architecture import Stack
from cutaway.model.attention import Attention, Context
from cutaway.model.layers import MLP, make_norm
from cutaway.model.part import Part
from cutaway.model.taps import Tap


class Block(Part):
    """[rows, hidden] -> [rows, hidden]; pre-norm (Xiong et al., 2020) or post-norm (Vaswani et al., 2017)."""

    def __init__(self, spec: Stack) -> None:
        super().__init__()
        self.pre = spec.norm_place == "pre"
        self.dropout = spec.dropout
        self.attn = Attention(spec.attention, spec.hidden_size)
        self.attn_norm = make_norm(spec.norm, spec.hidden_size)
        self.has_cross = spec.cross
        if spec.cross:
            self.cross = Attention(spec.attention, spec.hidden_size)
            self.cross_norm = make_norm(spec.norm, spec.hidden_size)
        self.mlp = MLP(spec.feed_forward, spec.hidden_size)
        self.mlp_norm = make_norm(spec.norm, spec.hidden_size)

    def forward(self, x: Tensor, context: Context, layer: int, tap: Tap | None = None) -> Tensor:
        attended = self.attn(self.attn_norm(x) if self.pre else x, context, layer, tap)
        x = self._join(x, attended, self.attn_norm)
        if tap is not None:
            tap.take("resid_mid", x)
        if self.has_cross:
            attended = self.cross.cross(self.cross_norm(x) if self.pre else x, context, layer, tap)
            x = self._join(x, attended, self.cross_norm)
            if tap is not None:
                tap.take("resid_cross", x)
        x = self._join(x, self.mlp(self.mlp_norm(x) if self.pre else x, tap), self.mlp_norm)
        if tap is not None:
            tap.take("resid", x)
        return x

    def _join(self, x: Tensor, update: Tensor, norm: object) -> Tensor:
        x = x + F.dropout(update, self.dropout, self.training)
        return x if self.pre else norm(x)  # type: ignore[operator]

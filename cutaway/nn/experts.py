"""Experts: many feed-forward layers, of which a router gives each token a few (Shazeer et al., 2017).

To whoever looks, they are one wide layer: `mlp.pre` and `mlp.act` are [batch, length, experts * size], the experts side
by side, zero where a token does not go. `mlp.act` has the router's weights in it, so that the layer's output is
`mlp.act` times all second matrices side by side. `mlp.router` is [batch, length, experts], before the few are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cutaway.config.architecture import FeedForward
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.activations.taps import Tap
from cutaway.nn.attention_pattern import value_grad_merge
from cutaway.nn.linear import Linear
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.norm_mlp import MLP
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.residual import ResidualAdd


@dataclass(frozen=True)
class SideBySide:
    """The experts' second layers as one. weight: [hidden, experts * size]."""

    weight: Tensor
    bias: None = None


class Experts(PaddedHooks, NamedModule):
    """[rows, hidden] -> [rows, hidden]: the sum of what a token's experts make of it, by the router's weights."""

    def __init__(self, spec: FeedForward, hidden_size: int) -> None:
        super().__init__()
        assert spec.experts is not None
        self.spec, self.top, self.renormalized = spec, spec.experts.top, spec.experts.renormalized
        self.router = Linear(hidden_size, spec.experts.n, bias=False)
        each = replace(spec, experts=None)
        self.experts = nn.ModuleList(MLP(each, hidden_size) for _ in range(spec.experts.n))

    def forward(self, x: Tensor, tap: Tap | None = None, join: ResidualAdd | None = None) -> Tensor:
        """The sum of the experts' results, joined to the stream where it is given."""
        if tap is not None:
            x = tap.expose("mlp.in", x)
        rows = x.flatten(0, -2)  # [rows, hidden]
        routes = self._routes(x, tap)
        out = self._mixed(rows, routes)
        if tap is not None and tap.wants("mlp.pre", "mlp.act", "mlp.out"):
            out = self._shown(rows, routes, out, x.shape, tap)
        out = out.view(x.shape)
        return out if join is None else join(out)

    @property
    def down(self) -> SideBySide:
        """The second matrices side by side: a copy."""
        return SideBySide(torch.cat([expert.down.weight for expert in self.experts], 1))  # type: ignore[union-attr, misc]

    def _routes(self, x: Tensor, tap: Tap | None) -> list[tuple[int, Tensor, Tensor]]:
        """(expert, its rows [n], their weights [n, 1]) of each expert that gets any."""
        logits = self.router(x)  # [..., experts]
        half = logits.dtype in (torch.float16, torch.bfloat16)
        shares = torch.softmax(logits, -1, dtype=torch.float32 if half else logits.dtype)
        if tap is not None:
            shares = tap.expose("mlp.router", shares)
        weights, chosen = shares.flatten(0, -2).topk(self.top)  # [rows, top]
        if self.renormalized:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights.to(logits.dtype)
        routes = []
        for expert in chosen.unique().tolist():
            at, place = (chosen == expert).nonzero(as_tuple=True)  # [n] each
            routes.append((expert, at, weights[at, place, None]))
        return routes

    def _mixed(self, rows: Tensor, routes: list[tuple[int, Tensor, Tensor]]) -> Tensor:
        out = torch.zeros_like(rows)
        for expert, at, weights in routes:
            out.index_add_(0, at, self.experts[expert](rows[at]) * weights)
        return out

    def _shown(
        self,
        rows: Tensor,
        routes: list[tuple[int, Tensor, Tensor]],
        fast: Tensor,
        shape: torch.Size,
        tap: Tap,
    ) -> Tensor:
        """Show the inner numbers; the result [rows, hidden], computed from them where it must be."""
        n, size = len(self.experts), self.spec.size
        at = torch.cat([rows_of for _, rows_of, _ in routes])  # [pairs]
        ids = torch.cat([torch.full_like(rows_of, expert) for expert, rows_of, _ in routes])  # [pairs]
        weights = torch.cat([share for _, _, share in routes])  # [pairs, 1]

        def laid(values: Tensor) -> Tensor:
            """[pairs, size] -> [..., experts * size], zero where a token does not go."""
            empty = values.new_zeros(len(rows), n, size)
            return empty.index_put((at, ids), values).view(*shape[:-1], n * size)

        first = "gate" if self.spec.gated else "up"
        inner = torch.cat([getattr(self.experts[expert], first)(rows[rows_of]) for expert, rows_of, _ in routes])
        if tap.wants("mlp.pre"):
            shown = tap.expose("mlp.pre", laid(inner))
            inner = shown.view(len(rows), n, size)[at, ids] if tap.is_live("mlp.pre") else inner
        act = ACTIVATION[self.spec.activation](inner)
        if self.spec.gated:
            act = act * torch.cat([self.experts[expert].up(rows[rows_of]) for expert, rows_of, _ in routes])  # type: ignore[operator]
        act = laid(act * weights)
        act = tap.expose("mlp.act", act)
        out = fast
        if tap.is_live("mlp.pre", "mlp.act"):
            parts = act.view(len(rows), n, size).unbind(1)  # [rows, size] each
            out = torch.stack([expert.down(part) for expert, part in zip(self.experts, parts, strict=True)]).sum(0)  # type: ignore[operator]
            if not tap.edits("mlp.pre", "mlp.act"):
                out = value_grad_merge(fast, out)
        return tap.expose("mlp.out", out.view(shape)).reshape(rows.shape)


def make_feed_forward(spec: FeedForward, hidden_size: int) -> MLP | Experts:
    """The feed-forward layer of a block."""
    return MLP(spec, hidden_size) if spec.experts is None else Experts(spec, hidden_size)

"""Attention by Transformer-XL's scores, as XLNet has them (Dai et al., 2019, section 3.3; Yang et al., 2019).

The score of query i and key j is ((q_i + u) k_j + (q_i + w) R k(i - j) + (q_i + s) e[same segment or not]) * scale. Its
matrices are published as parameters [hidden, heads, head_size] of one module, so they stand here as those, and the norm
after the residual addition stands in the same module.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.config.architecture import Attention as Spec
from cutaway.config.architecture import Norm
from cutaway.nn.activations.taps import Tap
from cutaway.nn.attention import Attention, Context
from cutaway.nn.attention_pattern import weighted_values
from cutaway.nn.distances import DistanceBias, DistanceRows, compared
from cutaway.nn.dropout import dropout
from cutaway.nn.linear import Linear
from cutaway.nn.norm_mlp import make_norm
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.residual import ResidualAdd

MATRICES, BIASES = ("q", "k", "v", "o", "r"), ("r_r_bias", "r_s_bias", "r_w_bias")
HIDDEN = 1e30  # what is taken from a hidden key's score, as published: where all keys are hidden, all weigh the same


class HeadsToHidden(nn.Module):
    """The output matrix of a layer, which holds it: the values of all heads -> the hidden size."""

    weight: Tensor

    def __init__(self, read: Callable[[], Tensor]) -> None:
        super().__init__()
        self._read, self.bias = read, None

    def __getattr__(self, name: str) -> Tensor:
        if name == "weight":
            return self._read()
        raise AttributeError(name)

    def forward(self, x: Tensor) -> Tensor:
        """[..., heads * head_size] -> [..., hidden]."""
        return F.linear(x, self._read())


class RelativeAttention(Attention, PaddedHooks):
    """Attention whose scores depend on words, distances and segments.

    Its call with a residual addition is the published module's, norm and all, so a hook on it sees what it sees there.
    `drawn`: the parameters that begin as random numbers.
    """

    register_forward_hook = PaddedHooks.register_forward_hook  # type: ignore[assignment]
    register_forward_pre_hook = PaddedHooks.register_forward_pre_hook  # type: ignore[assignment]
    register_full_backward_hook = PaddedHooks.register_full_backward_hook  # type: ignore[assignment]
    register_full_backward_pre_hook = PaddedHooks.register_full_backward_pre_hook  # type: ignore[assignment]

    drawn = (*MATRICES, *BIASES, "seg_embed")

    def __init__(self, spec: Spec, hidden_size: int, norm: Norm) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        heads = spec.n_heads, spec.head_size
        for name in MATRICES:
            self.register_parameter(name, nn.Parameter(torch.empty(hidden_size, *heads)))
        for name in BIASES:
            self.register_parameter(name, nn.Parameter(torch.empty(heads)))
        self.seg_embed = nn.Parameter(torch.empty(2, *heads))
        self.layer_norm = make_norm(norm, hidden_size)

    def forward(
        self,
        x: Tensor,
        context: Context,
        layer: int,
        tap: Tap | None = None,
        join: ResidualAdd | None = None,
    ) -> Tensor:
        """As Attention.forward; `attn.q` is the query before any bias."""
        q, k, v = (self.heads_of(name, x) for name in ("q", "k", "v"))
        if tap is not None:
            shown = (("attn.q", q), ("attn.k", k), ("attn.v", v))
            q, k, v = (tap.take_heads(part, y.flatten(0, -3)).view(y.shape) for part, y in shown)
        q = q + self.r_w_bias
        q, k, v = q.flatten(0, -3), k.flatten(0, -3), v.flatten(0, -3)  # [rows, heads, head_size]
        z = self._groups(q, k, v, context, None, tap)
        return self._out(z, x.shape, "attn", tap, join)

    def heads_of(self, name: str, x: Tensor) -> Tensor:
        """Queries, keys or values of x [..., hidden]: [..., heads, head_size]."""
        return self._split(x @ self._parameters[name].flatten(1))  # type: ignore[union-attr]  # [..., heads, head_size]

    def _distance_keys(self, rows: DistanceRows) -> Tensor:
        """Keys of the distances, scaled as scores are: [heads, rows, head_size]."""
        return self.heads_of("r", rows.vectors).transpose(0, 1) * self.spec.scale

    def _distance_bias(self, rows: DistanceRows) -> DistanceBias:
        keys = self._distance_keys(rows)

        def bias(asking: Tensor, seen: Tensor, places: Tensor | None, types: Tensor | None = None) -> Tensor:
            by_distance = asking + (self.r_r_bias - self.r_w_bias)[:, None]  # queries come with the bias for words
            added = compared(by_distance, keys, rows, places, flipped=True)
            if types is None:
                return added
            by_segment = asking + (self.r_s_bias - self.r_w_bias)[:, None]
            return added + self._segment_scores(by_segment, types, types)

        return bias

    def _segment_scores(self, q: Tensor, asking: Tensor, seen: Tensor) -> Tensor:
        """What segments add: q [n, heads, queries, head_size], types [n, queries] and [n, keys] -> [n, heads, q, k]."""
        scores = q @ (self.seg_embed * self.spec.scale).permute(1, 2, 0)  # [n, heads, queries, 2]
        differ = asking[:, None, :, None] != seen[:, None, None, :]  # [n, 1, queries, keys]
        return torch.where(differ, scores[..., 1:], scores[..., :1])

    def output_layer(self) -> Linear:
        return HeadsToHidden(self._output_matrix)  # type: ignore[return-value]

    def _output_matrix(self) -> Tensor:
        """[hidden, heads * head_size]."""
        found = self._parameters["o"]
        assert found is not None
        return found.flatten(1)  # [hidden, heads * head_size]

    def dense(
        self,
        asking: Tensor,
        seen: Tensor,
        rows: DistanceRows,
        hidden: Tensor | None,
        types: tuple[Tensor, Tensor] | None,
        mapping: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(output [n, asking, hidden], pattern [n, heads, queries, keys]) of a batch with its padding, a word a column.

        Args:
            asking: what queries are made of, [n, queries, hidden]; with `mapping`, [n, targets, hidden].
            seen: what keys and values are made of, [n, keys, hidden]; the last of them stand where the queries do.
            hidden: 1 where a query does not see a key, else 0: [n or 1, 1, queries, keys], or None.
            types: the segments of queries [n, queries] and of keys [n, keys], or None.
            mapping: [n, targets, queries], how much each target asks at each place.
        """
        q = self.heads_of("q", asking).transpose(1, 2)  # [n, heads, queries, head_size]
        k, v = (self.heads_of(name, seen).transpose(1, 2) for name in ("k", "v"))  # [n, heads, keys, head_size]
        if mapping is not None:
            q = mapping.transpose(1, 2)[:, None] @ q  # [n, heads, queries, head_size]
        n_q, n_k = q.shape[2], k.shape[2]
        ahead = torch.arange(n_k - n_q, n_k, device=q.device)[:, None] - torch.arange(n_k, device=q.device)
        index = rows.index[ahead + rows.reach - 1]  # [queries, keys]
        products = (q + self.r_r_bias[:, None]) @ self._distance_keys(rows).transpose(-1, -2)
        scores = (q + self.r_w_bias[:, None]) @ k.transpose(-1, -2) * self.spec.scale
        scores = scores + products.gather(-1, index.expand(*q.shape[:2], -1, -1))
        if types is not None:
            scores = scores + self._segment_scores(q + self.r_s_bias[:, None], *types)
        if hidden is not None:
            scores = scores - (HIDDEN if scores.dtype != torch.float16 else 65_500.0) * hidden
        pattern = torch.softmax(scores, -1)
        z = weighted_values(dropout(pattern, self._rate), v)  # [n * queries, heads, head_size]
        z = z.unflatten(0, (q.shape[0], n_q)).flatten(2)  # [n, queries, heads * head_size]
        if mapping is not None:
            z = mapping @ z  # [n, targets, heads * head_size]
        return F.linear(z, self._output_matrix()), pattern

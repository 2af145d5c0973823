"""Attention: one implementation for self and cross, packed, padded and cached, fast and open.

The output always comes from the fast kernel. Where a pattern is asked for, it is computed beside it from the same
queries and keys, so looking never changes the result.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.config.architecture import Attention as Spec
from cutaway.config.architecture import Rotary
from cutaway.nn.activations.taps import Tap
from cutaway.nn.attention_capped import capped_attention
from cutaway.nn.attention_dropout import attention_with_dropout
from cutaway.nn.attention_pattern import CacheLayout, TextLayout, expose_pattern, scores, value_grad_merge
from cutaway.nn.call_context import evaluating
from cutaway.nn.cpu.ops import cross_attention, decode_attention, varlen_attention
from cutaway.nn.distances import DistanceBias, DistanceRows, DistanceScores, chunk_size
from cutaway.nn.exact_fusion import is_bitwise_splittable
from cutaway.nn.head_output import head_output
from cutaway.nn.heads_norm import make_heads_norm
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear, PackedCache, columns, linear_op
from cutaway.nn.lora import call_rows
from cutaway.nn.named_modules import NamedModule, Unhookable
from cutaway.nn.packed_batch import PackedBatch, SharedRows
from cutaway.nn.positions import RelativeBias, bias_of_steps, rotate, rotate_pairs
from cutaway.nn.residual import ResidualAdd
from cutaway.nn.sliding_window import band, stretches


@dataclass
class Context:
    """What all blocks of one stack share during one forward pass.

    Attributes:
        rows: the layout of the tokens that ask.
        stored: how their keys and values lie in a cache, where that is another layout.
        causal: whether a token sees only itself and those before it.
        windows: how far each layer sees, as in the architecture.
        rotaries: how each layer rotates queries and keys by their positions, as in the architecture.
        turns: cosines and sines for the rows, of each of these.
        bias: additive scores [heads, length, length] of a text from its first token, those of each text where hidden
            words are computed and not counted, or for cached steps [batch, heads, n, longest + n]; or None.
        bias_positions: the positions of queries and keys, where each layer makes a bias of its own of them.
        bias_by_step: whether a cached step takes its bias by how far a key is behind its query.
        step_bias: that bias as `RelativeBias.by_step` gives it; None where each layer has its own.
        distances: the vectors of distances, where scores depend on them and on what is asked and seen, or None.
        types: the segment of each token of the rows, where scores depend on it, or None.
        by_count: whether the bias counts tokens, so that words that are hidden between them have no place.
        cache: keys and values of earlier tokens, or None.
        prefill: whether the cache was empty before this pass.
        memory, memory_rows: what cross-attention looks at, [rows, hidden], and its layout.
        shared_rows: which of the rows are computed, where texts share some; blocks are given those alone.
    """

    rows: PackedBatch
    causal: bool
    windows: tuple[int | None, ...] = ()
    rotaries: tuple[Rotary | None, ...] = ()
    turns: dict[Rotary, tuple[Tensor, Tensor]] = field(default_factory=dict)
    bias: Tensor | None = None
    bias_positions: tuple[Tensor, Tensor] | None = None
    bias_by_step: bool = False
    step_bias: Tensor | None = None
    distances: DistanceRows | None = None
    types: Tensor | None = None
    by_count: bool = False
    cache: Cache | None = None
    prefill: bool = True
    memory: Tensor | None = None
    memory_rows: PackedBatch | None = None
    stored: PackedBatch | None = None
    shared_rows: SharedRows | None = None

    def window(self, layer: int) -> int | None:
        return self.windows[layer] if self.windows else None

    def rotation(self, layer: int) -> tuple[Tensor, Tensor] | None:
        rotary = self.rotaries[layer] if self.rotaries else None
        return None if rotary is None else self.turns[rotary]


class Attention(Unhookable, NamedModule):
    """Multi-head attention, with as many key/value heads as the architecture says (Vaswani et al., 2017; grouped:
    Ainslie et al., 2023).
    """

    side_by_side = ("q", "k", "v")  # the layers that `packed` multiplies as one

    def __init__(
        self, spec: Spec, hidden_size: int, interleaved: bool = False, relative: RelativeBias | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.rotate = rotate_pairs if interleaved else rotate
        if relative is not None:
            self.relative = relative
        self.q = Linear(hidden_size, spec.n_heads * spec.head_size, bias=spec.bias)
        self.k = Linear(hidden_size, spec.n_kv_heads * spec.head_size, bias=spec.bias)
        self.v = Linear(hidden_size, spec.n_kv_heads * spec.head_size, bias=spec.bias)
        self.o = Linear(spec.n_heads * spec.head_size, hidden_size, bias=spec.out_bias)
        if spec.norm is not None:
            self.q_norm, self.k_norm = (
                make_heads_norm(spec.norm, n, spec.head_size, spec.norm_over) for n in (spec.n_heads, spec.n_kv_heads)
            )
        if spec.distances is not None:
            self.distances = DistanceScores(spec, hidden_size)
        self.packed = PackedCache()  # queries, keys and values side by side

    def forward(
        self,
        x: Tensor,
        context: Context,
        layer: int,
        tap: Tap | None = None,
        join: ResidualAdd | None = None,
    ) -> Tensor:
        """x: [batch, length, hidden] or packed [rows, hidden]; the result has the same shape.

        With `join`, the result is the stream that attention has joined.
        """
        # queries, keys and values are one product where the packed weight serves
        q, k, v = (self._split(y) for y in self.packed.products((self.q, self.k, self.v), x))
        if self.spec.norm is not None:
            if self.spec.norm_over == "all":
                q, k = (self._split(norm(y.flatten(-2))) for norm, y in ((self.q_norm, q), (self.k_norm, k)))
            else:
                q, k = self.q_norm(q), self.k_norm(k)
        rotation = context.rotation(layer)
        if rotation is not None:
            cos, sin = rotation
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        if tap is not None:
            shown = (("attn.q", q), ("attn.k", k), ("attn.v", v))
            q, k, v = (tap.take_heads(part, y.flatten(0, -3)).view(y.shape) for part, y in shown)
        cache = context.cache
        if context.bias_positions is not None:
            context = replace(context, bias=self.relative(*context.bias_positions))
        # a decode step keeps [batch, n, ...]; whole texts become rows, so that padding takes no part
        if cache is not None and not context.prefill:
            z = self._cached(q, k, v, cache, context, layer, tap)
        else:
            q, k, v = q.flatten(0, -3), k.flatten(0, -3), v.flatten(0, -3)  # [rows, heads, head_size]
            if cache is not None:
                if context.stored is None:
                    cache.store(layer, k, v, context.rows)
                else:
                    cache.store(layer, context.stored.pack_rows(k), context.stored.pack_rows(v), context.stored)
            once = context.shared_rows
            if once is not None:
                q, k, v = (once.spread(y) for y in (q, k, v))
            z = self._groups(q, k, v, context, context.window(layer), tap)
            if once is not None:
                z = once.select(z)
        return self._out(z, x.shape, "attn", tap, join)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.spec.head_size)  # [..., heads, head_size]

    @staticmethod
    def _blocks(x: Tensor, rows: PackedBatch) -> list[Tensor]:
        """[rows, heads, head_size] -> each group's own [n, heads, length, head_size].

        All at once: the gradient of one split is one tensor, that of a slice for each group as many of the full size.
        """
        parts = x.split([g.n * g.length for g in rows.groups] + ([rows.n_filler] if rows.n_filler else []))
        return [
            part.view(g.n, g.length, *x.shape[1:]).transpose(1, 2)  # [n, heads, length, head_size]
            for g, part in zip(rows.groups, parts, strict=False)
        ]

    def _fast(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """The fast kernel on [n, heads, length, head_size]; the result is [n * length, heads, head_size]."""
        dtype = q.dtype
        if self.spec.softcap is not None:
            return capped_attention(q, k, v, mask, causal, self.spec.scale, self.spec.softcap, self._rate)
        # the gradients of this kernel take three times longer in bfloat16 than in float32 on a CPU
        in_float32 = dtype == torch.bfloat16 and q.requires_grad and q.device.type == "cpu"
        if in_float32:
            q, k, v = q.float(), k.float(), v.float()
            mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        with torch.autocast("cpu", enabled=False) if in_float32 else nullcontext():
            if self._rate:
                dropped = attention_with_dropout(q, k, v, mask, causal, self.spec.scale, self._rate)
                if dropped is not None:
                    return dropped.to(dtype)
            z = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=self._rate,
                is_causal=causal and q.shape[2] > 1,
                scale=self.spec.scale,
                enable_gqa=k.shape[1] != q.shape[1],
            )
        return z.transpose(1, 2).flatten(0, 1).to(dtype)  # [n * length, heads, head_size]

    def _near(self, q: Tensor, k: Tensor, v: Tensor, window: int, causal: bool) -> Tensor:
        """As _fast, on one stretch of queries after another, each with the keys that its window reaches."""
        found = [
            self._fast(q[:, :, own], k[:, :, seen], v[:, :, seen], mask, False).unflatten(0, (q.shape[0], -1))
            for own, seen, mask in stretches(q.shape[2], window, causal, q.device)
        ]  # each [n, stretch, heads, head_size]
        return torch.cat(found, 1).flatten(0, 1)  # [n * length, heads, head_size]

    def _by_distance(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scores_of: DistanceBias,
        places: Tensor | None,
        types: Tensor | None,
        mask: Tensor | None,
    ) -> list[Tensor]:
        """As _fast for some texts after others: what distances add to the scores is as large as all scores."""
        size = chunk_size(q.shape[1], q.shape[2])
        outputs = []
        for start in range(0, q.shape[0], size):
            some = slice(start, start + size)
            there = None if places is None else places[some]
            kinds = None if types is None else types[some]
            shown = mask if mask is None or mask.shape[0] == 1 else mask[some]
            added = _with_bias(scores_of(q[some], k[some], there, kinds), shown, False)
            outputs.append(self._fast(q[some], k[some], v[some], added, False))
        return outputs

    def _groups(self, q: Tensor, k: Tensor, v: Tensor, context: Context, window: int | None, tap: Tap | None) -> Tensor:
        """Attention inside each text; q, k, v [rows, heads, head_size] -> [rows, heads, head_size]."""
        open_ = tap is not None and tap.wants("attn.scores", "attn.pattern")
        fast = None
        # first choice: our kernel, all texts in one call; it knows neither a bias nor dropout nor padding that stayed.
        # With words hidden in the middle of a text, the columns beside a token are not its neighbours
        by_place = (context.bias is not None and not context.by_count) or window is not None
        scattered = by_place and context.rows.holes
        own_mask, own_causal, window = dense_mask(context.rows, context.causal, window)
        if own_mask is not None and own_mask.is_floating_point():
            own_mask = own_mask.to(q.dtype)
        plain = context.bias is None and context.distances is None
        if plain and context.rows.key_mask is None and not self._rate and not scattered:
            fast = varlen_attention(q, k, v, context.rows, self.spec.scale, context.causal, window, self.spec.softcap)
            if fast is not None and not open_:
                return fast
        outputs: list[Tensor] = []
        block_scores: list[Tensor] = []
        block_values: list[Tensor] = []
        # else group by group: texts of one length are one unpadded block for torch's kernel
        blocks = (self._blocks(x, context.rows) for x in (q, k, v))
        by_distance = None if context.distances is None else self._distance_bias(context.distances)
        for g, queries, keys, values in zip(context.rows.groups, *blocks, strict=True):
            mask, causal = own_mask, own_causal
            near = window is not None and g.length > window
            if by_distance is not None:
                places = context.rows.group_positions(g) if context.rows.holes else None
                types = None if context.types is None else context.types.flatten()[g.rows].view(g.n, g.length)
                if not open_:
                    outputs += self._by_distance(queries, keys, values, by_distance, places, types, mask)
                    continue
                mask = _with_bias(by_distance(queries, keys, places, types), mask, False)
            elif scattered:
                mask, causal, near = _seen(context.rows.group_positions(g), context.bias, window, causal), False, False
            elif context.bias is not None:
                bias = context.bias if context.bias.dim() == 4 else context.bias[None]
                mask = _with_bias(bias[..., : g.length, : g.length], mask, causal)
                causal = False
            if fast is not None:
                outputs.append(fast[g.rows])
            elif near and window is not None:
                assert mask is None  # a stack with windows has no other bias, and its batches are packed
                outputs.append(self._near(queries, keys, values, window, causal))
            else:
                outputs.append(self._fast(queries, keys, values, mask, causal))
            if open_:  # beside the output, the scores that a pattern is made of
                if near and window is not None:
                    mask = band(g.length, window, causal, q.device)
                elif causal:
                    mask = torch.ones(g.length, g.length, dtype=torch.bool, device=q.device).tril()
                block_scores.append(scores(queries, keys, mask, self.spec.scale, self.spec.softcap))
                block_values.append(values)
        if open_ and tap is not None:
            outputs = expose_pattern(
                "attn", outputs, block_scores, block_values, TextLayout(context.rows), tap, self._rate
            )
        return concat_groups(outputs, context.rows)

    def _cached(
        self, q: Tensor, k: Tensor, v: Tensor, cache: Cache, context: Context, layer: int, tap: Tap | None
    ) -> Tensor:
        """Attention of n new tokens per text, [batch, n, heads, head_size], to those held and to each other."""
        keys, values = cache.append(layer, k, v)
        bias, window = context.bias, context.window(layer)
        by_step = context.step_bias
        if context.bias_by_step and by_step is None:
            by_step = self.relative.by_step()
        open_ = tap is not None and tap.wants("attn.scores", "attn.pattern")
        fast = None
        by_mask = context.rows.key_mask  # what the caller lets each new token see
        if bias is None and by_mask is None and not self._rate:
            fast = decode_attention(q, keys, values, cache, self.spec.scale, window, self.spec.softcap, by_step)
            if fast is not None and not open_:
                return fast
        if by_step is not None:
            bias = bias_of_steps(by_step, cache.distances()).to(q.dtype)
        queries = q.transpose(1, 2)  # [batch, heads, n, head_size]
        mask = cache.mask(window) if by_mask is None else by_mask
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)
        if bias is not None:
            mask = _with_bias(bias, mask, False)
        # torch's kernel reads no column that lies outside of every new token's window
        first = cache.window_start(window) if by_mask is None else 0
        if fast is not None:
            z = fast
        elif first:
            near = None if mask is None or (cache.equal and q.shape[1] == 1) else mask[..., first:]
            z = self._fast(queries, keys[:, :, first:], values[:, :, first:], near, False)
        else:
            z = self._fast(queries, keys, values, mask, False)
        if open_ and tap is not None:
            s = scores(queries, keys, mask, self.spec.scale, self.spec.softcap)
            return expose_pattern("attn", [z], [s], [values], CacheLayout(cache, by_mask is not None), tap, self._rate)[
                0
            ]
        return z

    def _distance_bias(self, rows: DistanceRows) -> DistanceBias:
        """What distances add to this layer's scores."""
        bias: DistanceBias = self.distances(self.q, self.k, rows)
        return bias

    def output_layer(self) -> Linear:
        """The layer that makes the output of all heads' values."""
        return self.o

    @property
    def _rate(self) -> float:
        return self.spec.dropout if self.training and not evaluating() else 0.0

    def _out(self, z: Tensor, shape: torch.Size, prefix: str, tap: Tap | None, join: ResidualAdd | None) -> Tensor:
        """z [rows, heads, head_size] -> the output, in the shape of the input."""
        if tap is not None:
            z = tap.take_heads(f"{prefix}.z", z)
        mixed = z.reshape(*shape[:-1], -1)  # [..., heads * head_size]
        o = self.output_layer()
        if tap is not None:
            out = self._shown(z, mixed, prefix, tap, o)
            if out is not None:
                return out if join is None else join(out)
        return o(mixed) if join is None else linear_op(o).add_residual(mixed, join)

    def _shown(self, z: Tensor, mixed: Tensor, prefix: str, tap: Tap, o: Linear) -> Tensor | None:
        """Show each head's output and their sum; the sum, where the rest must be computed from what was shown."""
        size, heads = self.spec.head_size, tap.heads(prefix)
        parts = [f"{prefix}.head.{h}.out" for h in heads]
        inputs = [slice(h * size, (h + 1) * size) for h in heads]
        if not tap.is_live(f"{prefix}.out", *parts):
            z_kept = tap.snapshot(z) if heads else z
            for h, part, own_inputs in zip(heads, parts, inputs, strict=True):
                tap.record_lazily(part, head_output(o, z_kept, h, own_inputs, tap.rows))
            if not tap.wants(f"{prefix}.out"):
                return None
            out = tap.expose(f"{prefix}.out", o(mixed))
            return out if is_bitwise_splittable(o, mixed) else None
        shown = zip(heads, parts, inputs, strict=True)
        outputs = {h: tap.expose(part, columns(o, z[:, h], at)) for h, part, at in shown}  # [rows, hidden] each
        leading = [h for h, part in zip(heads, parts, strict=True) if tap.is_live(part)]
        if not leading:
            return tap.expose(f"{prefix}.out", o(mixed))
        rest = z.index_fill(1, torch.tensor(leading, device=z.device), 0.0).reshape(mixed.shape)
        heads_sum = torch.stack([outputs[h] for h in leading]).sum(0)  # [rows, hidden]
        out = o(rest) + heads_sum.view(*rest.shape[:-1], -1)  # [..., hidden]
        if not tap.edits(*parts):
            out = value_grad_merge(o(mixed), out)
        return tap.expose(f"{prefix}.out", out)


class CrossAttention(Attention):
    """Attention of a decoder to what the encoder said: queries from the one, keys and values from the other."""

    def forward(
        self,
        x: Tensor,
        context: Context,
        layer: int,
        tap: Tap | None = None,
        join: ResidualAdd | None = None,
    ) -> Tensor:
        """As Attention.forward, with keys and values from context.memory."""
        memory, rows = context.memory, context.memory_rows
        assert memory is not None and rows is not None
        q = self._split(self.q(x)).flatten(0, -3)  # [rows, heads, head_size]
        cache = context.cache
        is_cached = cache is not None and layer in cache.sources
        if cache is not None and is_cached:
            if tap is None:
                z = self._to_source(q, cache.sources[layer], cache.source_rows, context)
                if z is not None:
                    return self._out(z, x.shape, "cross", tap, join)
            k, v = cache.cross[layer]
        else:
            with call_rows(rows):
                made = self.k(memory), self.v(memory)
            # each [batch, heads, length, head_size]
            k, v = (rows.pad(self._split(y).flatten(0, -3)).transpose(1, 2).contiguous() for y in made)
        mask = None if rows.mask is None else rows.mask[:, None, None, :]  # [batch, 1, 1, length]
        if tap is not None:
            q = tap.take_heads("cross.q", q)
            # what is cached is what edits made of it, so they are not made again
            k = tap.expose_padded("cross.k", k.transpose(1, 2), start=0, edit=not is_cached).transpose(1, 2)
            v = tap.expose_padded("cross.v", v.transpose(1, 2), start=0, edit=not is_cached).transpose(1, 2)
        if cache is not None and not is_cached:
            cache.cross[layer] = (k, v)
        open_ = tap is not None and tap.wants("cross.scores", "cross.pattern")
        fast = self._to_source(q, (k, v), None, context)
        if fast is not None and not open_:
            return self._out(fast, x.shape, "cross", tap, join)
        outputs: list[Tensor] = []
        block_scores: list[Tensor] = []
        block_values: list[Tensor] = []
        for g, queries in zip(context.rows.groups, self._blocks(q, context.rows), strict=True):
            own_k, own_v = (k, v) if g.texts is None else (k[g.texts], v[g.texts])
            own_mask = mask if mask is None or g.texts is None else mask[g.texts]
            outputs.append(fast[g.rows] if fast is not None else self._fast(queries, own_k, own_v, own_mask, False))
            if open_:
                block_scores.append(scores(queries, own_k, own_mask, self.spec.scale, self.spec.softcap))
                block_values.append(own_v)
        if open_ and tap is not None:
            outputs = expose_pattern(
                "cross", outputs, block_scores, block_values, TextLayout(context.rows, rows.length), tap, self._rate
            )
        z = concat_groups(outputs, context.rows)
        return self._out(z, x.shape, "cross", tap, join)

    def _to_source(
        self, q: Tensor, source: tuple[Tensor, Tensor], rows: Tensor | None, context: Context
    ) -> Tensor | None:
        """Attention of q [rows, heads, head_size] to keys and values of sources by the kernel, if it serves.

        rows: int64 [batch], the source of each text; None where they stand in the texts' order.
        """
        asking, memory_rows = context.rows, context.memory_rows
        if memory_rows is None or asking.packed or self._rate:
            return None
        queries = q.view(asking.batch, asking.length, *q.shape[1:])  # [batch, n, heads, head_size]
        return cross_attention(queries, *source, memory_rows, rows, self.spec.scale, self.spec.softcap)


def concat_groups(found: list[Tensor], rows: PackedBatch) -> Tensor:
    """The groups' results one after another, and zeros for spare rows: [rows, heads, head_size]."""
    if rows.n_filler:
        found.append(found[0].new_zeros(rows.n_filler, *found[0].shape[1:]))
    return torch.cat(found) if len(found) > 1 else found[0]


def _seen(places: Tensor, bias: Tensor | None, window: int | None, causal: bool) -> Tensor:
    """Which keys each query sees by their places [n, length], or with `bias` [heads, longest, longest] what is added to
    the scores: [n, 1 or heads, length, length].
    """
    ahead = places[:, None] - places[..., None]  # [n, queries, keys]
    seen = ahead <= 0 if causal else torch.ones_like(ahead, dtype=torch.bool)
    if window is not None:
        seen &= ahead.abs() < window
    if bias is None:
        return seen[:, None]
    visible_bias = bias[:, places[..., None], places[:, None]].transpose(0, 1)  # [n, heads, queries, keys]
    return visible_bias.masked_fill(~seen[:, None], -torch.inf)


def _with_bias(bias: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """bias [1, heads, a, b] joined with a boolean mask and causality: [1 or batch, heads, a, b]."""
    if causal:
        seen = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).tril()
        bias = bias.masked_fill(~seen, -torch.inf)
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask


def dense_mask(rows: PackedBatch, causal: bool, window: int | None) -> tuple[Tensor | None, bool, int | None]:
    """(mask, causal, window) of a batch that is not packed: the last two joined with the mask where it has one.

    The mask is [batch, 1 or heads, 1 or length, length]. A query that sees nothing gets zeros.
    """
    mask = rows.key_mask
    if mask is None:
        return mask, causal, window
    if not rows.sees_by_mask:
        if window is not None:
            mask = mask & band(rows.length, window, causal, mask.device)
        elif causal:
            mask = mask & torch.ones(rows.length, rows.length, dtype=torch.bool, device=mask.device).tril()
    return mask, False, None

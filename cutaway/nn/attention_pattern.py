"""Scores and patterns in the open: laid out for the padded batch, shown, changed, and mixed with the values.

The fast kernel's output stays the result. Only where something must follow from a shown pattern (it is edited, or its
gradient may be asked for) is the result computed from the pattern.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from cutaway.nn.activations.taps import Tap
from cutaway.nn.dropout import dropout as drop
from cutaway.nn.kv_cache import Cache
from cutaway.nn.packed_batch import PackedBatch


class Layout(Protocol):
    """Between blocks [n, heads, queries, keys] of equally long texts and the padded batch.

    Attributes:
        lasting: whether laying out gives the same after the pass; what lies padded already gains nothing by waiting.
        may_see_nothing: whether there may be queries to which the mask shows no key.
    """

    lasting: bool
    may_see_nothing: bool

    def lay(self, blocks: list[Tensor]) -> Tensor:
        """The blocks as [batch, heads, queries, keys] of the padded batch; zeros where there is padding."""

    def cut(self, padded: Tensor) -> list[Tensor]:
        """The blocks again; what stands at padding is dropped."""


class TextLayout:
    """Whole texts: each group of `rows` is one block. `keys`: columns of the other text, or None for the same text."""

    def __init__(self, rows: PackedBatch, keys: int | None = None) -> None:
        self.rows, self.keys = rows, keys
        self.may_see_nothing = rows.key_mask is not None and keys is None
        self.lasting = rows.packed
        self.positions = [(row, _as_slice(at)) for row, at in rows.positions_by_text()] if rows.packed else []

    def _block(self, text: int) -> tuple[int, Tensor | slice, Tensor | slice]:
        row, asks = self.positions[text]
        if isinstance(asks, slice):
            return row, asks, asks if self.keys is None else slice(0, self.keys)
        return row, asks[:, None], asks if self.keys is None else torch.arange(self.keys, device=asks.device)

    def lay(self, blocks: list[Tensor]) -> Tensor:
        """As in Layout."""
        rows = self.rows
        if not rows.packed:
            return blocks[0]
        keys = rows.length if self.keys is None else self.keys
        out = blocks[0].new_zeros(rows.batch, blocks[0].shape[1], rows.length, keys)
        for g, block in zip(rows.groups, blocks, strict=True):
            assert g.texts is not None
            for text, of_text in zip(g.texts.tolist(), block, strict=True):
                row, asks, sees = self._block(text)
                out[row][:, asks, sees] = of_text
        return out

    def cut(self, padded: Tensor) -> list[Tensor]:
        """As in Layout."""
        rows = self.rows
        if not rows.packed:
            mask = rows.key_mask
            return [padded if mask is None or mask.dtype != torch.bool or self.keys is not None else padded * mask]
        blocks = []
        for g in rows.groups:
            assert g.texts is not None
            blocks_of_group = []
            for text in g.texts.tolist():
                row, asks, sees = self._block(text)
                blocks_of_group.append(padded[row][:, asks, sees])
            blocks.append(torch.stack(blocks_of_group))
        return blocks


def _as_slice(positions: Tensor) -> Tensor | slice:
    """The same positions, as a slice where they lie together (padding on one side): copying by a slice is cheaper."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first == len(positions) - 1 else positions


class CacheLayout:
    """New tokens after those that a cache holds: one block, whose keys are the cache's own columns."""

    lasting = False  # the cache goes on

    def __init__(self, cache: Cache, by_mask: bool = False) -> None:
        self.cache, self.may_see_nothing = cache, by_mask

    def lay(self, blocks: list[Tensor]) -> Tensor:
        """As in Layout."""
        return self.cache.align(blocks[0])

    def cut(self, padded: Tensor) -> list[Tensor]:
        """As in Layout."""
        return [self.cache.unalign(padded)]


def scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, softcap: float | None = None) -> Tensor:
    """q k^T * scale + mask (Vaswani et al., 2017, eq. 1): q [n, heads, a, d], k [n, kv heads, b, d].

    With `softcap`, the products are bounded by it before the mask: softcap tanh(s / softcap).
    """
    # in place: there are many of them, and no gradient needs what is overwritten
    s = (q @ repeat_kv(k, q.shape[1]).transpose(-1, -2)).mul_(scale)
    if softcap is not None:
        s = s.div_(softcap).tanh() * softcap
    if mask is None:
        return s
    return s.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else s + mask


def softmax_seen(s: Tensor) -> Tensor:
    """The softmax of scores [..., queries, keys]; zeros where a query sees nothing."""
    empty = (s == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(s.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def repeat_kv(x: Tensor, heads: int) -> Tensor:
    """Keys or values [n, kv heads, b, d], once for each query head that shares them."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def weighted_values(pattern: Tensor, values: Tensor) -> Tensor:
    """pattern [n, heads, a, b] times values [n, kv heads, b, d] -> [n * a, heads, d]."""
    return (pattern @ repeat_kv(values, pattern.shape[1])).transpose(1, 2).flatten(0, 1)  # [n * a, heads, d]


def expose_pattern(
    prefix: str,
    fast: list[Tensor],
    seen: list[Tensor],
    values: list[Tensor],
    layout: Layout,
    tap: Tap,
    dropout: float,
) -> list[Tensor]:
    """Show scores and patterns; the result of each block.

    Args:
        prefix: "attn" or "cross". layout: of the blocks in the padded batch. dropout: the rate, 0 in evaluation.
        fast: the kernel's outputs, [n * queries, heads, head_size] each. seen: the scores, [n, heads, queries, keys].
        values: [n, kv heads, keys, head_size].
    """
    if tap.wants(f"{prefix}.scores"):
        shown = _shown(f"{prefix}.scores", seen, layout, tap)
        if tap.is_live(f"{prefix}.scores"):  # what the mask hides stays hidden, whatever the scores become
            hidden = [s == -torch.inf for s in seen]
            seen = [s.masked_fill(h, -torch.inf) for s, h in zip(shown, hidden, strict=True)]
    leads = tap.is_live(f"{prefix}.scores", f"{prefix}.pattern")
    if not leads and not tap.wants(f"{prefix}.pattern"):
        return fast
    certified = tap.sampled(f"{prefix}.pattern") and not dropout and not tap.edits(f"{prefix}.scores")
    if not leads and layout.lasting and tap.wants(f"{prefix}.scores") and not certified:
        tap.record_lazily(f"{prefix}.pattern", partial(_laid_patterns, seen, layout))  # the scores are kept anyway
        return fast
    softmax = softmax_seen if layout.may_see_nothing else partial(torch.softmax, dim=-1)
    patterns = [softmax(s) for s in seen]
    if tap.wants(f"{prefix}.pattern"):
        if certified:
            _certify(f"{prefix}.pattern", fast, patterns, values, tap)
        patterns = _shown(f"{prefix}.pattern", patterns, layout, tap)
    if not leads:
        return fast
    opened = [weighted_values(drop(p, dropout), v) for p, v in zip(patterns, values, strict=True)]
    if dropout or tap.edits(f"{prefix}.scores", f"{prefix}.pattern"):
        return opened
    return [value_grad_merge(f, o) for f, o in zip(fast, opened, strict=True)]


def _shown(part: str, blocks: list[Tensor], layout: Layout, tap: Tap) -> list[Tensor]:
    """The blocks as edits leave them; kept as they are, or laid out where they lead on."""
    if layout.lasting and not tap.is_live(part):
        tap.record_lazily(part, partial(layout.lay, blocks))
        return blocks
    shown = tap.expose_padded(part, layout.lay(blocks), sole_owner=True)
    return layout.cut(shown) if tap.is_live(part) else blocks


def _laid_patterns(seen: list[Tensor], layout: Layout) -> Tensor:
    softmax = softmax_seen if layout.may_see_nothing else partial(torch.softmax, dim=-1)
    return layout.lay([softmax(s) for s in seen])


def value_grad_merge(numbers: Tensor, graph: Tensor) -> Tensor:
    """The numbers of the one way and the gradients of the other, of two ways to compute one thing."""
    return numbers.detach() + (graph - graph.detach())


def _certify(part: str, fast: list[Tensor], patterns: list[Tensor], values: list[Tensor], tap: Tap) -> None:
    heads = patterns[0].shape[1]
    head = tap.taps.sampled_head(heads)
    with torch.no_grad():
        kv_head = head * values[0].shape[1] // heads
        pairs = zip(patterns, values, strict=True)
        found = torch.cat([weighted_values(p[:, head : head + 1], v[:, kv_head : kv_head + 1]) for p, v in pairs])
        tap.taps.check_pattern(tap.prefix + part, head, found[:, 0], torch.cat([f[:, head] for f in fast]))

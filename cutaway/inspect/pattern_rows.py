"""The attention of a long text a part at a time: from queries and keys that are kept, where patterns would not fit.

A text of L tokens has L x L weights for each head: of 4,096 tokens, SmolLM2's 270 heads hold 18 GB of them, and their
queries and keys 0.4 GB. A row of a pattern needs one query and all keys, so any part is computed when it is looked at.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.config.architecture import Alibi, Relative
from cutaway.errors import InputError
from cutaway.inspect.explanation import AttentionCheck
from cutaway.inspect.measures import Array
from cutaway.inspect.tower import StackHandle, tower_of
from cutaway.nn.attention_pattern import scores, weighted_values

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.nn.activations.recorder import Recorder
    from cutaway.nn.attention import Attention as AttentionModule

Kind = Literal["self", "encoder", "decoder", "cross"]
AT_ONCE = 1 << 21  # weights that are computed at a time
MOST_WHOLE = 1 << 22  # numbers of a head that was looked at from afar, which views from farther are made of
LEAST_SQUARE = 4  # rows and columns of a square of those
STRIPS = 3  # of rows with all their columns, which are kept: one looks at those that stand side by side
SAMPLE = 128  # rows by which heads are summed up


@dataclass(frozen=True)
class HeadSummary:
    """Numbers of all heads, from some of their rows that lie evenly apart.

    Attributes:
        measures: as `cutaway.inspect.measures` has them, [layers, heads] each. rows: how many there were.
        pictures: [layers, heads, n, n], the largest weight of each part of the pattern that these rows reach.
        finite: whether all weights are numbers.
    """

    measures: dict[str, Array]
    rows: int
    pictures: Array
    finite: bool


@dataclass
class PatternRows:
    """One kind of attention of one text, any part of any head's pattern.

    Attributes:
        q: [heads, Lq, head_size], k: [kv heads, Lk, head_size], of each layer, as they enter the scores.
        check: how far weights times values are from the fast kernel's output, for one head of one layer.
    """

    tower: StackHandle
    kind: Kind
    q: list[Tensor]
    k: list[Tensor]
    check: AttentionCheck = field(init=False)
    # {(layer, head, first row, last row, every): [rows / every, Lk / every]}, what was computed last
    _strips: OrderedDict[tuple[int, int, int, int, int], Tensor] = field(init=False, default_factory=OrderedDict)

    @classmethod
    def of(cls, model: LanguageModel, kind: Kind, recorded: Recorder) -> PatternRows:
        """From what `model.record(*places_of(model, kind))` kept of one text."""
        tower, part = _tower(model, kind), "cross" if kind == "cross" else "attn"
        q, k = ([_heads(recorded[place]) for place in tower.layers(f"{part}.{name}")] for name in ("q", "k"))
        found = cls(tower, kind, q, k)
        layer = _checked_layer(tower.spec.n_layers)
        v, z = (_heads(recorded[tower.at(f"blocks.{layer}.{part}.{name}")]) for name in ("v", "z"))
        found.check = found._checked(layer, v, z)
        return found

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(layers, heads, Lq, Lk)"""
        return len(self.q), *self.q[0].shape[:2], self.k[0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self.q, *self.k))

    def part(self, layer: int, head: int, rows: slice, columns: slice, every: int = 1) -> Array:
        """The weights of these rows and columns; with `every`, the largest of each square of so many rows and columns.

        Returns:
            [rows / every, columns / every], both rounded up.
        """
        _, _, n_rows, n_columns = self.shape
        square = LEAST_SQUARE
        while _up(n_rows, square) * _up(n_columns, square) > MOST_WHOLE:
            square *= 2
        ends = (rows.stop, n_rows), (columns.stop, n_columns)
        aligned = all(start % every == 0 for start in (rows.start, columns.start)) and all(
            stop in (size, stop // every * every) for stop, size in ends
        )
        if aligned and every % square == 0:  # of the whole head, which the next view from afar needs too
            strip = self._strip(layer, head, slice(0, n_rows), square)
            near = (slice(part.start // square, _up(part.stop, square)) for part in (rows, columns))
            return np.asarray(pooled(strip[tuple(near)], every // square).numpy())
        if aligned and _up(rows.stop - rows.start, every) * _up(n_columns, every) <= MOST_WHOLE:
            strip = self._strip(layer, head, rows, every)
            return np.asarray(strip[:, columns.start // every : _up(columns.stop, every)].numpy())
        squares = torch.zeros(_up(rows.stop - rows.start, every), _up(columns.stop - columns.start, every))
        for first, weights in self._lots(layer, head, rows, every):
            part = pooled(weights[:, columns], every)
            squares[first : first + len(part), : part.shape[1]] = part
        return np.asarray(squares.numpy())

    def _strip(self, layer: int, head: int, rows: slice, every: int) -> Tensor:
        """The largest of each square of these rows, [rows / every, Lk / every], both rounded up."""
        key = layer, head, rows.start, rows.stop, every
        kept = self._strips.pop(key, None)
        if kept is None:
            kept = torch.zeros(_up(rows.stop - rows.start, every), _up(self.shape[3], every))
            for first, weights in self._lots(layer, head, rows, every):
                part = pooled(weights, every)
                kept[first : first + len(part), : part.shape[1]] = part
        if rows.stop - rows.start > 1:  # a row alone costs as good as nothing
            self._strips[key] = kept
        while len(self._strips) > STRIPS:
            self._strips.popitem(last=False)
        return kept

    def _lots(self, layer: int, head: int, rows: slice, every: int) -> Iterator[tuple[int, Tensor]]:
        """The rows in parts of whole squares: the number of the first square of each, and its weights [n, keys]."""
        lot = max(AT_ONCE // self.shape[3] // every, 1) * every
        for start in range(rows.start, rows.stop, lot):
            places = torch.arange(start, min(start + lot, rows.stop))
            yield (start - rows.start) // every, self._weights(layer, places, head)[0]

    def summary(self, words: tuple[list[int], list[int]], pixels: int) -> HeadSummary:
        """All heads by some of their rows; `words`: the rows and the columns that are words of the text."""
        _, _, n_rows, n_columns = self.shape
        places = torch.linspace(0, n_rows - 1, min(n_rows, SAMPLE)).round().long()
        of_words = torch.zeros(n_rows, dtype=torch.bool).index_fill(0, torch.tensor(words[0], dtype=torch.long), True)
        hidden = torch.ones(n_columns, dtype=torch.bool).index_fill(0, torch.tensor(words[1], dtype=torch.long), False)
        apart = (torch.arange(n_columns) - places[:, None]).abs()  # [rows, Lk]
        same = self.kind != "cross"
        measured: dict[str, list[Tensor]] = {
            name: [] for name in ("entropy", "focus", "distance") if same or name != "distance"
        }
        pictures, finite = [], True
        for layer in range(len(self.q)):
            q, k = self.q[layer][:, places], self.k[layer]
            p = rows_of(self.tower, self.kind, layer, q, k, places)  # [heads, rows, Lk]
            finite = finite and bool(p.sum().isfinite())
            pictures.append(F.adaptive_max_pool2d(p, pixels))
            measured["entropy"].append(-torch.special.xlogy(p, p).sum(-1).mean(-1) / np.log(2.0))
            if same:
                measured["distance"].append((p * apart).sum(-1).mean(-1))
            asked = of_words[places]
            far = p[:, asked].masked_fill_(hidden | (apart[asked] <= 1) if same else hidden, 0.0)
            measured["focus"].append(far.amax(-1).mean(-1) if bool(asked.any()) else p.new_zeros(len(p)))
        numbers = {name: np.asarray(torch.stack(by_layer).float().numpy()) for name, by_layer in measured.items()}
        return HeadSummary(numbers, len(places), np.asarray(torch.stack(pictures).numpy()), finite)

    def _weights(self, layer: int, places: Tensor, head: int) -> Tensor:
        """The rows `places` [n], in order, of one head: [1, n, keys up to the last that any of them sees]."""
        causal = self.kind != "cross" and self.tower.spec.causal
        k = self.k[layer][:, : int(places[-1]) + 1] if causal else self.k[layer]
        return rows_of(self.tower, self.kind, layer, self.q[layer][:, places], k, places, head)

    def _checked(self, layer: int, v: Tensor, z: Tensor) -> AttentionCheck:
        """v [kv heads, Lk, head_size], z [heads, Lq, head_size] of the layer."""
        heads, length = z.shape[:2]
        head = random.Random(length).randrange(heads)
        places = torch.linspace(0, length - 1, min(length, SAMPLE)).round().long()
        of_keys = head * len(v) // heads
        weights = self._weights(layer, places, head)  # [1, rows, keys]
        of_head = v[None, of_keys : of_keys + 1, : weights.shape[-1]]  # [1, 1, keys, head_size]
        opened = weighted_values(weights[None].to(v), of_head)
        want = z[head, places]
        error = (opened[:, 0] - want).abs().max() / want.abs().max().clamp(min=1e-30)
        part = "cross" if self.kind == "cross" else "attn"
        return AttentionCheck(self.tower.at(f"blocks.{layer}.{part}.pattern"), head, float(error))


def places_of(model: LanguageModel, kind: Kind) -> list[str]:
    """The addresses that `PatternRows` is made of.

    Raises:
        InputError: scores that depend on the distance of each pair of words (DeBERTa), of which a row needs them all.
    """
    tower, part = _tower(model, kind), "cross" if kind == "cross" else "attn"
    if kind != "cross" and tower.spec.attention.distances is not None:
        raise InputError(
            f"{type(model).__name__} compares every distance with every word; its patterns are made whole, of texts "
            "that are short enough to keep them."
        )
    checked = [tower.at(f"blocks.{_checked_layer(tower.spec.n_layers)}.{part}.{name}") for name in ("v", "z")]
    return [*tower.layers(f"{part}.q"), *tower.layers(f"{part}.k"), *checked]


@torch.inference_mode()
def rows_of(
    tower: StackHandle, kind: Kind, layer: int, q: Tensor, k: Tensor, places: Tensor, head: int | None = None
) -> Tensor:
    """Rows of a layer's pattern [1 or heads, n, Lk]: of one head, or of all.

    Args:
        q: [heads, n, head_size], the queries at `places` [n]. k: [kv heads, Lk, head_size], the keys of the text from
            its first token on; both as they enter the scores.
    """
    heads = slice(0, len(q))
    if head is not None:
        of_keys = head * len(k) // len(q)
        heads, k = slice(head, head + 1), k[of_keys : of_keys + 1]
    mask = None if kind == "cross" else _mask(tower, layer, places, k, heads)
    spec = _module(tower, kind, layer).spec
    s = scores(q[None, heads], k[None], mask, spec.scale, spec.softcap)
    return torch.softmax(s, -1)[0].float()


def _mask(tower: StackHandle, layer: int, places: Tensor, k: Tensor, heads: slice) -> Tensor | None:
    """What each row sees, or what is added to its scores: [1 or heads, n, Lk]; None where all sees all."""
    spec, stack = tower.spec, tower.stack
    keys = torch.arange(k.shape[1])
    window = spec.windows[layer] if spec.windows else None
    seen = keys <= places[:, None] if spec.causal else None  # [n, Lk]
    if window is not None:
        near = (keys - places[:, None]).abs() < window
        seen = near if seen is None else seen & near
    bias: Tensor | None = None
    if isinstance(spec.positions, Relative):
        table = _module(tower, "self", layer).relative if spec.positions.per_layer else stack.relative
        bias = table(places, keys)[heads]
    elif isinstance(spec.positions, Alibi):
        bias = stack.alibi(places, keys, k.dtype)[heads]
    if bias is None:
        return None if seen is None else seen[None]
    return bias if seen is None else bias.masked_fill(~seen, -torch.inf)


def _module(tower: StackHandle, kind: Kind, layer: int) -> AttentionModule:
    block = tower.block(layer)
    module: AttentionModule = block.cross if kind == "cross" else block.attn
    return module


def _up(count: int, every: int) -> int:
    """How many squares of `every` hold so many."""
    return -(-max(count, 0) // every)


def pooled(weights: Tensor, every: int) -> Tensor:
    """The largest of each square of `every` rows and columns: [..., rows, columns], both divided and rounded up."""
    if every == 1:
        return weights
    rows, columns = (-size % every for size in weights.shape[-2:])
    if rows or columns:
        weights = F.pad(weights, (0, columns, 0, rows), value=-torch.inf)
    # rows first: whole lines are compared, several times as fast as squares
    n, m = (size // every for size in weights.shape[-2:])
    weights = weights.reshape(*weights.shape[:-2], n, every, -1).amax(-2)  # [..., rows / every, columns]
    return weights.reshape(*weights.shape[:-1], m, every).amax(-1)  # [..., rows / every, columns / every]


def _tower(model: LanguageModel, kind: Kind) -> StackHandle:
    return tower_of(model, {"self": None, "cross": "decoder"}.get(kind, kind))


def _checked_layer(layers: int) -> int:
    """The layer that is checked: the middle one."""
    return layers // 2


def _heads(recorded: Tensor) -> Tensor:
    """[1, L, heads, head_size] -> [heads, L, head_size]"""
    return recorded[0].transpose(0, 1).contiguous()

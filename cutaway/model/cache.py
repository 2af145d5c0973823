"""The keys and values of tokens already seen, so that the next token costs one row.

Texts of a batch may differ in length: padding is left out when the prompt is stored, so text b holds its first
`lengths[b]` places, and what lies beyond is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.model.rows import Rows

_GROW = 64


class Cache:
    """Keys and values of every layer, [batch, n_kv_heads, capacity, head_size] each.

    Attributes:
        lengths: [batch] int64, tokens held per text.
        columns: [batch, seen] bool or None: which columns of the padded input were real tokens (None: all).
    """

    def __init__(self) -> None:
        self.keys: list[Tensor | None] = []
        self.values: list[Tensor | None] = []
        self.cross: dict[int, tuple[Tensor, Tensor]] = {}
        self.memory_mask: Tensor | None = None
        self.lengths: Tensor = torch.zeros(0, dtype=torch.int64)
        self.columns: Tensor | None = None
        self.longest = 0  # max(lengths) as a Python int: reading it costs no synchronization
        self.equal = True

    @property
    def empty(self) -> bool:
        return self.longest == 0

    @property
    def seen(self) -> int:
        """Columns of the padded input that are held, padding included."""
        return self.longest if self.columns is None else self.columns.shape[1]

    def get_seq_length(self) -> int:
        """Tokens held by the longest text."""
        return self.longest

    def reserve(self, layers: int) -> None:
        while len(self.keys) < layers:
            self.keys.append(None)
            self.values.append(None)

    def _room(self, layer: int, like: Tensor, batch: int, longest: int) -> tuple[Tensor, Tensor]:
        """This layer's buffers with room for `longest` tokens; like: [..., n_kv_heads, head_size]."""
        self.reserve(layer + 1)
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None or keys.shape[2] < longest:
            capacity = longest + max(_GROW, longest // 2)
            new_keys = like.new_zeros(batch, like.shape[-2], capacity, like.shape[-1])
            new_values = torch.zeros_like(new_keys)
            if keys is not None and values is not None:
                new_keys[:, :, : keys.shape[2]] = keys
                new_values[:, :, : values.shape[2]] = values
            keys, values = new_keys, new_values
            self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def store(self, layer: int, k: Tensor, v: Tensor, rows: Rows) -> None:
        """The prompt's keys and values, k and v [rows, n_kv_heads, head_size], into an empty cache."""
        keys, values = self._room(layer, k, rows.batch, rows.length)
        for g in rows.groups:
            where = slice(None) if g.texts is None else g.texts
            for buffer, x in ((keys, k), (values, v)):
                block = x[g.rows].view(g.n, g.length, *x.shape[1:])  # [n, length, n_kv_heads, head_size]
                buffer[where, :, : g.length] = block.transpose(1, 2).detach()

    def append(self, layer: int, k: Tensor, v: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Add n tokens per text; k and v [batch, n, n_kv_heads, head_size].

        Returns views [batch, n_kv_heads, longest + n, head_size].
        """
        longest = self.longest + n
        keys, values = self._room(layer, k, k.shape[0], longest)
        if self.equal:
            keys[:, :, self.longest : longest] = k.transpose(1, 2)
            values[:, :, self.longest : longest] = v.transpose(1, 2)
        else:
            texts = torch.arange(k.shape[0], device=k.device)[:, None]
            places = self.lengths[:, None] + torch.arange(n, device=k.device)  # [batch, n]
            keys[texts, :, places] = k
            values[texts, :, places] = v
        return keys[:, :, :longest], values[:, :, :longest]

    def mask(self, n: int, device: torch.device, window: int | None = None) -> Tensor | None:
        """[batch, 1, n, longest + n] bool: which held or new tokens each of n new tokens may see. None: all of them.

        With a window, a token sees that many, itself included.
        """
        if self.equal and n == 1 and (window is None or self.longest < window):
            return None
        places = (self.lengths[:, None] + torch.arange(n, device=device))[..., None]  # [batch, n, 1]
        keys = torch.arange(self.longest + n, device=device)
        seen = keys <= places
        if window is not None:
            seen &= keys > places - window
        return seen[:, None]  # [batch, 1, n, longest + n]

    def first(self, window: int | None) -> int:
        """The first held token that any new one may see."""
        return max(0, self.longest + 1 - window) if window is not None and self.equal else 0

    def begin(self, rows: Rows, device: torch.device) -> None:
        """Note the lengths of the prompt that was just stored."""
        self.lengths = torch.tensor(rows.lengths, dtype=torch.int64, device=device)
        self.longest = max(rows.lengths, default=0)
        self.equal = len(set(rows.lengths)) <= 1
        self.columns = rows.mask

    def advance(self, n: int) -> None:
        """Note that n tokens were appended to every text."""
        self.lengths = self.lengths + n
        self.longest += n
        if self.columns is not None:
            self.columns = torch.nn.functional.pad(self.columns, (0, n), value=True)

    def align(self, pattern: Tensor) -> Tensor:
        """Attention of n new tokens [batch, heads, n, longest + n] -> over the padded input's columns and theirs."""
        if self.columns is None:
            return pattern
        n = pattern.shape[2]
        columns = torch.nn.functional.pad(self.columns, (0, n), value=True)  # [batch, seen + n]; not advanced yet
        out = pattern.new_zeros(*pattern.shape[:3], columns.shape[1])
        for b, real in enumerate(columns):
            out[b, :, :, real] = pattern[b, :, :, : int(self.lengths[b]) + n]
        return out

    def unalign(self, pattern: Tensor) -> Tensor:
        """What `align` was given, from what it gave; zeros beyond each text's own tokens."""
        if self.columns is None:
            return pattern
        n = pattern.shape[2]
        columns = torch.nn.functional.pad(self.columns, (0, n), value=True)  # [batch, seen + n]; not advanced yet
        out = pattern.new_zeros(*pattern.shape[:3], self.longest + n)
        for b, real in enumerate(columns):
            out[b, :, :, : int(self.lengths[b]) + n] = pattern[b, :, :, real]
        return out

    def select(self, index: Tensor) -> None:
        """Keep the texts `index` [kept], in that order; an index may repeat."""
        for held in (self.keys, self.values):
            for i, x in enumerate(held):
                held[i] = None if x is None else x[index]
        self.cross = {i: (k[index], v[index]) for i, (k, v) in self.cross.items()}
        self.lengths = self.lengths[index]
        self.columns = None if self.columns is None else self.columns[index]
        self.memory_mask = None if self.memory_mask is None else self.memory_mask[index]
        lengths = self.lengths.tolist()
        self.longest = max(lengths, default=0)
        self.equal = len(set(lengths)) <= 1

    def crop(self, n: int) -> None:
        """Forget all but the first n tokens of every text."""
        self.lengths = self.lengths.clamp(max=n)
        lengths = self.lengths.tolist()
        self.longest = max(lengths, default=0)
        self.equal = len(set(lengths)) <= 1
        if self.columns is not None:
            self.columns = self.columns & (self.columns.cumsum(1) <= n)

"""The keys and values of tokens already seen, so that the next token costs one row.

One buffer holds all layers. Texts of a batch may differ in length: padding is left out when the prompt is stored, and
every text ends in the same column, so that a new token of each is written by one copy that moves nothing else. What
lies before a text's first token is zero and hidden by the mask.

A pass of the model writes inside one block, `with cache.appending(rows, layers):`. The first pass hands `store` the
prompt of each layer, later passes hand `append` the new tokens. They count as held when the block ends; where it fails,
the cache holds what it held before.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cutaway.config.config import PretrainedConfig
from cutaway.errors import CheckpointError, InputError
from cutaway.jsonfile import write_aside
from cutaway.nn.cache_face import CacheFace
from cutaway.nn.cached_inputs import CachedInputs
from cutaway.nn.cpu.ops import append_kv
from cutaway.nn.packed_batch import PackedBatch

_GROW = 64
_NEEDLESS = ("offload_only_non_sliding", "max_batch_size", "device", "dtype", "_distributed_cache_data")
_FORMAT = "cutaway_cache"  # the metadata key of a saved cache: the tokens that it holds, or null
_ADAPTERS = "cutaway_adapters"  # the same of `Cache.adapters`; files of earlier versions lack it
_SOURCES = "cutaway_source_ids"  # the same of `Cache.source_ids`


class Cache(CacheFace):
    """Keys and values of every layer.

    Attributes:
        lengths: [batch] int64, tokens held per text; text b holds the columns longest - lengths[b] .. longest - 1.
        columns: [batch, seen] bool or None: which columns of the padded input were real tokens (None: all).
        cross: {layer: keys and values of the encoder's text, [batch, n_kv_heads, source length, head_size] each}.
        ids: the tokens held, per text, where whoever filled the cache has noted them; None where nobody has.
        source_ids: what `cross` was computed from, per text: the ids that the encoder read, -1 where its mask hid one;
            None where nobody has noted them.
        adapters: the adapter under which each text was read (None: the base alone); None where nobody has noted it.
        inputs: what entered the first block, where a token's keys depend on how long its text is; else None.
    """

    def __init__(
        self,
        ddp_cache_data: Iterable[Sequence[Any]] | PretrainedConfig | None = None,
        config: object = None,
        **options: object,
    ) -> None:
        if isinstance(ddp_cache_data, PretrainedConfig):
            ddp_cache_data = None  # a config, wherever it stands, says nothing that the model does not say itself
        if wrong := [name for name, value in options.items() if name not in _NEEDLESS and value]:
            raise InputError(f"Cache takes no {wrong[0]}: it lies where the model is, and grows by itself.")
        self.n_layers = 0
        # [2 * layers, batch or more, n_kv_heads, capacity, head_size]: keys 2i, values 2i + 1
        self._held: Tensor | None = None
        # int64 [batch, capacity]: the row of `_held` that has each column of each text; None where a text has its own
        self._origins: Tensor | None = None
        self._cross: dict[int, tuple[Tensor, Tensor]] = {}
        self._source_rows: Tensor | None = None  # int64 [batch]: the row of `_cross` of each text; None as for origins
        self.lengths: Tensor = torch.zeros(0, dtype=torch.int64)
        self.columns: Tensor | None = None
        self.ids: list[list[int]] | None = None
        self.source_ids: list[list[int]] | None = None
        self.adapters: tuple[str | None, ...] | None = None
        self.inputs: CachedInputs | None = None
        # [batch, longest]: the position in its text of what each column holds, -1 before the text; None where no text
        # has a hidden word in the middle, so that the columns tell the positions
        self._positions: Tensor | None = None
        self.longest = 0  # max(lengths) as a Python int: reading it costs no synchronization
        self.equal = True
        self._new = 0  # tokens per text that the pass now running adds
        self._end = ctypes.c_int64()  # longest + new, where the kernels read it
        self._views: tuple[Tensor, ...] = ()  # 2 * layers times [batch, n_kv_heads, longest + new, head_size]
        self._masks: dict[int | None, Tensor | None] = {}  # by window
        self._first_visible: Tensor | None = None
        self._before = 0  # tokens per text before the pass that `update` is now given
        if ddp_cache_data is not None:
            self.take_layers(ddp_cache_data)

    @property
    def buffer(self) -> Tensor | None:
        """[2 * layers, batch, n_kv_heads, capacity, head_size], keys 2i and values 2i + 1; each text in its own row."""
        if self._origins is not None:
            self._gather()
        return self._held

    @buffer.setter
    def buffer(self, buffer: Tensor | None) -> None:
        self._held, self._origins = buffer, None

    @property
    def cross(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values of each text's source by layer."""
        rows = self._source_rows
        if rows is not None:
            self._cross, self._source_rows = {i: (k[rows], v[rows]) for i, (k, v) in self._cross.items()}, None
        return self._cross

    @cross.setter
    def cross(self, cross: dict[int, tuple[Tensor, Tensor]]) -> None:
        self._cross, self._source_rows = cross, None

    @property
    def sources(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values of the sources by layer, [sources, n_kv_heads, source length, head_size] each."""
        return self._cross

    @property
    def source_rows(self) -> Tensor | None:
        """[batch] int64, which of `sources` each text has, since beams share one; None where text t has source t."""
        return self._source_rows

    @property
    def buffer_and_origins(self) -> tuple[Tensor | None, Tensor | None]:
        """(buffer, origins): the buffer, whose rows beams may share, and which row has each column [batch, capacity].

        Origins are None where each text has a row of its own. It is for who can read them; `buffer` is for all others.
        """
        return self._held, self._origins

    def _gather(self) -> None:
        """Give each text a row of its own again."""
        held, origins = self._held, self._origins
        assert held is not None and origins is not None
        shape = list(held.shape)
        shape[1] = len(origins)
        self._held, self._origins = held.new_empty(shape), None
        columns = torch.arange(self.longest, device=held.device)
        for old, new in zip(held, self._held, strict=True):  # [rows, n_kv_heads, capacity, head_size]
            new[:, :, : self.longest] = old[origins[:, : self.longest], :, columns].transpose(1, 2)

    @property
    def empty(self) -> bool:
        return self.longest == 0

    @property
    def seen(self) -> int:
        """Columns of the padded input that are held, padding included."""
        return self.longest if self.columns is None else self.columns.shape[1]

    @property
    def batch(self) -> int:
        return self.lengths.shape[0]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Layers, key/value heads and head size."""
        return (self.n_layers, *((0, 0) if self._held is None else (self._held.shape[2], self._held.shape[4])))

    @property
    def scattered(self) -> bool:
        """Whether a text has hidden words between those that are held, so that columns do not tell distances."""
        return self._positions is not None

    def ends(self) -> Tensor:
        """[batch] int64: the position in its own text that each text's next token takes."""
        return self.lengths if self._positions is None else self._positions[:, -1] + 1

    @property
    def end(self) -> int:
        """The largest of `ends`."""
        return self.longest if self._positions is None else int(self._positions[:, -1].max()) + 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of the input that are held, padding included: where a loop of one's own goes on."""
        return self.seen

    def padded(self, x: Tensor) -> Tensor:
        """x [batch, n_kv_heads, capacity, head_size] of the buffer, in the columns of the padded input."""
        held = x[:, :, : self.longest]
        if self.columns is None:
            return held
        out = held.new_zeros(*held.shape[:2], self.seen, held.shape[3])
        for b, real in enumerate(self.columns):
            out[b, :, real] = held[b, :, self.longest - int(self.lengths[b]) :]
        return out

    @contextmanager
    def appending(self, rows: PackedBatch, layers: int) -> Iterator[None]:
        """One pass of the model over new tokens, `rows.length` of each text (of an empty cache: the whole prompt).

        Inside, `store` or `append` takes the keys and values of each of the `layers` layers. Where the block fails, the
        cache holds what it held before.
        """
        if not self.empty:
            self._prepare(rows.length)
            yield
            self._commit()
            return
        before = dict(self.cross)
        self.n_layers, self.buffer = layers, None
        try:
            yield
        except BaseException:
            self.buffer, self.cross = None, before
            raise
        self._finish_prefill(rows)

    def _grow(self, like: Tensor, batch: int, columns: int) -> Tensor:
        """The buffer, as it lies, with room for `columns` tokens; like: [..., n_kv_heads, head_size]."""
        old = self._held
        if old is None or old.shape[3] < columns:
            capacity, rows = self._capacity(columns), batch if old is None else old.shape[1]
            self._held = like.new_empty(2 * self.n_layers, rows, like.shape[-2], capacity, like.shape[-1])
            if old is None:
                self._held[:, :, :, :columns] = 0
            else:
                self._held[:, :, :, : self.longest] = old[:, :, :, : self.longest]
            if self._origins is not None:
                numbers = torch.arange(len(self._origins), device=like.device)[:, None]
                grown = numbers.repeat(1, capacity)
                grown[:, : self.longest] = self._origins[:, : self.longest]
                self._origins = grown
        return self._held  # type: ignore[return-value]

    def _capacity(self, columns: int) -> int:
        """How many columns a buffer gets that must hold `columns`."""
        return columns + max(_GROW, columns // 2)

    def store(self, layer: int, k: Tensor, v: Tensor, rows: PackedBatch) -> None:
        """Put in the prompt's keys and values of one layer, k and v [rows, n_kv_heads, head_size]."""
        longest = max(rows.lengths)
        buffer = self._grow(k, rows.batch, longest)
        if rows.groups[0].n == rows.batch and rows.groups[0].texts is None:  # all as long, in their order
            self._end.value = longest
            same, near = rows.groups[0].rows, (rows.batch, longest, *k.shape[1:])
            new_k, new_v = k[same].view(near), v[same].view(near)  # [batch, n, n_kv_heads, head_size]
            keys, values = buffer[2 * layer, :, :, :longest], buffer[2 * layer + 1, :, :, :longest]
            if append_kv(new_k, new_v, keys, values, self):
                return
        for g in rows.groups:
            where = slice(None) if g.texts is None else g.texts
            for columns, x in ((buffer[2 * layer], k), (buffer[2 * layer + 1], v)):
                block = x[g.rows].view(g.n, g.length, *x.shape[1:])  # [n, length, n_kv_heads, head_size]
                columns[where, :, longest - g.length : longest] = block.transpose(1, 2).detach()

    def rows(self) -> PackedBatch:
        """The layout of the texts that are held, for running them again."""
        rows = PackedBatch(self.batch, self.seen, self.columns)
        device = self.lengths.device
        positions = torch.arange(self.longest, device=device).expand(self.batch, -1)
        if self._positions is not None:
            positions = self._positions
        elif not self.equal:
            positions = positions - (self.longest - self.lengths)[:, None]
        rows.set_positions(self.packed(positions, rows))
        return rows

    def packed(self, x: Tensor, rows: PackedBatch) -> Tensor:
        """x [batch, longest, ...], in the cache's columns, as `rows` lie."""
        if rows.index is None:
            return x
        end = self.longest
        parts = [x[g.texts, end - g.length : end].flatten(0, 1) for g in rows.groups]
        if rows.n_filler:
            parts.append(parts[-1][-1:].expand(rows.n_filler, *x.shape[2:]))
        return torch.cat(parts)

    def replace(self, other: Cache) -> None:
        """Take over the keys and values that `other` holds of the same texts."""
        assert self.buffer is not None and other.buffer is not None
        self.buffer[:, :, :, : self.longest] = other.buffer[:, :, :, : self.longest]

    def _prepare(self, n: int) -> None:
        """Make room for n new tokens per text, in every layer at once."""
        end = self.longest + n
        assert self._held is not None
        self._grow(self._held[..., 0, :], self.batch, end)
        self._end.value = end
        self._views = ()
        self._new = n
        self._masks.clear()

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the new tokens of one layer; k and v [batch, n, n_kv_heads, head_size], n as in `appending`.

        Returns [batch, n_kv_heads, longest + n, head_size] each: views of the buffer, or copies where gradients flow.
        """
        if not self._views:
            assert self.buffer is not None
            self._views = self.buffer[:, :, :, : self._end.value].unbind(0)
        keys, values = self._views[2 * layer : 2 * layer + 2]
        if k.requires_grad and torch.is_grad_enabled():
            old = (x[:, :, : self.longest] for x in (keys, values))
            both = tuple(torch.cat((x, y.transpose(1, 2)), 2) for x, y in zip(old, (k, v), strict=True))
            self._put(k.detach(), v.detach(), keys, values)
            return both[0].clone(), both[1].clone()
        if not append_kv(k, v, keys, values, self):
            self._put(k, v, keys, values)
        return keys, values

    def _put(self, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> None:
        for columns, x in ((keys, k), (values, v)):
            columns[:, :, self.longest :].copy_(x.transpose(1, 2))

    def mask(self, window: int | None = None) -> Tensor | None:
        """[batch, 1, n, longest + n], 0 where a new token may see and -inf where not; None where it may see all.

        With a window, a token sees that many, itself included.
        """
        if window not in self._masks:
            self._masks[window] = self._visible(window)
        return self._masks[window]

    @property
    def end_at(self) -> int:
        """The address of an int64: the columns that are held, those of the pass now running included."""
        return ctypes.addressof(self._end)

    @property
    def n_columns(self) -> int:
        """The columns that are held, those of the pass now running included."""
        return self._end.value

    def first_visible(self) -> Tensor | None:
        """[batch] int64, the first column of each text; None where all begin in the first."""
        if self._first_visible is None and not self.equal:
            self._first_visible = self.longest - self.lengths
        return self._first_visible

    def window_start(self, window: int | None) -> int:
        """The first column that any new token may see."""
        return max(0, self.longest + 1 - window) if window is not None and self._positions is None else 0

    def positions(self) -> Tensor:
        """[batch or 1, longest + n]: the position in its text of what each column holds, below 0 before the text."""
        if self._positions is not None:
            return torch.cat((self._positions, self._new_positions()), 1)
        columns = torch.arange(self.longest + self._new, device=self.lengths.device)
        return columns[None] if self.equal else columns - (self.longest - self.lengths)[:, None]

    def counts(self) -> Tensor:
        """[batch or 1, longest + n]: how many of its text's tokens each column has before it; 0 before the text."""
        columns = torch.arange(self.longest + self._new, device=self.lengths.device)
        return columns[None] if self.equal else (columns - (self.longest - self.lengths)[:, None]).clamp(min=0)

    def _new_positions(self) -> Tensor:
        """[batch, n]: the positions of the new tokens."""
        return self.ends()[:, None] + torch.arange(self._new, device=self.lengths.device)

    def distances(self) -> Tensor:
        """[batch or 1, n, longest + n]: how far the new tokens' positions are behind those that the columns hold."""
        return self.positions()[:, -self._new :, None] - self.positions()[:, None]

    def _visible(self, window: int | None) -> Tensor | None:
        if self.equal and self._new == 1 and (window is None or self.end < window):
            return None
        assert self._held is not None
        device, end = self.lengths.device, self.longest + self._new
        columns = torch.arange(end, device=device)
        last = torch.arange(self.longest, end, device=device)[:, None]  # [n, 1]: what each new token may see at most
        seen = (columns <= last) & (columns >= (self.longest - self.lengths)[:, None, None])  # [batch, n, longest + n]
        if window is not None and self._positions is not None:
            seen &= self.positions()[:, None] > self._new_positions()[..., None] - window  # [batch, n, longest + n]
        elif window is not None:
            seen &= columns > last - window
        none = torch.zeros(seen.shape, dtype=self._held.dtype, device=device)
        return none.masked_fill_(~seen, -torch.inf)[:, None]

    def _finish_prefill(self, rows: PackedBatch) -> None:
        """Count the prompt that was stored as held."""
        device = self.lengths.device if self.buffer is None else self.buffer.device
        self._set_lengths(rows.lengths, device)
        self.columns = rows.mask
        self._positions = None
        if rows.holes:
            self._positions = torch.full((rows.batch, self.longest), -1, device=device)
            for g in rows.groups:
                where = slice(None) if g.texts is None else g.texts
                self._positions[where, self.longest - g.length :] = rows.group_positions(g)

    def _commit(self) -> None:
        """Count the new tokens of every text as held."""
        if self._positions is not None:
            self._positions = self.positions()
        n, self._new = self._new, 0
        self.lengths = self.lengths + n
        self.longest += n
        self.ids = None
        if self.columns is not None:
            self.columns = torch.nn.functional.pad(self.columns, (0, n), value=True)

    def align(self, pattern: Tensor) -> Tensor:
        """Attention of n new tokens [batch, heads, n, longest + n] -> over the padded input's columns and theirs."""
        if self.columns is None:
            return pattern
        n = pattern.shape[2]
        columns = torch.nn.functional.pad(self.columns, (0, n), value=True)  # [batch, seen + n]; before `_commit`
        out = pattern.new_zeros(*pattern.shape[:3], columns.shape[1])
        for b, real in enumerate(columns):
            out[b, :, :, real] = pattern[b, :, :, self.longest - int(self.lengths[b]) :]
        return out

    def unalign(self, pattern: Tensor) -> Tensor:
        """What `align` was given, from what it gave; zeros before each text's own tokens."""
        if self.columns is None:
            return pattern
        n = pattern.shape[2]
        columns = torch.nn.functional.pad(self.columns, (0, n), value=True)  # [batch, seen + n]; before `_commit`
        out = pattern.new_zeros(*pattern.shape[:3], self.longest + n)
        for b, real in enumerate(columns):
            out[b, :, :, self.longest - int(self.lengths[b]) :] = pattern[b, :, :, real]
        return out

    def select(self, index: Tensor) -> None:
        """Keep the texts `index` [kept], in that order; an index may repeat.

        Texts that stay where they are cost nothing, and a text that takes the place of one that left costs its own
        size; any other order copies all that is kept.
        """
        wanted = index.tolist()
        moved = [(to, at) for to, at in enumerate(wanted) if to != at]
        buffer = self.buffer
        if buffer is not None:
            old = buffer[:, :, :, : self.longest]
            if len(wanted) <= self.batch and all(at >= len(wanted) for _, at in moved):
                for to, at in moved:
                    old[:, to] = old[:, at]
                self.buffer = buffer[:, : len(wanted)]
            else:
                shape = list(buffer.shape)
                shape[1] = len(wanted)
                new = self.buffer = buffer.new_empty(shape)
                new[:, :, :, : self.longest] = old[:, index]
        self._reorder(index, wanted)

    def share(self, index: Tensor) -> None:
        """As `select` for beams, most of which go on from a few: no key or value moves, and what was read is noted.

        A text goes on writing into the row of its own number; what beams have in common stays where it is.
        """
        buffer = self._held
        if buffer is None or self.empty or len(index) > buffer.shape[1]:
            self.select(index)
            return
        numbers = torch.arange(len(index), device=index.device)[:, None]
        origins = index[:, None].repeat(1, buffer.shape[3]) if self._origins is None else self._origins[index]
        origins[:, self.longest :] = numbers
        self._origins = origins  # [kept, capacity]
        self._reorder(index, index.tolist())

    def _reorder(self, index: Tensor, wanted: list[int]) -> None:
        """Keep of the texts `index` all but the keys and values of their own tokens."""
        if self._cross:
            self._source_rows = index if self._source_rows is None else self._source_rows[index]
        self.columns = None if self.columns is None else self.columns[index]
        self.ids = None if self.ids is None else [self.ids[i] for i in wanted]
        self.source_ids = None if self.source_ids is None else [self.source_ids[i] for i in wanted]
        self.adapters = None if self.adapters is None else tuple(self.adapters[i] for i in wanted)
        before = self.longest
        self._set_lengths(self.lengths[index].tolist(), self.lengths.device)
        gone = before - self.longest  # columns that only those who left had
        if gone and self._held is not None:
            self._held = self._held[:, :, :, gone:]
            self._origins = None if self._origins is None else self._origins[:, gone:].contiguous()
        self.inputs = None if self.inputs is None else self.inputs.select(index, gone)
        self._positions = None if self._positions is None or not self.longest else self._positions[index, gone:]

    def crop(self, n: int | list[int]) -> None:
        """Forget all but the first n tokens of every text, or of each its own number; -n forgets the last n."""
        lengths = self.lengths.tolist()
        if isinstance(n, int) and n < 0:
            n = [max(0, length + n) for length in lengths]
        most = [n] * len(lengths) if isinstance(n, int) else n
        kept = [min(length, limit) for length, limit in zip(lengths, most, strict=True)]
        if min(most, default=0) < 0:
            raise InputError(f"crop({n!r}): give the number of tokens to keep, 0 or more.")
        longest = max(kept, default=0)
        for b, (length, left) in enumerate(zip(lengths, kept, strict=True)):
            at, to = self.longest - length, longest - left
            if self.buffer is not None and at != to:
                x = self.buffer[:, b]  # [2 * layers, n_kv_heads, capacity, head_size]
                x[:, :, to:longest] = x[:, :, at : at + left].clone()
                x[:, :, :to] = 0
            if self.inputs is not None and at != to:
                self.inputs.move(b, at, to, left)
            if self._positions is not None:
                positions = self._positions[b, at : at + left].clone()
                self._positions[b] = -1
                self._positions[b, to:longest] = positions
        if self._positions is not None:
            self._positions = self._positions[:, :longest] if longest else None
        self._set_lengths(kept, self.lengths.device)
        if self.columns is not None:
            limit = torch.tensor(kept, device=self.columns.device)[:, None]
            self.columns = self.columns & (self.columns.cumsum(1) <= limit)
        self.ids = None if self.ids is None else [ids[:left] for ids, left in zip(self.ids, kept, strict=True)]

    def copy(self) -> Cache:
        """Another cache of the same content."""
        other = copy(self)
        other._end = ctypes.c_int64()
        other.buffer = None if self.buffer is None else self.buffer[:, :, :, : self.longest].clone()
        other.inputs = None if self.inputs is None else self.inputs.copy(self.longest)
        other._positions = None if self._positions is None else self._positions.clone()
        other.cross = dict(self.cross)
        return other

    def save(self, path: str | Path) -> None:
        """Write the cache to one safetensors file, whole or not at all."""
        if self.buffer is None:
            raise InputError("The cache is empty: there is nothing to save.")
        tensors = {"held": self.buffer[:, :, :, : self.longest].contiguous(), "lengths": self.lengths}
        tensors |= {f"cross.{i}.{n}": x.contiguous() for i, kv in self.cross.items() for n, x in enumerate(kv)}
        if self.columns is not None:
            tensors["columns"] = self.columns
        if self._positions is not None:
            tensors["places"] = self._positions.contiguous()
        if self.inputs is not None:
            tensors |= self.inputs.tensors(self.longest)
        noted = {_FORMAT: self.ids, _ADAPTERS: self.adapters, _SOURCES: self.source_ids}
        metadata = {name: json.dumps(value) for name, value in noted.items()}
        write_aside(path, lambda aside: save_file(tensors, aside, metadata))

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Cache:
        """Read what `save` wrote. Which model it belongs to is checked where it is used, by its sizes.

        Raises:
            CheckpointError: not such a file, or one whose parts do not fit together.
        """
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                ids, adapters = json.loads(metadata[_FORMAT]), json.loads(metadata.get(_ADAPTERS, "null"))
                sources = json.loads(metadata.get(_SOURCES, "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            buffer, lengths, columns = tensors["held"], tensors["lengths"], tensors.get("columns")
            cross = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("cross.")})
            cache = cls()
            cache.cross = {i: (tensors[f"cross.{i}.0"], tensors[f"cross.{i}.1"]) for i in cross}
            cache.n_layers = buffer.shape[0] // 2
            cache.buffer, cache.columns, cache.ids = buffer, columns, ids
            cache._set_lengths(lengths.tolist(), lengths.device)
            if adapters is not None:
                if len(adapters) != cache.batch or not all(name is None or isinstance(name, str) for name in adapters):
                    raise ValueError(f"adapters of {len(adapters)} texts, and it holds {cache.batch}")
                cache.adapters = tuple(adapters)
            if sources is not None:
                lengths_read = {k.shape[2] for k, _ in cache.cross.values()}
                if len(sources) != cache.batch or {len(text) for text in sources} != lengths_read:
                    raise ValueError(f"the ids of {len(sources)} sources, and it holds {cache.batch} of {lengths_read}")
                cache.source_ids = [[int(token) for token in text] for text in sources]
            counted = ids is None or [len(text) for text in ids] == lengths.tolist()
            if columns is not None:
                counted = counted and columns.dtype == torch.bool and columns.sum(1).tolist() == lengths.tolist()
            cache._positions = _read_positions(tensors.get("places"), cache.lengths, cache.longest)
            cache.inputs = CachedInputs.read(tensors, cache.batch, cache.longest)
            counted = counted and min(cache.lengths.tolist(), default=0) >= 0
            if buffer.dim() != 5 or buffer.shape[1::2] != (cache.batch, cache.longest) or not counted:
                raise ValueError(f"{list(buffer.shape)} tensors for texts of {lengths.tolist()} tokens")
        except Exception as error:  # a file may be damaged in any way, and each library says it in its own
            raise CheckpointError(
                f"{str(path)[:200]} is no cache that Cache.save wrote, or it is damaged: {str(error)[:300]}"
            ) from error
        return cache

    def _set_lengths(self, lengths: list[int], device: torch.device) -> None:
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=device)
        self.longest = max(lengths, default=0)
        self.equal = len(set(lengths)) <= 1
        self._first_visible = None  # texts that grow together keep theirs


DynamicCache = Cache


def _read_positions(positions: Tensor | None, lengths: Tensor, longest: int) -> Tensor | None:
    """The positions of texts with hidden words, as a file has them; ValueError where they do not fit the texts.

    positions: [batch, longest], -1 before each text. lengths: [batch].
    """
    if positions is None:
        return None
    if tuple(positions.shape) != (len(lengths), longest) or positions.dtype != torch.int64 or not longest:
        raise ValueError(f"{list(positions.shape)} positions for texts of {lengths.tolist()} tokens")
    before = torch.arange(longest, device=positions.device) < (longest - lengths)[:, None]
    grow = positions.diff(dim=1) > 0
    if bool((positions[before] != -1).any()) or not bool((grow | before[:, 1:]).all()) or int(positions.max()) >> 31:
        raise ValueError("positions that no text has")
    return positions

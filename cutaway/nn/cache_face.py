"""Upstream's way to read and fill a cache: layers, `update`, and what selects and forgets texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from cutaway.errors import InputError


class CacheLayer:
    """One layer of a cache: `keys` and `values` [batch, n_kv_heads, columns, head_size], in the columns of the input.

    They are views where the input had no padding; else copies, with zeros at padding, which the cache does not hold.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, cache: CacheFace, layer: int, cross: bool = False) -> None:
        self._cache, self._layer, self._cross = cache, layer, cross

    def _held(self, which: int) -> Tensor | None:
        if self._cross:
            return self._cache.cross[self._layer][which] if self._layer in self._cache.cross else None
        buffer = self._cache.buffer
        return None if buffer is None else self._cache.padded(buffer[2 * self._layer + which])

    @property
    def keys(self) -> Tensor | None:
        return self._held(0)

    @property
    def values(self) -> Tensor | None:
        return self._held(1)

    @property
    def is_initialized(self) -> bool:
        return self.keys is not None

    @property
    def dtype(self) -> torch.dtype | None:
        return None if self.keys is None else self.keys.dtype

    @property
    def device(self) -> torch.device | None:
        return None if self.keys is None else self.keys.device

    def get_seq_length(self) -> int:
        """Columns of the input that are held, padding included."""
        return 0 if self.keys is None else self._cache.seen

    def get_max_length(self) -> int:
        """How many tokens there can be; -1 for any number."""
        return self._cache.get_max_length()

    get_max_cache_shape = get_max_length


class CrossCache:
    """What the decoder keeps of the encoder's text: the cross-attention half of an encoder-decoder's cache."""

    def __init__(self, cache: CacheFace) -> None:
        self._cache = cache

    @property
    def layers(self) -> list[CacheLayer]:
        return [CacheLayer(self._cache, i, cross=True) for i in sorted(self._cache.cross)]

    def __len__(self) -> int:
        return len(self._cache.cross)

    def __bool__(self) -> bool:
        return True

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the encoder's text."""
        held = self._cache.cross.get(layer_idx)
        return 0 if held is None else held[0].shape[2]


class CacheFace:
    """The part of `Cache` that answers to upstream's names."""

    n_layers: int
    longest: int
    buffer: Tensor | None
    cross: dict[int, tuple[Tensor, Tensor]]
    lengths: Tensor
    ids: list[list[int]] | None
    source_ids: list[list[int]] | None
    _before: int

    is_compileable = False

    if TYPE_CHECKING:

        @property
        def batch(self) -> int: ...

        @property
        def seen(self) -> int: ...

        def padded(self, x: Tensor) -> Tensor: ...
        def _grow(self, like: Tensor, batch: int, columns: int) -> Tensor: ...
        def _set_lengths(self, lengths: list[int], device: torch.device) -> None: ...
        def select(self, index: Tensor) -> None: ...
        def crop(self, n: int | list[int]) -> None: ...

    @property
    def layers(self) -> list[CacheLayer]:
        """One for each layer of the model that has stored something."""
        count = self.n_layers if self.buffer is not None else 0
        return [CacheLayer(self, i) for i in range(count)]

    def __len__(self) -> int:
        return self.n_layers if self.buffer is not None else 0

    def __bool__(self) -> bool:
        """An empty cache is a cache."""
        return True

    def __iter__(self) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """(keys, values) of each layer."""
        return iter([(layer.keys, layer.values) for layer in self.layers])

    def __getitem__(self, layer: int) -> tuple[Tensor | None, Tensor | None]:
        found = self.layers[layer]
        return found.keys, found.values

    @property
    def key_cache(self) -> list[Tensor | None]:
        """The keys of each layer."""
        return [layer.keys for layer in self.layers]

    @property
    def value_cache(self) -> list[Tensor | None]:
        """The values of each layer."""
        return [layer.values for layer in self.layers]

    def get_max_length(self) -> int:
        """How many tokens there can be; -1 for any number."""
        return -1

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """The same, under its older name."""
        return self.get_max_length()

    @property
    def is_initialized(self) -> bool:
        return self.buffer is not None

    @property
    def max_batch_size(self) -> int:
        return self.batch

    @property
    def max_cache_len(self) -> int:
        return self.get_max_length()

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self)

    @property
    def self_attention_cache(self) -> Self:
        """An encoder-decoder's cache holds both halves; this one is itself."""
        return self

    @property
    def cross_attention_cache(self) -> CrossCache:
        """What is kept of the encoder's text."""
        return CrossCache(self)

    @property
    def is_updated(self) -> dict[int, bool]:
        """Of which layers the encoder's text is kept."""
        return dict.fromkeys(self.cross, True)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Adds new tokens of one layer, for attention of one's own; layer 0 first in each pass.

        Args:
            key_states, value_states: [batch, n_kv_heads, new tokens, head_size].
            layer_idx: which layer.

        Returns:
            The keys and values of all tokens so far, [batch, n_kv_heads, tokens, head_size] each.
        """
        batch, _, new, _ = key_states.shape
        if layer_idx >= self.n_layers:
            self._add_layers(layer_idx + 1)
        if layer_idx == 0 or not self.longest:
            self._before = self.longest
            lengths = self.lengths.tolist() if self.longest else [0] * batch
            if len(lengths) != batch:
                raise InputError(f"update got {batch} texts, and the cache holds {len(lengths)}.")
            self._grow(key_states.transpose(1, 2), batch, self._before + new)
            self._set_lengths([n + new for n in lengths], key_states.device)
        end = self._before + new
        buffer = self._grow(key_states.transpose(1, 2), batch, end)
        keys_and_values = []
        for which, states in enumerate((key_states, value_states)):
            states_so_far = buffer[2 * layer_idx + which, :, :, :end]
            states_so_far[:, :, self._before :].copy_(states.detach())
            if states.requires_grad and torch.is_grad_enabled():
                states_so_far = torch.cat((states_so_far[:, :, : self._before], states), 2)
            keys_and_values.append(states_so_far)
        return keys_and_values[0], keys_and_values[1]

    def _add_layers(self, count: int) -> None:
        """Room for `count` layers."""
        old, self.n_layers = self.buffer, count
        if old is not None:
            self.buffer = old.new_zeros(2 * count, *old.shape[1:])
            self.buffer[: old.shape[0]] = old

    def reset(self) -> None:
        """Forget all texts."""
        self.buffer, self.cross = None, {}
        self.ids = self.source_ids = None
        self._set_lengths([], self.lengths.device)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the texts `beam_idx` [kept], in that order."""
        self.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the texts `indices` [kept], in that order."""
        self.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Make `repeats` of each text."""
        self.select(torch.arange(self.batch, device=self.lengths.device).repeat_interleave(repeats))

    def to_legacy_cache(self) -> tuple[tuple[Tensor | None, Tensor | None], ...]:
        """((keys, values) of each layer, ...)."""
        return tuple(self)

    def take_layers(self, layers: Iterable[Sequence[Any]]) -> None:
        """Fill an empty cache with (keys, values, ...) of each layer, [batch, n_kv_heads, tokens, head_size]."""
        for i, layer in enumerate(layers):
            if layer[0] is not None:
                self.update(layer[0], layer[1], i)

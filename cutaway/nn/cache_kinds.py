"""Caches with a face of their own: of a fixed size, and of an encoder-decoder in two halves."""

from __future__ import annotations

from typing import Any

from cutaway.errors import InputError
from cutaway.nn.kv_cache import Cache


class StaticCache(Cache):
    """A cache with room for `max_cache_len` tokens from the start; InputError for more.

    Args:
        config: the model's, which is asked nothing: the model says its own sizes.
        max_cache_len: tokens of the longest text.
    """

    def __init__(self, config: object = None, max_cache_len: int = 0, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(max_cache_len, bool) or not isinstance(max_cache_len, int) or max_cache_len < 1:
            raise InputError(f"max_cache_len is {max_cache_len!r}; give the number of tokens that it is to hold.")
        self._most = max_cache_len

    def get_max_length(self) -> int:
        """How many tokens there can be."""
        return self._most

    def _capacity(self, columns: int) -> int:
        if columns > self._most:
            raise InputError(
                f"StaticCache holds max_cache_len={self._most} tokens, and {columns} are asked for; make it larger, or "
                "use DynamicCache."
            )
        return self._most


class EncoderDecoderCache(Cache):
    """The two halves of an encoder-decoder's cache in one: what was written, and what is kept of the source.

    Args:
        caches: none, the decoder's own cache, or that and the one of its cross-attention.
    """

    def __init__(self, *caches: Cache) -> None:
        if len(caches) > 2 or not all(isinstance(cache, Cache) for cache in caches):
            raise InputError("EncoderDecoderCache is made of the decoder's cache and the cross-attention's.")
        super().__init__()
        if caches:
            self.__dict__.update(caches[0].copy().__dict__)
        if len(caches) == 2 and not caches[1].empty:
            self.cross = {
                i: (keys, values)
                for i, (keys, values) in enumerate(caches[1])
                if keys is not None and values is not None
            }

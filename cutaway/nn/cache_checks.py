"""Whether a cache fits what it is used for: the model, the texts, their mask, and what its file said of places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import InputError

if TYPE_CHECKING:
    from cutaway.config.architecture import Stack
    from cutaway.nn.kv_cache import Cache


def check_cache(cache: Cache, spec: Stack, batch: int) -> None:
    """InputError unless a cache is of a model of this shape, and of as many texts."""
    wanted = (spec.n_layers, spec.attention.n_kv_heads, spec.attention.head_size)
    if cache.sizes != wanted:
        raise InputError(
            f"past_key_values holds (layers, key heads, head size) = {cache.sizes}, but this model has {wanted}; pass "
            "the cache that this model returned."
        )
    if cache.lengths.shape[0] != batch:
        raise InputError(
            f"past_key_values holds {cache.lengths.shape[0]} texts, but input_ids has {batch}; cache.select(index) "
            "keeps or repeats texts."
        )


def check_seen(cache: Cache, mask: Tensor) -> None:
    """InputError where a mask [batch, columns] hides held tokens that were read, or shows some that were hidden."""
    if tuple(mask.shape) != (cache.batch, cache.seen):
        return  # without the padding: it says nothing of columns
    same = bool((mask != 0).all()) if cache.columns is None else torch.equal(mask != 0, cache.columns)
    if not same:
        raise InputError(
            "attention_mask hides other tokens than when past_key_values was made; what is held stays as it was read: "
            "pass the same mask, grown by the new tokens, or run the whole text with the new one."
        )


def read_places(places: Tensor | None, lengths: Tensor, longest: int) -> Tensor | None:
    """Where the tokens of texts with hidden words stand, as a file has it; ValueError where it does not fit the texts.

    places: [batch, longest], -1 before each text. lengths: [batch].
    """
    if places is None:
        return None
    if tuple(places.shape) != (len(lengths), longest) or places.dtype != torch.int64 or not longest:
        raise ValueError(f"{list(places.shape)} places for texts of {lengths.tolist()} tokens")
    before = torch.arange(longest, device=places.device) < (longest - lengths)[:, None]
    grow = places.diff(dim=1) > 0
    if bool((places[before] != -1).any()) or not bool((grow | before[:, 1:]).all()) or int(places.max()) >> 31:
        raise ValueError("places that no text has")
    return places

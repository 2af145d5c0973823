"""Whether a cache fits what it is used for: the model, the texts and their mask."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.config.architecture import Stack
from cutaway.errors import InputError
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

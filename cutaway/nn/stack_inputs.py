"""What a stack is given: ids or vectors, masks, positions, a cache; checked before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.config.architecture import Rotary
from cutaway.config.architecture import Stack as Spec
from cutaway.errors import InputError
from cutaway.nn.block_order import follow_blocks
from cutaway.nn.cache_checks import check_cache, check_seen
from cutaway.nn.call_context import current
from cutaway.nn.kv_cache import Cache
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.packed_batch import (
    PackedBatch,
    check_mask,
    check_seen_keys,
    check_texts,
    packed_sequence_lengths,
)


class Batch:
    """Checked inputs of one stack, and their layout."""

    def __init__(
        self,
        rows: PackedBatch,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cache: Cache | None,
    ) -> None:
        self.rows, self.cache = rows, cache
        self.input_ids, self.token_type_ids = input_ids, token_type_ids
        self.position_ids, self.inputs_embeds = position_ids, inputs_embeds

    @classmethod
    def of(
        cls,
        stack: NamedModule,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Batch:
        """Check shapes, ranges and lengths before anything is computed.

        Raises:
            InputError: it names the argument, its shape or value, and the bound.
        """
        follow_blocks(stack)
        spec: Spec = stack.spec
        batch, length = _shape(input_ids, inputs_embeds, spec)
        if input_ids is not None:
            input_ids = check_ids(input_ids, spec.embedding.vocab_size)
        n_cached = 0 if cache is None else cache.longest
        seen_keys = None
        if isinstance(attention_mask, Tensor) and attention_mask.dim() == 4:
            if cache is not None and not cache.empty and (cache.columns is not None or not cache.equal):
                raise InputError(
                    "attention_mask says what each query sees, but the texts in past_key_values have padding; run them "
                    "without padding, or pass attention_mask [batch, length]."
                )
            seen_keys = check_seen_keys(attention_mask, batch, length, n_cached + length, spec.attention.n_heads)
            attention_mask = None
        if n_cached and cache is not None:
            check_cache(cache, spec, batch)
            # a mask over old and new tokens: the old part must say what it said when they were read
            columns = (n_cached + length, cache.seen + length)
            if isinstance(attention_mask, Tensor) and attention_mask.shape[-1] in columns:
                check_seen(cache, attention_mask[..., :-length])
                attention_mask = attention_mask[..., -length:]
        mask = check_mask(attention_mask, batch, length)
        if n_cached and mask is not None and not bool((mask != 0).all()):
            raise InputError("attention_mask hides new tokens, but a cached text can only be continued by real tokens.")
        # several texts in one row, which their position_ids tell apart, become a batch of texts
        several = None
        if spec.causal and cache is None and batch == 1 and seen_keys is None:
            several = packed_sequence_lengths(position_ids, mask)
        # in a window that holds only padding, a query would have nothing to look at; what depends on a word's
        # neighbours, or on distances, is computed text by text
        may_stay_padded = not spec.causal and cache is None and not spec.windows
        may_stay_padded = may_stay_padded and spec.attention.distances is None and spec.convolution is None
        if several is not None and position_ids is not None:
            rows = PackedBatch.from_lengths(several, position_ids.device)
        else:
            # DeBERTa hides such a word from itself as well
            hidden_too = current().whole and spec.attention.distances is None and spec.convolution is None
            hidden_too = hidden_too and not (stack.by_length and cache is not None)
            rows = PackedBatch(
                batch,
                length,
                None if n_cached else mask,
                may_stay_padded=may_stay_padded,
                whole=hidden_too,
            )
            if seen_keys is not None:
                rows.key_mask, rows.sees_by_mask = seen_keys, True
        check_texts(rows)
        # no text may be longer than the model's positions
        longest = _places_taken(spec, rows, cache, position_ids)
        if spec.longest is not None and longest > spec.longest:
            raise InputError(
                f"The input has {longest} tokens, but the model can take {spec.longest}; shorten the text, or let the "
                f"tokenizer cut it with truncation=True, max_length={spec.longest}."
            )
        # types and positions: one for each token, and within their tables
        for name, value in (("token_type_ids", token_type_ids), ("position_ids", position_ids)):
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise InputError(f"{name} must be a tensor, not {type(value).__name__}; use return_tensors='pt'.")
            if tuple(value.shape) not in ((batch, length), (1, length)):
                raise InputError(f"{name} has shape {list(value.shape)}, but input_ids has [{batch}, {length}].")
        if token_type_ids is not None:
            token_type_ids = token_type_ids.expand(batch, length)
            if spec.embedding.n_types:
                token_type_ids = check_ids(
                    token_type_ids, spec.embedding.n_types, "token_type_ids", "config.type_vocab_size"
                )
        if position_ids is not None:
            position_ids = position_ids.expand(batch, length)
            if spec.embedding.positions is not None:
                rows_of = stack.embed.positions.num_embeddings
                position_ids = check_ids(position_ids, rows_of, "position_ids", "the table of positions")
            elif isinstance(spec.positions, Rotary):
                most = spec.positions.longest or 2**31
                position_ids = check_ids(position_ids, most, "position_ids", "config.max_position_embeddings")
            else:
                raise InputError("position_ids was given, but this model knows only distances; leave it out.")
        return cls(rows, input_ids, token_type_ids, position_ids, inputs_embeds, cache)


def _shape(input_ids: Tensor | None, inputs_embeds: Tensor | None, spec: Spec) -> tuple[int, int]:
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError("Pass input_ids, or inputs_embeds, one of the two.")
    inputs, name, dims = (input_ids, "input_ids", 2) if inputs_embeds is None else (inputs_embeds, "inputs_embeds", 3)
    if not isinstance(inputs, Tensor):
        raise InputError(
            f"{name} must be a tensor, not {type(inputs).__name__}; call the tokenizer with return_tensors='pt'."
        )
    if inputs.dim() != dims:
        wanted = "[batch, length]" if dims == 2 else "[batch, length, hidden]"
        raise InputError(f"{name} must be {wanted}; it has shape {list(inputs.shape)}. One text needs input_ids[None].")
    if dims == 3 and inputs.shape[2] != spec.width:
        what = "hidden size" if spec.embedding.width is None else "embedding size"
        raise InputError(f"inputs_embeds has width {inputs.shape[2]}, but the model's {what} is {spec.width}.")
    if dims == 3 and not inputs.is_floating_point():
        raise InputError(f"inputs_embeds must be floating-point vectors; their dtype is {inputs.dtype}.")
    if inputs.shape[0] == 0 or inputs.shape[1] == 0:
        raise InputError(f"{name} is empty: shape {list(inputs.shape)}. A text needs at least one token.")
    return inputs.shape[0], inputs.shape[1]


def _places_taken(spec: Spec, rows: PackedBatch, cache: Cache | None, position_ids: Tensor | None) -> int:
    """How many positions the text that takes most has."""
    n_cached = 0 if cache is None else cache.end
    if spec.longest is None or rows.length + n_cached <= spec.longest:
        return rows.length + n_cached
    learned = spec.embedding.positions
    if position_ids is not None and learned is not None:
        return 0  # each is a row of the table, which is checked, and may be there more than once
    if position_ids is not None or (learned is not None and learned.skips_hidden):
        return max(rows.lengths, default=0) + (0 if cache is None else cache.longest)
    return rows.reach + n_cached


def check_ids(ids: Tensor, bound: int, name: str = "input_ids", of: str = "config.vocab_size") -> Tensor:
    """The ids as an index, if they are whole numbers in 0 .. bound - 1.

    On a GPU the kernel checks the values instead, so that nothing waits.
    """
    if ids.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise InputError(f"{name} must be whole numbers; their dtype is {ids.dtype}.")
    if ids.device.type == "cpu":
        low, high = ids.aminmax()
        if low < 0 or high >= bound:
            wrong = int(low) if low < 0 else int(high)
            raise InputError(
                f"{name} holds {wrong}, but it must be in 0..{bound - 1} ({of} = {bound}); the tokenizer may belong to "
                "another model, or tokens were added without model.resize_token_embeddings(len(tokenizer))."
            )
    return ids if ids.dtype in (torch.int64, torch.int32) else ids.long()

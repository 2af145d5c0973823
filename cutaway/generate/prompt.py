"""Prompt: the inputs of one call, checked, and with the padding of a text to be continued on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import GenerationError, InputError
from cutaway.generate.options import Settings

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.outputs import ModelOutput


# ids or a mask, one row for each text
TokenIds = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Prompt:
    """ids [B, L] that the answers follow, and what the encoder reads (encoder-decoder only).

    `mask` is None where every position is a real token. `embeds` [B, L, H] is read in the place of a decoder's ids, or
    of what an encoder reads; without ids of the caller (`unnamed`) the ids only hold the places.
    """

    ids: Tensor
    mask: Tensor | None
    encoder_ids: Tensor | None = None
    encoder_mask: Tensor | None = None
    encoder_outputs: ModelOutput | tuple[Tensor, ...] | None = None
    embeds: Tensor | None = None
    unnamed: bool = False

    @property
    def longest(self) -> int:
        """Places that the longest row takes, its hidden words included."""
        return self.ids.shape[1] - min(self.padding)

    @property
    def padding(self) -> list[int]:
        """Columns before each row's first real token."""
        if self.mask is None:
            return [0] * self.ids.shape[0]
        return self.mask.byte().argmax(dim=1).tolist()

    @property
    def hidden(self) -> list[int]:
        """How many words in the middle of each row the mask hides."""
        if self.mask is None:
            return [0] * self.ids.shape[0]
        real = self.mask.sum(dim=1).tolist()
        return [self.ids.shape[1] - pads - n for pads, n in zip(self.padding, real, strict=True)]


def read_ids(name: str, value: object, device: torch.device) -> Tensor:
    """Ids as int64 [B, L] on the model's device; lists are read too."""
    try:
        ids = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is not a table of token ids ({error}). Pass a tensor [batch, length].") from error
    if ids.ndim != 2 or 0 in ids.shape:
        raise InputError(
            f"{name} has shape {tuple(ids.shape)}: pass ids [batch, length] with at least one row and one token"
            + (", such as input_ids[None]." if ids.ndim == 1 and ids.numel() else ".")
        )
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(f"{name} has dtype {ids.dtype}: pass integer token ids.")
    return ids.long()


def read_embeds(value: object, ids: Tensor | None, device: torch.device) -> Tensor:
    """Vectors [B, L, H] on the model's device; InputError where they do not fit the ids."""
    if not isinstance(value, Tensor) or value.dim() != 3 or 0 in value.shape or not value.is_floating_point():
        raise InputError("inputs_embeds must be a tensor of numbers [batch, length, hidden], none of them 0.")
    if ids is not None and ids.shape != value.shape[:2]:
        raise InputError(
            f"inputs_embeds is of [batch, length] {list(value.shape[:2])} and input_ids {list(ids.shape)}: they must "
            "be the same, or leave input_ids out."
        )
    return value.to(device)


def read_mask(value: object, ids: Tensor, pad: int | None, eos: tuple[int, ...]) -> Tensor | None:
    """The mask of `ids`, None where all of it is real.

    Without a mask, the padding id marks padding, unless it also ends texts (then it may be part of one).
    """
    if value is None:
        if pad is None or pad in eos:
            return None
        mask = ids != pad
        if not bool(mask.any(dim=1).all()):
            return None  # a text of nothing but that id is a text
    else:
        mask = torch.as_tensor(value, device=ids.device) != 0
        if mask.shape != ids.shape:
            raise InputError(
                f"attention_mask has shape {tuple(mask.shape)} and input_ids {tuple(ids.shape)}: they must be the same."
            )
        if not bool(mask.any(dim=1).all()):
            raise InputError("attention_mask leaves a row without a single token. Give every row at least one.")
    return None if bool(mask.all()) else mask.long()


def embedded(
    s: Settings, embeds: object, input_ids: object, attention_mask: object, pad: int | None, device: torch.device
) -> Prompt:
    """The prompt of a decoder that is given as vectors; ids beside them are what the answer follows in the result."""
    ids = None if input_ids is None else read_ids("input_ids", input_ids, device)
    vectors = read_embeds(embeds, ids, device)
    places = torch.full(vectors.shape[:2], pad or 0, device=device) if ids is None else ids
    mask = read_mask(torch.ones_like(places) if attention_mask is None else attention_mask, places, None, ())
    numbers = torch.arange(places.shape[1], device=device).expand_as(places)
    order, _ = pad_left(numbers, mask)  # [B, L]
    places, mask = pad_left(places, mask)
    vectors = vectors.gather(1, order[..., None].expand_as(vectors))
    return Prompt(places, mask, embeds=vectors, unnamed=ids is None)


def pad_left(ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Moves each row's padding to its left, so that answers begin in one column whatever the tokenizer's side.

    A word that the mask hides in the middle of a text stays where it is.
    """
    if mask is None or bool((mask[:, -1] != 0).all()):
        return ids, mask
    columns = torch.arange(ids.shape[1], device=ids.device)
    last = (mask * columns).amax(dim=1, keepdim=True)  # [B, 1]
    order = (columns + last + 1) % ids.shape[1]  # [B, L]; what follows the last token goes before the first
    return ids.gather(1, order), mask.gather(1, order)


def read_prompt(
    model: LanguageModel, s: Settings, input_ids: object, attention_mask: object, inputs: dict[str, Any]
) -> Prompt:
    """Reads the inputs of one call.

    Args:
        model: the model that will run.
        s: the call's settings, for the special ids.
        input_ids: [B, L], or None to start from the bos token.
        attention_mask: [B, L] or None.
        inputs: `decoder_input_ids`, `decoder_attention_mask`, `encoder_outputs` (encoder-decoder).
    """
    device = model.device
    pad, eos, bos = s.one_id("pad_token_id", None), s.ids("eos_token_id", None), s.one_id("bos_token_id", None)
    if not model.is_encoder_decoder:
        for name, value in inputs.items():
            if value is not None and name != "inputs_embeds":
                raise GenerationError(
                    f"{name} is an input of encoder-decoder models; this model is not one. Leave it out."
                )
        if inputs.get("inputs_embeds") is not None:
            return embedded(s, inputs["inputs_embeds"], input_ids, attention_mask, pad, device)
        if input_ids is None:
            if bos is None:
                raise GenerationError(
                    "input_ids is missing and the model has no bos_token_id to start from: pass input_ids."
                )
            input_ids = [[bos]]
        ids = read_ids("input_ids", input_ids, device)
        return Prompt(*pad_left(ids, read_mask(attention_mask, ids, pad, eos)))
    outputs = inputs.get("encoder_outputs")
    encoder_ids = encoder_mask = embeds = None
    if inputs.get("inputs_embeds") is not None:
        if input_ids is not None or outputs is not None:
            raise GenerationError("inputs_embeds stands for what the encoder reads: leave the other inputs of it out.")
        embeds = read_embeds(inputs["inputs_embeds"], None, device)
        rows = embeds.shape[0]
        if attention_mask is not None:
            encoder_mask = read_mask(attention_mask, embeds[..., 0], None, ())
    elif input_ids is not None:
        encoder_ids = read_ids("input_ids", input_ids, device)
        encoder_mask = read_mask(attention_mask, encoder_ids, pad, eos)
        rows = encoder_ids.shape[0]
    elif outputs is not None:
        rows = outputs[0].shape[0]
        encoder_mask = None if attention_mask is None else torch.as_tensor(attention_mask, device=device)
    elif bos is not None:  # as with a decoder: a text that only begins
        encoder_ids, rows = torch.tensor([[bos]], device=device), 1
    else:
        raise GenerationError(
            "input_ids is missing and the model has no bos_token_id: an encoder-decoder needs a text to read."
        )
    start = s.one_id("decoder_start_token_id", None)
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    start = bos if start is None else start
    decoder_ids = inputs.get("decoder_input_ids")
    if decoder_ids is None:
        if start is None:
            raise GenerationError(
                "decoder_start_token_id is not set, neither in the call nor in the model's files: pass it, or "
                "decoder_input_ids."
            )
        begun = torch.full((rows, 1), start, device=device)
        return Prompt(begun, None, encoder_ids, encoder_mask, outputs, embeds)
    ids = read_ids("decoder_input_ids", decoder_ids, device)
    if ids.shape[0] != rows:
        raise InputError(
            f"decoder_input_ids has {ids.shape[0]} rows and the encoder's text {rows}: they must be the same."
        )
    mask = read_mask(inputs.get("decoder_attention_mask"), ids, None, eos)
    if start is not None and bool((ids[:, 0] != start).all()):  # as upstream: the decoder always begins with it
        ids = torch.cat([ids.new_full((rows, 1), start), ids], dim=1)
        mask = None if mask is None else torch.cat([mask.new_ones((rows, 1)), mask], dim=1)
    return Prompt(*pad_left(ids, mask), encoder_ids, encoder_mask, outputs, embeds)

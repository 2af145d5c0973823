"""What a decoder reads when it must say a text: the same, one place to the right, behind a first token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.nn.losses import IGNORED

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig


def decoder_reads(model: Any, labels: Tensor) -> Tensor:
    """What the decoder of `model` reads when it must say `labels`: its own answer, or `shift_right` by its config."""
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    found: Tensor = shift_right(labels, *decoder_start(model.config)) if own is None else own(labels)
    return found


def shift_right(ids: Tensor, start: int, pad: int) -> Tensor:
    """What a decoder reads when it must say `ids` [batch, length]: `start`, then all but the last; -100 is `pad`."""
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        shape = list(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(f"A decoder reads ids or labels [batch, length]; these are {shape}.")
    first = ids.new_full((ids.shape[0], 1), start)
    shifted = torch.cat((first, ids[:, :-1]), 1)
    return shifted.masked_fill(shifted == IGNORED, pad)


def decoder_start(config: PretrainedConfig) -> tuple[int, int]:
    """The id that a decoder's text begins with, and the padding id."""
    pad = config.pad_token_id
    start = config.decoder_start_token_id
    if start is None and pad is None:
        raise InputError(
            "The decoder's text has no first token: set config.decoder_start_token_id, or pass decoder_input_ids."
        )
    return (pad if start is None else start), (0 if pad is None else pad)


def wrap_right(ids: Tensor, pad: int | None) -> Tensor:
    """As shift_right, with each text's own last token for the first (mBART: it names the language)."""
    if pad is None:
        raise InputError("The last token of a text cannot be told from padding; set config.pad_token_id.")
    read = shift_right(ids, pad, pad)
    held = ids.masked_fill(ids == IGNORED, pad)
    last = ((held != pad) * torch.arange(held.shape[1], device=held.device)).amax(1, keepdim=True)  # [batch, 1]
    return torch.cat((held.gather(1, last), read[:, 1:]), 1)


def begin_with_text(read: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What a decoder reads of a text shifted right, [batch, length], where the text has padding on the left: the first
    token stands before the text, not before the padding. And its mask; None without such padding.
    """
    if mask is None or bool((mask[:, 0] != 0).all()):
        return read, None
    first = (mask != 0).byte().argmax(1, keepdim=True)  # [batch, 1]
    begun = torch.arange(read.shape[1], device=read.device) >= first
    return read.scatter(1, first, read[:, :1]), begun

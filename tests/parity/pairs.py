"""The same weights twice: a tiny model of transformers, and ours loaded from what it saved."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import transformers
from parity.tiny_models import CONFIGS, ENCODER_DECODERS, make
from torch import Tensor

import cutaway

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

FAMILIES = tuple(CONFIGS)
TOLERANCE = 1e-5  # of the largest value of the tensor that is compared


def load(theirs: Any, ending: str, **options: Any) -> Any:
    """Our model, from what `theirs` saves."""
    first = type(theirs).__name__.removesuffix(ending)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return getattr(cutaway, first + ending).from_pretrained(folder, **options)


def pair(family: str, ending: str = "Model", **fields: Any) -> tuple[Any, Any]:
    """(transformers' model with eager attention, ours) with equal weights."""
    theirs = make(family, ending, **fields)
    theirs.set_attn_implementation("eager")
    return theirs, load(theirs, ending)


def gap(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a part of the largest value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert ours.dtype == theirs.dtype
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def texts(lengths: tuple[int, ...], seed: int = 1, low: int = 5, high: int = 99) -> list[Tensor]:
    """Random ids, none of them special in a tiny config."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(low, high, (n,), generator=draw) for n in lengths]


def padded(given: list[Tensor], side: str, pad: int) -> tuple[Tensor, Tensor]:
    """ids and mask [batch, longest]."""
    longest = max(len(t) for t in given)
    ids = torch.full((len(given), longest), pad)
    mask = torch.zeros_like(ids)
    for b, text in enumerate(given):
        where = slice(0, len(text)) if side == "right" else slice(longest - len(text), longest)
        ids[b, where] = text
        mask[b, where] = 1
    return ids, mask


def inputs(family: str, lengths: tuple[int, ...], side: str = "right", pad: int = 0) -> dict[str, Tensor]:
    """What a base model of the family reads; without padding there is no mask."""
    ids, mask = padded(texts(lengths), side, pad)
    found = {"input_ids": ids}
    if not bool(mask.all()):
        found["attention_mask"] = mask
    if family in ENCODER_DECODERS:
        target = tuple(reversed([max(2, n - 2) for n in lengths]))
        ids, mask = padded(texts(target, seed=2), side, pad)
        found["decoder_input_ids"] = ids
        if not bool(mask.all()):
            found["decoder_attention_mask"] = mask
    return found


LAYERS = (
    "hidden_states", "attentions", "decoder_hidden_states", "decoder_attentions", "cross_attentions",
    "encoder_hidden_states", "encoder_attentions",
)  # fmt: skip
FINAL = ("last_hidden_state", "pooler_output", "encoder_last_hidden_state", "logits", "start_logits", "end_logits")


def real_values(name: str, value: Tensor, given: dict[str, Tensor]) -> Tensor:
    """The values of an output that belong to real tokens, in the order of the texts, as one row of numbers."""
    source, target = given.get("attention_mask"), given.get("decoder_attention_mask")
    decoder = "decoder_input_ids" in given and not name.startswith("encoder")
    asks = target if decoder else source
    sees = source if name == "cross_attentions" else asks
    if name == "pooler_output":
        return value.flatten()
    found = []
    for b in range(value.shape[0]):
        own = value[b]
        if name.endswith("attentions"):  # [heads, queries, keys]
            own = own if asks is None else own[:, asks[b].bool()]
            own = own if sees is None else own[:, :, sees[b].bool()]
        elif asks is not None:
            own = own[asks[b].bool()]
        found.append(own.flatten())
    return torch.cat(found)


def gaps(ours: Any, theirs: Any, given: dict[str, Tensor]) -> dict[str, float]:
    """The gap of every output and layer that `theirs` has, over real tokens."""
    found = {}
    for name in FINAL:
        if name in theirs:
            found[name] = gap(real_values(name, ours[name], given), real_values(name, theirs[name], given))
    for name in LAYERS:
        if theirs.get(name):  # upstream gives () for cross-attentions that the model does not have
            assert len(ours[name]) == len(theirs[name]), name
            for i, (a, b) in enumerate(zip(ours[name], theirs[name], strict=True)):
                found[f"{name}[{i}]"] = gap(real_values(name, a, given), real_values(name, b, given))
    return found

"""generate on the families that are variants of others: the same tokens as transformers, and in any batch."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from parity.pairs import load, padded, texts
from parity.tiny_models import ENCODER_DECODERS, VARIANTS, make

LENGTHS = (6, 2, 4)
PAD = 0
SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "pad_token_id": PAD}


FAMILIES = (*VARIANTS, "mbart", "marian", "pegasus", "mt5", "umt5", "m2m_100")


@functools.cache
def models(family: str) -> tuple[Any, Any]:
    two = family in ENCODER_DECODERS
    ending = "MTModel" if family.startswith("marian") else "ForConditionalGeneration" if two else "ForCausalLM"
    extra = {"decoder_start_token_id": 2} if two else {}
    theirs = make(family, ending, seed=int(two), tie_word_embeddings=False, **extra)
    theirs.set_attn_implementation("eager")
    theirs.generation_config.eos_token_id = theirs.generation_config.forced_eos_token_id = None
    with torch.no_grad():  # spread wide, so that greedy search does not repeat one token
        for name, p in theirs.named_parameters():
            if p.dim() > 1 and p.requires_grad:
                tokens = two and ("shared" in name or "embed_tokens" in name)
                p.mul_(40.0 if tokens else 20.0 if "positions" in name else 4.0)
    return theirs, load(theirs, ending)


def prompts(family: str) -> tuple[dict[str, torch.Tensor], int]:
    """A padded batch, and the column at which the answers begin."""
    ids, mask = padded(texts(LENGTHS), "right" if family in ENCODER_DECODERS else "left", PAD)
    return {"input_ids": ids, "attention_mask": mask}, 1 if family in ENCODER_DECODERS else ids.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_tokens(family: str) -> None:
    """Greedy, and sampled with a min_p near 1: chance is then out of it, and every processor is still at work."""
    theirs, ours = models(family)
    given, start = prompts(family)
    for extra in ({"do_sample": False}, {"do_sample": True, "min_p": 0.999}):
        settings = {**SETTINGS, **extra}
        answer = ours.generate(**given, **settings)
        assert torch.equal(theirs.generate(**given, **settings), answer)
        assert torch.equal(ours.generate(**given, use_cache=False, **settings), answer)
        assert len(answer[:, start:].unique()) > 2  # the models say something
        ends = [int(answer[0, start + 3]), int(answer[-1, start + 6])]
        stopped = ours.generate(**given, eos_token_id=ends, **settings)
        assert torch.equal(theirs.generate(**given, eos_token_id=ends, **settings), stopped)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_one_by_one(family: str) -> None:
    _, ours = models(family)
    given, start = prompts(family)
    for extra in ({"do_sample": False}, {"do_sample": True, "seed": 4, "top_p": 0.9}):
        together = ours.generate(**given, **SETTINGS, **extra)
        for row, prompt in enumerate(texts(LENGTHS)):
            alone = ours.generate(prompt[None], **SETTINGS, **extra)
            assert torch.equal(together[row, start:], alone[0, 1 if start == 1 else len(prompt) :])

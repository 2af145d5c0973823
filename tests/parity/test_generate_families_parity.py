"""generate on the families that are variants of others: the same tokens as transformers, and in any batch."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from parity.pairs import load, padded, texts
from parity.tiny import VARIANTS, make

LENGTHS = (6, 2, 4)
SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "pad_token_id": 0}


@functools.cache
def models(family: str) -> tuple[Any, Any]:
    theirs = make(family, "ForCausalLM", tie_word_embeddings=False)
    theirs.set_attn_implementation("eager")
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():  # spread wide, so that greedy search does not repeat one token
        for p in theirs.parameters():
            p.mul_(4.0 if p.dim() > 1 else 1.0)
    return theirs, load(theirs, "ForCausalLM")


@pytest.mark.parametrize("family", VARIANTS)
@pytest.mark.parametrize(
    "extra", [{"do_sample": False}, {"do_sample": True, "min_p": 0.999}], ids=["greedy", "sampled"]
)
def test_the_same_tokens(family: str, extra: dict[str, Any]) -> None:
    """With min_p near 1 chance is out of sampling, and every processor is still at work."""
    theirs, ours = models(family)
    ids, mask = padded(texts(LENGTHS), "left", 0)
    given = {"input_ids": ids, "attention_mask": mask, **SETTINGS, **extra}
    answer = ours.generate(**given)
    assert torch.equal(theirs.generate(**given), answer)
    assert torch.equal(ours.generate(**given, use_cache=False), answer)
    assert len(answer[:, ids.shape[1] :].unique()) > 4  # the models say something
    ends = [int(answer[0, ids.shape[1] + 3]), int(answer[-1, ids.shape[1] + 6])]
    stopped = ours.generate(**given, eos_token_id=ends)
    assert torch.equal(theirs.generate(**given, eos_token_id=ends), stopped)


@pytest.mark.parametrize("family", VARIANTS)
def test_a_batch_equals_one_by_one(family: str) -> None:
    _, ours = models(family)
    prompts = texts(LENGTHS)
    ids, mask = padded(prompts, "left", 0)
    for extra in ({"do_sample": False}, {"do_sample": True, "seed": 4, "top_p": 0.9}):
        together = ours.generate(ids, attention_mask=mask, **SETTINGS, **extra)
        for row, prompt in enumerate(prompts):
            alone = ours.generate(prompt[None], **SETTINGS, **extra)
            assert torch.equal(together[row, ids.shape[1] :], alone[0, len(prompt) :])

"""Token by token through the cache equals the whole text at once, and transformers on each text alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, inputs, padded, pair, texts
from parity.tiny_models import ENCODER_DECODERS, VARIANTS, decoder_fields
from torch import Tensor

DECODERS = {"gpt2": "LMHeadModel", "llama": "ForCausalLM", "bert": "LMHeadModel", "roberta": "ForCausalLM"}
DECODERS |= dict.fromkeys(VARIANTS, "ForCausalLM")
PAD = 0


@functools.cache
def models(family: str) -> tuple[Any, Any]:
    ending = DECODERS.get(family, "MTModel" if family.startswith("marian") else "ForConditionalGeneration")
    extra = {"pad_token_id": PAD} if family == "roberta" else {}
    return pair(family, ending, **decoder_fields(family, ending), **extra)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def run_steps(model: Any, given: list[Tensor], prompts: list[int], side: str, steps: list[int]) -> tuple[Any, Any]:
    """Prompts padded to one length, then `steps` new tokens at a time; all outputs and the last cache."""
    ids, mask = padded([t[:n] for t, n in zip(given, prompts, strict=True)], side, PAD)
    out = model(ids, attention_mask=mask, use_cache=True)
    outs, seen = [out], list(prompts)
    for n in steps:
        new = torch.stack([t[s : s + n] for t, s in zip(given, seen, strict=True)])
        out = model(new, past_key_values=out.past_key_values, use_cache=True, output_attentions=True)
        outs.append(out)
        seen = [s + n for s in seen]
    return outs, out.past_key_values


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompts", [[5, 5, 5], [6, 2, 4]], ids=["equal", "unequal"])
@pytest.mark.parametrize("steps", [[1, 1, 1, 1], [3, 1, 2]], ids=["one", "several"])
def test_steps_equal_the_whole_text(family: str, side: str, prompts: list[int], steps: list[int]) -> None:
    theirs, ours = models(family)
    given = texts((12, 12, 12))
    outs, cache = run_steps(ours, given, prompts, side, steps)
    assert cache.lengths.tolist() == [n + sum(steps) for n in prompts]
    longest = max(prompts)
    for b, (text, prompt) in enumerate(zip(given, prompts, strict=True)):
        whole = theirs(text[None, : prompt + sum(steps)], output_attentions=True)
        columns = torch.arange(longest)
        real = columns >= longest - prompt if side == "left" else columns < prompt
        assert gap(outs[0].logits[b][real], whole.logits[0, :prompt]) < TOLERANCE
        at = prompt
        for n, out in zip(steps, outs[1:], strict=True):
            assert gap(out.logits[b], whole.logits[0, at : at + n]) < TOLERANCE
            grown = out.attentions[0].shape[-1]
            assert out.attentions[0].shape == (3, 4, n, grown) and grown == longest + at - prompt + n
            seen = torch.cat((real, torch.ones(grown - longest, dtype=torch.bool)))
            for mine, yours in zip(out.attentions, whole.attentions, strict=True):
                assert gap(mine[b][:, :, seen], yours[0, :, at : at + n, : at + n]) < TOLERANCE
                assert not mine[b][:, :, ~seen].any()
            at += n


@pytest.mark.parametrize("family", DECODERS)
def test_logits_of_the_last_real_token(family: str) -> None:
    _, ours = models(family)
    given = texts((7, 3, 5))
    rows = []
    for side in ("left", "right"):
        ids, mask = padded(given, side, PAD)
        rows.append(ours(ids, attention_mask=mask, logits_to_keep=1).logits)
        assert rows[-1].shape == (3, 1, 99)
    assert gap(rows[0], rows[1]) < TOLERANCE
    for b, text in enumerate(given):
        assert gap(rows[0][b], ours(text[None]).logits[0, -1:]) < TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("prompts", [[5, 5, 5], [6, 2, 4]], ids=["equal", "unequal"])
def test_select_and_crop(family: str, prompts: list[int]) -> None:
    theirs, ours = models(family)
    given = texts((12, 12, 12))
    _, cache = run_steps(ours, given, prompts, "left", [2])
    index = torch.tensor([2, 0, 0])
    cache.select(index)
    held = [prompts[i] + 2 for i in index.tolist()]
    assert cache.lengths.tolist() == held
    new = torch.stack([given[i][n : n + 1] for i, n in zip(index.tolist(), held, strict=True)])
    out = ours(new, past_key_values=cache)
    for b, i in enumerate(index.tolist()):
        assert gap(out.logits[b], theirs(given[i][None, : held[b] + 1]).logits[0, -1:]) < TOLERANCE
    cache.crop(4)
    assert cache.lengths.tolist() == [min(4, n + 1) for n in held]
    new = torch.stack([given[i][min(4, held[b] + 1)][None] for b, i in enumerate(index.tolist())])
    out = ours(new, past_key_values=cache, output_attentions=True)
    for b, i in enumerate(index.tolist()):
        whole = theirs(given[i][None, : min(4, held[b] + 1) + 1]).logits
        assert gap(out.logits[b], whole[0, -1:]) < TOLERANCE
    assert out.attentions[0].shape[:3] == (3, 4, 1)


@pytest.mark.parametrize("family", ENCODER_DECODERS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("steps", [[1] * 5, [2, 3]], ids=["one", "several"])
def test_encoder_decoders(family: str, side: str, steps: list[int]) -> None:
    theirs, ours = models(family)
    lengths = (7, 3, 5)
    source, target = texts(lengths), texts((6, 6, 6), seed=2)
    ids, mask = padded(source, side, PAD)
    encoded = ours.encode(ids, mask)
    cache, at, found = None, 0, []
    for n in [1, *steps]:
        new = torch.stack([t[at : at + n] for t in target])
        out = ours(
            decoder_input_ids=new,
            encoder_outputs=encoded,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            output_attentions=True,
        )
        cache, at = out.past_key_values, at + n
        found.append(out)
    logits = torch.cat([o.logits for o in found], 1)
    crossed = torch.cat([o.cross_attentions[1] for o in found], 2)  # [batch, heads, targets, sources]
    for b, text in enumerate(source):
        whole = theirs(text[None], decoder_input_ids=target[b][None], output_attentions=True)
        assert gap(logits[b], whole.logits[0]) < TOLERANCE
        assert gap(crossed[b][:, :, mask[b].bool()], whole.cross_attentions[1][0]) < TOLERANCE
        last = found[-1].decoder_attentions[0][b]
        assert gap(last, whole.decoder_attentions[0][0, :, -steps[-1] :]) < TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_training_keeps_no_cache_unless_it_is_asked(family: str) -> None:
    _, ours = models(family)
    given = inputs(family, (5, 5))
    try:
        assert ours.train()(**given).get("past_key_values") is None
    finally:
        ours.eval()
    assert ours(**given, use_cache=False).past_key_values is None
    assert ours(**given).past_key_values is not None

"""Rotary positions where texts pass the length that the model was trained on: cached = uncached = alone = transformers.

Transformers is the measure where it agrees with itself: of each text alone, without a cache. There a batch takes the
frequencies of its longest text, a cache keeps the keys of the frequencies that it was filled with (Phi-3's generate
throws it away at the border), and dynamic NTK remembers the longest text that it has seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, padded, pair, texts
from torch import Tensor

from cutaway import LlamaConfig, LlamaForCausalLM, ModernBertConfig, ModernBertModel
from cutaway.errors import CheckpointError, ConfigError, InputError
from cutaway.nn.kv_cache import Cache

BORDER = 12
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 3.0, 4.0]}
ORIGINAL = {"original_max_position_embeddings": BORDER}
# the scheme, and config.max_position_embeddings
SCHEMES: dict[str, tuple[dict[str, Any], int]] = {
    "default": ({"rope_type": "default"}, 64),
    "partial": ({"rope_type": "default", "partial_rotary_factor": 0.5}, 64),
    "linear": ({"rope_type": "linear", "factor": 4.0}, BORDER),
    "dynamic": ({"rope_type": "dynamic", "factor": 2.0}, BORDER),
    "dynamic, factor 1": ({"rope_type": "dynamic", "factor": 1.0}, BORDER),
    "llama3": ({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL}, 64),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, **ORIGINAL}, BORDER),
    "longrope": ({"rope_type": "longrope", "factor": 4.0, **FACTORS, **ORIGINAL}, 64),
}
FIELDS = {"pad_token_id": 0, "eos_token_id": 2}
BY_LENGTH = ("dynamic", "dynamic, factor 1", "longrope")


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def models(scheme: str, family: str = "llama", ending: str = "ForCausalLM", **fields: Any) -> tuple[Any, Any]:
    rope, longest = SCHEMES[scheme]
    if "hidden_size" in fields:  # heads of 32, as the kernels have them
        rope = {name: value * 4 if isinstance(value, list) else value for name, value in rope.items()}
    if family == "phi3":  # it publishes the border outside the table
        fields = {**ORIGINAL, **fields}
    return pair(
        family,
        ending,
        rope_parameters={"rope_theta": 500.0, **rope},
        max_position_embeddings=longest,
        **FIELDS,
        **fields,
    )


def by_itself(theirs: Any, text: Tensor, mask: Tensor | None = None) -> Tensor:
    """Upstream's logits [length, V] of one text; a short one before makes it forget the longest that it has seen."""
    theirs(text[None, :2])
    return theirs(text[None], attention_mask=None if mask is None else mask[None]).logits[0]


# of Llama, upstream turns whole heads, whatever the table says
CASES = [(scheme, "phi3" if scheme == "partial" else "llama") for scheme in SCHEMES]
CASES += [("longrope", "phi3"), ("dynamic", "mistral"), ("yarn", "qwen3")]


@pytest.mark.parametrize(("scheme", "family"), CASES)
def test_texts_around_the_border_beside_each_other(scheme: str, family: str) -> None:
    fields = {"head_dim": 8} if family == "qwen3" else {}
    theirs, ours = models(scheme, family, **fields)
    given = texts((BORDER - 1, BORDER, BORDER + 1, 3, 3 * BORDER, 2 * BORDER))
    wanted = [by_itself(theirs, text) for text in given]
    for text, logits in zip(given, wanted, strict=True):
        assert gap(ours(text[None]).logits[0], logits) < TOLERANCE, len(text)
    for side in ("right", "left"):
        ids, mask = padded(given, side, 0)
        found = ours(ids, attention_mask=mask).logits
        for b, logits in enumerate(wanted):
            assert gap(found[b, mask[b].bool()], logits) < TOLERANCE, (side, b)
    two, rows = [given[1], given[2]], torch.cat((torch.arange(BORDER), torch.arange(BORDER + 1)))
    found = ours(torch.cat(two)[None], position_ids=rows[None]).logits[0]  # one text after another in a row
    assert gap(found, torch.cat([wanted[1], wanted[2]])) < TOLERANCE


@pytest.mark.parametrize(("scheme", "family"), CASES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cache_across_the_border(scheme: str, family: str, side: str) -> None:
    """Token by token over it, several at once, back again, and on from copies; hidden words count as places."""
    fields = {"head_dim": 8} if family == "qwen3" else {}
    theirs, ours = models(scheme, family, **fields)
    prompts = (BORDER - 2, BORDER - 4, BORDER + 2, BORDER - 3)
    ids, mask = padded(texts(prompts), side, 0)
    mask[3, mask[3].nonzero()[2:4, 0]] = 0
    more = torch.stack(texts((12,) * 4, seed=3))

    def wanted(b: int, end: int) -> Tensor:
        first = int(mask[b].argmax())
        text = torch.cat((ids[b, first : first + prompts[b]], more[b, :end]))
        seen = torch.cat((mask[b, first : first + prompts[b]], torch.ones(end, dtype=mask.dtype)))
        return by_itself(theirs, text, seen)

    cache, at = ours(ids, attention_mask=mask, use_cache=True).past_key_values, 0
    for n in (1, 1, 1, 3, 1, 1):
        found = ours(more[:, at : at + n], past_key_values=cache).logits
        at += n
        for b in range(4):
            assert gap(found[b], wanted(b, at)[-n:]) < TOLERANCE, (b, at)
    cache.select(torch.tensor([2, 1, 3]))
    other = cache.copy()
    for held in (other, cache):
        held.crop([prompts[2] - 5, prompts[1] + 1, prompts[3] - 2 + 2])  # all of them before the border again
        found = ours(more[[0, 1, 3], 2:4], past_key_values=held).logits
        text = torch.cat((ids[2, mask[2].bool()][: prompts[2] - 5], more[0, 2:4]))
        assert gap(found[0], by_itself(theirs, text)[-2:]) < TOLERANCE
        text = torch.cat((ids[1, mask[1].bool()], more[1, :1], more[1, 2:4]))
        assert gap(found[1], by_itself(theirs, text)[-2:]) < TOLERANCE
        assert gap(found[2], wanted(3, 4)[-2:]) < TOLERANCE


@pytest.mark.parametrize("scheme", [*BY_LENGTH, "linear"])
def test_generate_across_the_border(scheme: str) -> None:
    """With a cache as without, alone as beside others, sampled, with beams, and on from a saved cache."""
    theirs, ours = models(scheme, "phi3" if scheme == "longrope" else "llama", hidden_size=128)
    given, new = texts((BORDER - 3, BORDER - 1, BORDER + 3)), 7
    settings = {"max_new_tokens": new, "eos_token_id": None, "pad_token_id": 0}
    wanted = []
    for text in given:
        for _ in range(new):
            text = torch.cat((text, by_itself(theirs, text)[-1:].argmax(-1)))
        wanted.append(text[-new:].tolist())
    ids, mask = padded(given, "left", 0)
    for more in ({}, {"use_cache": False}):
        assert ours.generate(ids, attention_mask=mask, **settings, **more)[:, -new:].tolist() == wanted, more
    for text, own in zip(given, wanted, strict=True):
        assert ours.generate(text[None], **settings)[0, -new:].tolist() == own
        assert ours.generate(text[None], **settings, prompt_lookup_num_tokens=3)[0, -new:].tolist() == own
    for more in ({"do_sample": True, "seed": 3, "num_return_sequences": 2}, {"num_beams": 3}):
        both = [
            ours.generate(ids, attention_mask=mask, **settings, **more, use_cache=cached) for cached in (True, False)
        ]
        assert torch.equal(*both), more
    if scheme == "longrope":  # upstream gradient_checkpointing the past in the same place
        assert theirs.generate(given[0][None], **settings, do_sample=False)[0, -new:].tolist() == wanted[0]


@pytest.mark.parametrize("scheme", BY_LENGTH)
def test_a_saved_cache_passes_the_border(scheme: str, tmp_path: Any) -> None:
    theirs, ours = models(scheme)
    text = texts((BORDER + 3,))[0]
    cache = ours(text[None, : BORDER - 1], use_cache=True).past_key_values
    cache.save(tmp_path / "cache")
    cache = Cache.load(tmp_path / "cache")
    with ours.record("blocks.1.attn.k", "logits") as r:
        found = ours(text[None, BORDER - 1 :], past_key_values=cache).logits[0]
    assert gap(found, by_itself(theirs, text)[BORDER - 1 :]) < TOLERANCE
    assert r["blocks.1.attn.k"].shape[1] == 4  # the new tokens', not those that were computed again
    held = Cache.load(tmp_path / "cache")
    held.inputs = None  # of an earlier version
    with pytest.raises(InputError, match="run the whole text"):
        ours(text[None, BORDER - 1 :], past_key_values=held)
    held.inputs = Cache.load(tmp_path / "cache").inputs
    held.inputs.positions += 1 << 40
    held.save(tmp_path / "wrong")
    with pytest.raises(CheckpointError, match="damaged"):
        Cache.load(tmp_path / "wrong")


@pytest.mark.parametrize("scheme", BY_LENGTH)
def test_edits_reach_what_is_computed_again(scheme: str) -> None:
    _, ours = models(scheme)
    text = texts((BORDER + 2,))[0]
    for place, value in (("embed", 0.3), ("blocks.0.attn.v", 0.1), ("blocks.1.resid", 0.2)):
        with ours.edit({place: lambda x, value=value: x * value}):
            cache = ours(text[None, : BORDER - 1], use_cache=True).past_key_values
            found = [ours(text[None, i : i + 1], past_key_values=cache).logits[0] for i in range(BORDER - 1, len(text))]
            assert gap(found[-1], ours(text[None]).logits[0, -1:]) < TOLERANCE, place


def test_lengths_that_a_scheme_exists_for_are_served() -> None:
    for scheme, most in (("linear", 4 * BORDER), ("yarn", 4 * BORDER), ("longrope", 64), ("default", 64)):
        ours = models(scheme)[1]
        ours(torch.full((1, most), 5))
        with pytest.raises(InputError, match=f"can take {most}"):
            ours(torch.full((1, most + 1), 5))
    ours = models("dynamic")[1]
    ours(torch.full((1, 20 * BORDER), 5))
    with pytest.raises(InputError, match="position_ids"):
        ours(torch.full((1, 2), 5), position_ids=torch.tensor([[0, 2**40]]))


LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize("name", ["type", "rope_type"])
@pytest.mark.parametrize("scheme", ["linear", "dynamic", "yarn", "longrope", "llama3"])
def test_a_scaling_beside_the_parameters_is_used(scheme: str, name: str) -> None:
    """Set on a config that was read with `rope_parameters`, or written there beside them."""
    rope, longest = SCHEMES[scheme]
    old = {(name if key == "rope_type" else key): value for key, value in rope.items()}
    wanted = LlamaConfig(max_position_embeddings=longest, rope_parameters={**rope, "rope_theta": 500.0})
    plain = {"rope_type": "default", "rope_theta": 500.0}
    beside = LlamaConfig(max_position_embeddings=longest, rope_parameters=plain, rope_scaling=old)
    later = LlamaConfig(max_position_embeddings=longest, rope_parameters=plain)
    later.rope_scaling = old
    twice = LlamaConfig(max_position_embeddings=longest, rope_parameters=wanted.rope_parameters, rope_scaling=old)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    built = []
    for config in (wanted, beside, later, twice):
        for field, value in sizes.items():
            setattr(config, field, value)
        built.append(LlamaForCausalLM(config).architecture.stack.positions)
    assert built[0].scaling.kind == scheme and built[0].theta == 500.0
    assert built == [built[0]] * 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_parameters": LINEAR, "rope_scaling": {**LINEAR, "factor": 4.0}}, "factor = 4.0"),
        ({"rope_parameters": LINEAR, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic'"),
        ({"rope_parameters": LINEAR, "rope_scaling": {"rope_type": "default"}}, "rope_type = 'default'"),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {**LINEAR, "rope_theta": 6.0}}, "rope_theta = 6.0"),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_theta": 6.0}, "rope_theta is 6.0"),
        ({"rope_scaling": {**LINEAR, "partial_rotary_factor": 0.5}, "partial_rotary_factor": 1.0}, "partial_rotary"),
        ({"rope_parameters": LINEAR, "rope_scaling": "linear"}, "rope_scaling is 'linear'"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlamaForCausalLM(LlamaConfig(vocab_size=9, num_hidden_layers=1, **fields))


def test_a_family_with_a_table_for_each_kind_of_layer_refuses_another() -> None:
    for fields in ({"rope_parameters": LINEAR}, {"rope_parameters": {"full_attention": LINEAR, "factor": 2.0}}):
        with pytest.raises(ConfigError, match="each kind of layer"):
            ModernBertModel(ModernBertConfig(vocab_size=9, num_hidden_layers=1, **fields))

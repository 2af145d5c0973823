"""Nothing that is not computed again changes a text: caches that are gone on from, common beginnings, guesses."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.pairs import load, texts
from parity.tiny_models import decoder_fields, make

from cutaway.errors import CheckpointError, GenerationError, InputError
from cutaway.generate import GenerationConfig, stream
from cutaway.generate.cache_reuse import guess, positions_are_fixed, shared_prefix_length
from cutaway.models.decode_step import DecodeStepper
from cutaway.nn.kv_cache import Cache

ENDINGS = {"gpt2": "LMHeadModel", "llama": "ForCausalLM"}
# the ids are all tokens: none of them is padding
SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "eos_token_id": None, "pad_token_id": None, "do_sample": False}


@functools.cache
def models(family: str) -> tuple[Any, Any]:
    longest = {"gpt2": {"n_positions": 200}, "llama": {"max_position_embeddings": 200}}[family]
    theirs = make(family, ENDINGS[family], **decoder_fields(family, ENDINGS[family]), **longest)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1:  # spread wide, so that greedy search does not repeat one token
                parameter.mul_(6.0)
    return theirs, load(theirs, ENDINGS[family])


def theirs_says(theirs: Any, ids: torch.Tensor, **settings: Any) -> torch.Tensor:
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), **{**SETTINGS, "pad_token_id": 0}, **settings)


@pytest.mark.parametrize("family", ENDINGS)
def test_a_chat_goes_on_from_its_cache(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = models(family)
    ids = texts((9,))[0][None]
    first = ours.generate(ids, return_dict_in_generate=True, **SETTINGS)
    first.past_key_values.save(tmp_path / "chat.safetensors")
    assert [f.name for f in tmp_path.iterdir()] == ["chat.safetensors"]
    then = torch.cat((first.sequences, texts((5,), seed=4)[0][None]), 1)
    wanted = theirs_says(theirs, then)
    run: list[int] = []
    forward = type(ours).forward
    monkeypatch.setattr(
        type(ours), "forward", lambda self, **g: run.append(g["input_ids"].shape[1]) or forward(self, **g)
    )
    for past in (first.past_key_values, Cache.load(tmp_path / "chat.safetensors")):
        run.clear()
        assert torch.equal(ours.generate(then, past_key_values=past, **SETTINGS), wanted)
        assert run[0] == 6  # the last token of the answer, and what is new
        changed = then.clone()
        changed[0, 12] = 7  # another history: what is alike stays
        run.clear()
        again = ours.generate(changed, past_key_values=past, **SETTINGS)
        assert torch.equal(again, theirs_says(theirs, changed)) and run[0] == then.shape[1] - 12


@pytest.mark.parametrize("family", ENDINGS)
def test_one_beginning_for_many_prompts(family: str) -> None:
    theirs, ours = models(family)
    start = texts((30,))[0]
    prompts = [torch.cat((start, end)) for end in texts((4, 2, 7), seed=8)]
    width = max(map(len, prompts))
    ids = torch.stack([torch.nn.functional.pad(p, (width - len(p), 0)) for p in prompts])
    mask = torch.stack([torch.arange(width) >= width - len(p) for p in prompts]).long()
    past = ours(start[None], use_cache=True).past_key_values  # it does not know its tokens
    out = ours.generate(ids, attention_mask=mask, past_key_values=past, **SETTINGS)
    alone = [theirs_says(theirs, p[None])[0, len(p) :] for p in prompts]
    assert torch.equal(out[:, width:], torch.stack(alone))
    many, many_mask = ids.repeat(2, 1), mask.repeat(2, 1)
    assert shared_prefix_length([row[m.bool()].tolist() for row, m in zip(many, many_mask, strict=True)]) == 30
    sampled = {**SETTINGS, "do_sample": True, "seed": 3, "num_return_sequences": 2, "top_k": 1}
    found = ours.generate(many, attention_mask=many_mask, **sampled)
    assert torch.equal(found[::2, width:], torch.stack(alone * 2))


def test_a_cache_of_one_text_serves_many_calls() -> None:
    _, ours = models("llama")
    start, *ends = texts((20, 5, 5, 5))
    past = ours(start[None], use_cache=True).past_key_values
    ids = torch.stack([torch.cat((start, end)) for end in ends])
    for prompts, more in (
        (ids, {}),
        (ids[:2], {"num_beams": 3, "num_return_sequences": 2}),
        (ids[:1], {"num_beams": 2}),
        (ids[1:2], {"do_sample": True, "seed": 5, "num_return_sequences": 3}),
    ):
        wanted = ours.generate(prompts, **(SETTINGS | more))
        for _ in range(2):
            assert torch.equal(ours.generate(prompts, past_key_values=past, **(SETTINGS | more)), wanted)
            assert (past.lengths.tolist(), past.ids) == ([20], None)
    many = ours(ids[:, :22], use_cache=True).past_key_values
    beams = {**SETTINGS, "num_beams": 3}
    assert torch.equal(ours.generate(ids, past_key_values=many, **beams), ours.generate(ids, **beams))
    assert many.lengths.tolist() == [22] * 3
    empty = Cache()
    first = ours.generate(ids, past_key_values=empty, **SETTINGS)
    assert empty.ids == first[:, :-1].tolist()
    list(stream(ours, ids[:, :21], past_key_values=empty, **(SETTINGS | {"max_new_tokens": 3})))
    assert empty.lengths.tolist() == [23] * 3 and empty.ids is not None


def test_who_looks_on_sees_the_prompts_as_they_are() -> None:
    _, ours = models("llama")
    start, *ends = texts((70, 3, 3))
    ids = torch.stack([torch.cat((start, end)) for end in ends])
    assert shared_prefix_length(ids.tolist()) == 70
    with ours.record("blocks.0.resid") as found:
        ours.generate(ids, **(SETTINGS | {"max_new_tokens": 1}))
    assert found["blocks.0.resid"].shape[:2] == (2, 73)


def test_a_beginning_is_not_shared_where_positions_change_with_the_length() -> None:
    theirs = make(
        "llama",
        ENDINGS["llama"],
        **decoder_fields("llama", ENDINGS["llama"]),
        max_position_embeddings=200,
        rope_parameters={
            "rope_type": "dynamic",
            "factor": 2.0,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 40,
        },
    )
    ours = load(theirs, ENDINGS["llama"])
    assert not positions_are_fixed(ours) and positions_are_fixed(models("llama")[1])


def test_what_a_cache_cannot_serve(tmp_path: Path) -> None:
    _, ours = models("llama")
    ids = texts((6, 6))
    past = ours(ids[0][None], use_cache=True).past_key_values
    for given, settings in (
        (ids[0][None], {}),
        (torch.stack([torch.cat(ids)]), {"output_attentions": True, "return_dict_in_generate": True}),
        (torch.cat(ids)[None], {"use_cache": False}),
    ):
        with pytest.raises(GenerationError):
            ours.generate(given, past_key_values=past, **SETTINGS, **settings)
    with pytest.raises(GenerationError, match=r"Cache\.load"):
        ours.generate(ids[0][None], past_key_values=((),), **SETTINGS)
    with pytest.raises(GenerationError, match="holds 2 texts"):
        ours.generate(torch.stack([torch.cat(ids)] * 3), past_key_values=ours(torch.stack(ids)).past_key_values)
    with pytest.raises(InputError, match="empty"):
        Cache().save(tmp_path / "x")
    (tmp_path / "y").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"Cache\.save"):
        Cache.load(tmp_path / "y")


@pytest.mark.parametrize("family", ENDINGS)
@pytest.mark.parametrize("guessed", [1, 4])
def test_guesses_do_not_change_the_text(family: str, guessed: int) -> None:
    theirs, ours = models(family)
    for seed in range(3):
        ids = texts((10,), seed=seed)[0].repeat(3)[None]
        settings = {"repetition_penalty": 1.3} if seed == 1 else {}
        found = ours.generate(
            ids,
            prompt_lookup_num_tokens=guessed,
            return_dict_in_generate=True,
            **(SETTINGS | {"max_new_tokens": 40}),
            **settings,
        )
        wanted = ours.generate(ids, **(SETTINGS | {"max_new_tokens": 40}), **settings)
        assert torch.equal(found.sequences, wanted)
        assert torch.equal(wanted[:, :42], theirs_says(theirs, ids, **settings))
        assert found.past_key_values.lengths.tolist() == [69]
        assert found.past_key_values.ids == [wanted[0, :69].tolist()]


def test_guesses_spare_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = models("llama")
    ids = texts((6,))[0][None]
    said = ours.generate(ids, **(SETTINGS | {"max_new_tokens": 60}))
    passes: list[int] = []
    step = DecodeStepper.__call__
    monkeypatch.setattr(
        DecodeStepper, "__call__", lambda self, ids, *a: passes.append(ids.shape[1]) or step(self, ids, *a)
    )
    # the text that it will say stands in the prompt already
    both = torch.cat((said, ids), 1)
    out = ours.generate(both, prompt_lookup_num_tokens=8, **(SETTINGS | {"max_new_tokens": 30}))
    plain = ours.generate(both, **(SETTINGS | {"max_new_tokens": 30}))
    assert torch.equal(out, plain)
    assert max(passes) <= 9


def test_a_guess_is_what_followed() -> None:
    text = torch.tensor([1, 2, 3, 4, 9, 2, 3, 5, 6, 2, 3])
    assert guess(text, 2, 2) == [5, 6]  # the latest place
    assert guess(text, 9, 3) == [5, 6, 2, 3]
    assert guess(torch.tensor([1, 2, 3]), 2, 2) == []
    assert guess(torch.tensor([4, 4]), 2, 2) == [4]


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"num_beams": 2},
        {"use_cache": False},
        {"output_attentions": True, "return_dict_in_generate": True},
    ],
)
def test_guesses_need_greedy_search(settings: dict[str, Any]) -> None:
    _, ours = models("llama")
    with pytest.raises(GenerationError, match="prompt_lookup_num_tokens"):
        ours.generate(texts((4,))[0][None], prompt_lookup_num_tokens=3, **settings)
    with pytest.raises(GenerationError, match="there are 2"):
        ours.generate(torch.stack(texts((4, 4))), prompt_lookup_num_tokens=3)
    ours.generation_config = GenerationConfig(prompt_lookup_num_tokens=3)  # a wish of its files is no error
    try:
        assert ours.generate(texts((4,))[0][None], max_new_tokens=2, **settings) is not None
    finally:
        ours.generation_config = None


def test_time_and_cancelling() -> None:
    _, ours = models("llama")
    ids = torch.stack(texts((4, 4)))
    assert ours.generate(ids, max_time=1e-9, **SETTINGS).shape == (2, 5)
    with pytest.raises(GenerationError, match="beams"):
        ours.generate(ids, max_time=1, num_beams=2, **SETTINGS)
    assert ours.generate(ids, max_time=600, **SETTINGS).shape == (2, 16)
    event = threading.Event()
    seen = []
    for token in stream(ours, ids, cancel=event, **SETTINGS):
        seen.append(token)
        if len(seen) == 3:
            event.set()
    assert (len(seen), seen[-1].last) == (6, True)  # the third of them came when the second step was over
    left = iter([False, False, True])
    assert ours.generate(ids, cancel=lambda: next(left), **SETTINGS).shape == (2, 7)
    for wrong in ({"max_time": 0}, {"max_time": "1"}, {"cancel": 3}):
        with pytest.raises(GenerationError, match=next(iter(wrong))):
            ours.generate(ids, **wrong)


def test_vectors_go_on_from_what_the_cache_holds_of_them() -> None:
    """As upstream: inputs_embeds is the whole text, and the cache holds its beginning."""
    theirs, ours = models("llama")
    ids = texts((6,))[0][None]
    with torch.no_grad():
        vectors = ours.get_input_embeddings()(ids)
        settings = {**SETTINGS, "return_dict_in_generate": True}
        whole = ours.generate(inputs_embeds=vectors, **settings)
        begun = ours.generate(inputs_embeds=vectors, **{**settings, "max_new_tokens": 5})
        longer = torch.cat((vectors, ours.get_input_embeddings()(begun.sequences)), 1)
        more = {**settings, "max_new_tokens": 7, "past_key_values": begun.past_key_values}
        found = ours.generate(inputs_embeds=longer, **more)
        assert torch.equal(torch.cat((begun.sequences, found.sequences), 1), whole.sequences)
        assert torch.equal(whole.sequences, theirs_says(theirs, ids)[:, ids.shape[1] :])
        cache = begun.past_key_values
        for given, message in (
            ({"inputs_embeds": longer[:, :4]}, "inputs_embeds has 4 vectors, and past_key_values holds"),
            ({"inputs_embeds": longer.expand(2, -1, -1)}, "each text of the cache is one of the call"),
        ):
            with pytest.raises(GenerationError, match=message):
                ours.generate(**given, past_key_values=cache, **SETTINGS)

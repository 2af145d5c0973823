"""The running batch in every family: who joins and leaves it when, each request writes what it writes alone."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
import torch
from parity.pairs import load
from parity.tiny_models import ENCODER_DECODERS, VARIANTS, make

from cutaway.serve.batch_cache import BatchCache
from cutaway.serve.engine import Engine
from cutaway.serve.generator import Generator
from cutaway.serve.metrics import Metrics
from cutaway.serve.settings import Limits
from cutaway.serve.writing import Token, Writing, make_writing

FAMILIES = [*(family for family in VARIANTS if family not in ENCODER_DECODERS), "llama", "gpt2"]
PROMPTS = (3, 40, 1, 17, 30, 8)


def model_of(family: str) -> Any:
    theirs = make(family, "LMHeadModel" if family == "gpt2" else "ForCausalLM", tie_word_embeddings=False)
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():  # spread wide, so that greedy search does not repeat one token
        for name, p in theirs.named_parameters():
            if p.dim() > 1 and p.requires_grad:
                p.mul_(20.0 if "positions" in name or "wpe" in name else 4.0)
    return load(theirs, "LMHeadModel" if family == "gpt2" else "ForCausalLM").eval()


def write(generator: Generator, requests: list[tuple[list[int], dict[str, Any]]], gone: int | None = None) -> Any:
    """The new tokens of each copy of each request; each arrives a turn after the one before."""
    loop = asyncio.new_event_loop()
    writings: list[Writing] = []
    left = list(requests)
    with torch.no_grad():
        while left or any(generator.count()) or generator.reading:
            if left:
                ids, settings = left.pop(0)
                made = make_writing(generator.model, None, ids, {**settings, "loop": loop}, None, 60)
                writings.append(made)
                generator.submit(made)
            generator.turn()
            if gone is not None and len(writings) > gone + 2:
                writings[gone].gone = True

    async def drain() -> list[dict[int, list[int]]]:
        await asyncio.sleep(0)
        found = []
        for writing in writings:
            tokens: dict[int, list[int]] = {}
            while not writing.events.empty():
                event = writing.events.get_nowait()
                assert isinstance(event, Token), event
                tokens.setdefault(event.copy, []).append(event.id)
            found.append(tokens)
        return found

    found = loop.run_until_complete(drain())
    loop.close()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_each_request_writes_what_it_writes_alone(family: str) -> None:
    model = model_of(family)
    longest = model.architecture.stack.longest or 128
    draw = random.Random(3)
    common = [draw.randrange(5, 99) for _ in range(20)]
    requests = []
    for i, n in enumerate(PROMPTS):
        ids = [draw.randrange(5, 99) for _ in range(min(n, longest - 12))]
        if i in (1, 4):  # these begin alike
            ids[: len(common)] = common[: len(ids)]
        sampled = {"do_sample": True, "seed": i, "top_p": 0.9, "num_return_sequences": 1 + i % 3}
        requests.append((ids, {"max_new_tokens": 3 + (5 * i) % 9, "pad_token_id": 0, **(sampled if i % 2 else {})}))
    generator = Generator("x", model, Engine(), Limits(running=6, piece_tokens=16, batch_tokens=24), Metrics())
    found = write(generator, requests)
    for (ids, settings), tokens in zip(requests, found, strict=True):
        alone = model.generate(torch.tensor([ids]), **settings)[:, len(ids) :].tolist()
        assert [tokens[copy] for copy in range(len(alone))] == alone
    if generator.stays:
        assert len(generator.prefixes) and generator.metrics.registry.get_sample_value(
            "cutaway_prompt_tokens_cached_total", {"model": "x"}
        )


def test_who_leaves_changes_nothing_for_the_others() -> None:
    model = model_of("llama")
    requests = [([5 + i] * (4 + 3 * i), {"max_new_tokens": 12, "pad_token_id": 0}) for i in range(5)]
    generator = Generator("x", model, Engine(), Limits(running=5, prefix_bytes=0), Metrics())
    found = write(generator, requests, gone=1)
    for i, ((ids, settings), tokens) in enumerate(zip(requests, found, strict=True)):
        alone = model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist()
        assert tokens[0] == (alone[: len(tokens[0])] if i == 1 else alone)
    assert 0 < len(found[1][0]) < 12 and generator.count() == (0, 0)


def test_files_that_ask_for_another_search_do_not_get_it() -> None:
    from cutaway.generate import GenerationConfig
    from cutaway.serve.text_settings import Sampling, generate_settings

    model = model_of("llama")
    expected = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=6, pad_token_id=0)[0, 3:].tolist()
    asked = {"num_beams": 3, "penalty_alpha": 0.6, "use_cache": False, "output_scores": True, "temperature": 0.5}
    model.generation_config = GenerationConfig.from_dict({**asked, "return_dict_in_generate": True, "pad_token_id": 0})
    settings = generate_settings(Sampling(temperature=0), model, 3, 1)
    generator = Generator("x", model, Engine(), Limits(), Metrics())
    assert write(generator, [([5, 6, 7], {**settings, "max_new_tokens": 6})]) == [{0: expected}]


def test_a_late_request_is_ended_and_a_failing_turn_ends_all() -> None:
    model = model_of("llama")
    generator, loop = Generator("x", model, Engine(), Limits(), Metrics()), asyncio.new_event_loop()
    late = make_writing(model, None, [5, 6], {"max_new_tokens": 9, "pad_token_id": 0, "loop": loop}, None, 60)
    late.deadline = time.monotonic() - 1
    other = make_writing(model, None, [5, 6], {"max_new_tokens": 9, "pad_token_id": 0, "loop": loop}, None, 60)
    for one in (late, other):
        generator.submit(one)
    generator.turn()
    generator.fail(RuntimeError("broken"))

    async def last(writing: Writing) -> Any:
        await asyncio.sleep(0)
        event = None
        while not writing.events.empty():
            event = writing.events.get_nowait()
        return event

    assert "longer than" in str(loop.run_until_complete(last(late)))
    assert str(loop.run_until_complete(last(other))) == "broken"
    assert generator.count() == (0, 0)
    loop.close()


def test_the_cache_holds_each_text_through_joins_and_leaves() -> None:
    """Against plain tensors: any order of joining, leaving and growing, with texts longer and shorter than the rest."""
    from cutaway.nn.kv_cache import Cache
    from cutaway.nn.packed_batch import PackedBatch

    draw = random.Random(5)

    def text(n: int) -> Cache:
        cache = Cache()
        cache.n_layers = 2
        cache.buffer = torch.randn(4, 1, 1, n, 8)
        cache._set_lengths([n], torch.device("cpu"))
        return cache

    held, mirror = BatchCache(5), []
    for _ in range(300):
        kind = draw.choice(("join", "leave", "grow"))
        if kind == "join" and len(mirror) < 5:
            new = text(draw.choice((1, 3, 50, 400)))
            held.join(new)
            mirror.append(new.buffer[:, 0])
        elif kind == "leave" and mirror:
            gone = draw.randrange(len(mirror))
            order = [len(mirror) - 1 if i == gone else i for i in range(len(mirror) - 1)]
            if order:
                held.select(torch.tensor(order))
            else:
                held.clear()
            mirror = [mirror[i] for i in order]
        elif kind == "grow" and mirror:
            with held.appending(PackedBatch(len(mirror), 1, None), 2):
                for layer in range(2):
                    k, v = torch.randn(2, len(mirror), 1, 1, 8)
                    held.append(layer, k, v)
                    for row in range(len(mirror)):
                        if layer == 0:
                            mirror[row] = torch.nn.functional.pad(mirror[row], (0, 0, 0, 1))
                        mirror[row][2 * layer, :, -1], mirror[row][2 * layer + 1, :, -1] = k[row, 0], v[row, 0]
        for row, wanted in enumerate(mirror):
            n = wanted.shape[2]
            assert int(held.lengths[row]) == n
            found = held.buffer[:, row, :, : held.longest]
            assert torch.equal(found[:, :, held.longest - n :], wanted) and not found[:, :, : held.longest - n].any()

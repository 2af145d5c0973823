"""The running batch in every family: who joins and leaves it when, each request writes what it writes alone."""

from __future__ import annotations

import asyncio
import itertools
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


def test_a_long_prompt_that_is_read_keeps_its_places() -> None:
    """However long it is held back: who came later and is short does not take them."""
    model = model_of("llama")
    limits = Limits(running=2, piece_tokens=16, batch_tokens=24)
    generator = Generator("x", model, Engine(), limits, Metrics())
    loop = asyncio.new_event_loop()

    def submitted(n: int) -> Writing:
        settings = {"max_new_tokens": 12, "pad_token_id": 0, "loop": loop}
        made = make_writing(model, None, list(range(5, 5 + n)), settings, None, 60)
        generator.submit(made)
        return made

    with torch.no_grad():
        submitted(4)
        generator.turn()
        long = submitted(20)
        generator.turn()
        assert generator.reading is not None and generator.reading.writing is long
        submitted(5)
        for _ in range(4):
            generator.credit = -1e9  # its time is used up
            generator.turn()
        assert generator.reading is not None and generator.count() == (1, 1)
        generator.credit = 0.0
        while any(generator.count()) or generator.reading:
            generator.turn()
    loop.close()


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


WAYS: list[dict[str, Any]] = [
    {"top_k": 0}, {"top_k": 5, "temperature": 0.7}, {"top_k": 0, "top_p": 0.8}, {"top_k": 0, "min_p": 0.1},
    {"top_k": 3, "top_p": 0.9}, {"top_k": 0, "typical_p": 0.8}, {"top_k": 0, "epsilon_cutoff": 0.01},
    {"top_k": 0, "eta_cutoff": 0.01},
]  # fmt: skip


def test_texts_of_one_way_are_drawn_together_and_each_is_that_of_its_seed() -> None:
    model = model_of("llama")
    requests = []
    for i in range(16):
        way = {**WAYS[i % len(WAYS)], "do_sample": True, "seed": i, "max_new_tokens": 14 + i % 5, "pad_token_id": 0}
        requests.append(([5 + i, 9, 3 + i], way))
    generator = Generator("x", model, Engine(), Limits(running=16, prefix_bytes=0), Metrics())
    together: list[int] = []
    chosen = generator._chosen_together

    def watched(places: Any, logits: Any) -> Any:
        found = chosen(places, logits)
        together.append(len(found))
        return found

    generator._chosen_together = watched  # type: ignore[method-assign]
    found = write(generator, requests)
    for (ids, settings), tokens in zip(requests, found, strict=True):
        alone = model.generate(torch.tensor([ids]), **settings)[:, len(ids) :].tolist()
        assert [tokens[0]] == alone
    assert max(together) > 8


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_row_is_drawn_among_others_to_the_bit_as_alone(way: dict[str, Any]) -> None:
    model = model_of("llama")
    loop = asyncio.new_event_loop()
    settings = {**way, "do_sample": True, "max_new_tokens": 2, "pad_token_id": 0, "loop": loop}
    search = make_writing(model, None, [5], settings, None, 60).search
    torch.manual_seed(0)
    scores, uniform = torch.randn(9, 3000) * 4, torch.rand(9, dtype=torch.float64)
    scores[3] = scores[3].round()  # many as likely as the k-th
    scores[5, 7] = float("nan")
    tokens, _ = search.draw(scores, uniform, as_alone=True)
    for row in range(len(scores)):
        alone, _ = search.draw(scores[row : row + 1], uniform[row : row + 1])
        assert tokens[row : row + 1].tolist() == alone.tolist()
    assert tokens[5] == -1
    loop.close()


def test_a_stop_string_ends_a_text_that_is_chosen_with_others() -> None:
    import tiny

    model, tokenizer = model_of("llama"), tiny.byte_level()
    ids, loop = [5, 9, 12], asyncio.new_event_loop()
    settings = {"max_new_tokens": 12, "pad_token_id": 0}
    alone = model.generate(torch.tensor([ids]), **settings)[0, 3:].tolist()
    stop = tokenizer.decode(alone[4:5])
    settings |= {"stop_strings": [stop]}
    expected = model.generate(torch.tensor([ids]), tokenizer=tokenizer, **settings)[0, 3:].tolist()
    generator = Generator("x", model, Engine(), Limits(prefix_bytes=0), Metrics())
    writing = make_writing(model, tokenizer, ids, {**settings, "loop": loop}, None, 60)
    assert writing.plain
    generator.submit(writing)
    while any(generator.count()):
        generator.turn()

    async def drain() -> list[Any]:
        await asyncio.sleep(0)
        return [writing.events.get_nowait() for _ in range(writing.events.qsize())]

    events = loop.run_until_complete(drain())
    assert [event.id for event in events] == expected and len(expected) <= 5 and events[-1].end == "stop"
    loop.close()


def test_short_requests_go_before_one_that_has_no_room_yet_and_do_not_keep_it_waiting() -> None:
    model, loop = model_of("llama"), asyncio.new_event_loop()
    generator = Generator("x", model, Engine(), Limits(running=4, prefix_bytes=0), Metrics())

    def made(new: int, copies: int = 1) -> Writing:
        settings = {"max_new_tokens": new, "pad_token_id": 0, "num_return_sequences": copies, "loop": loop}
        writing = make_writing(model, None, [5, 6], {**settings, "do_sample": True, "seed": 1}, None, 60)
        generator.submit(writing)
        return writing

    running = made(12)
    generator.turn()
    wide, long, short = made(3, copies=4), made(30), made(4)
    while any(generator.count()):
        generator.turn()
    assert short.first is not None and wide.first is not None and long.first is not None
    assert short.first < wide.first < long.first and len(running.written) == 12
    loop.close()


def test_a_crowd_that_comes_at_once_is_read_in_few_turns() -> None:
    model, loop = model_of("llama"), asyncio.new_event_loop()
    generator = Generator("x", model, Engine(), Limits(running=64, prefix_bytes=0, piece_tokens=16), Metrics())

    def submit(n: int) -> None:
        for i in range(n):
            settings = {"max_new_tokens": 30, "pad_token_id": 0, "loop": loop}
            generator.submit(make_writing(model, None, [5 + i % 90] * 8, settings, None, 60))

    submit(2)
    generator.turn()
    submit(60)
    generator.turn()
    assert len(generator.rows) > 30  # of which a piece of 16 tokens is 2
    submit(1)
    while generator.waiting or generator.arriving:
        generator.turn()
    submit(2)  # most are written: a piece is a piece again
    generator._drop_gone()
    assert generator._room_of_a_turn() == 16
    generator.fail(RuntimeError())
    loop.close()


def test_rows_and_columns_that_nobody_uses_take_no_memory() -> None:
    """A long text beside short ones, in a block of many rows: what is touched is what is held."""
    import mmap
    from pathlib import Path

    from cutaway.nn.kv_cache import Cache

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    if not Path("/proc/self/statm").exists():  # another system has no such file
        return

    def text(n: int) -> Cache:
        cache = Cache()
        cache.n_layers = 4
        cache.buffer = torch.ones(8, 1, 2, n, 64)
        cache._set_lengths([n], torch.device("cpu"))
        return cache

    held, short, long = BatchCache(64), text(8), text(4000)  # 64 rows of 4,000 columns: 1 GB
    begun = resident()
    held.join(short)
    held.join(long)
    for _ in range(20):
        held.join(short)
    held.select(torch.arange(10))
    assert held.block is not None and held.block.numel() * 4 > 900 << 20
    assert resident() - begun < 100 << 20


def test_a_long_prompt_takes_a_share_of_the_time_of_steps(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Each piece takes as long as four steps: between two, as many steps pass as make up for it."""
    from cutaway.serve import generator as module

    assert module.SHARE <= 0.5  # beside a long prompt, a text that is written takes at most that much longer
    monkeypatch.setattr(module, "SHARE", 0.5)

    model, loop, now = model_of("llama"), asyncio.new_event_loop(), [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    generator = Generator("x", model, Engine(), Limits(running=4, prefix_bytes=0, piece_tokens=2), Metrics())
    order: list[str] = []

    def timed(name: str, seconds: float) -> None:
        function = getattr(generator, name)

        def run(*given: Any) -> Any:
            if name == "_write" and not generator.rows:
                return None
            order.append(name)
            if name == "_go_on":
                now[0] += seconds
            return function(*given)

        monkeypatch.setattr(generator, name, run)

    class Model:
        """The stepper, a second a step."""

        def __init__(self, stepper: Any) -> None:
            self.stepper = stepper

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stepper, name)

        def __call__(self, *given: Any) -> Any:
            now[0] += 1.0
            return self.stepper(*given)

    monkeypatch.setattr(module, "ALONE_PIECE", 4)
    settings = {"pad_token_id": 0, "loop": loop}
    short = make_writing(model, None, [5, 6], {**settings, "max_new_tokens": 36}, None, 60)
    generator.submit(short)
    generator.turn()
    assert generator.stepper is not None
    generator.stepper = Model(generator.stepper)  # type: ignore[assignment]
    timed("_go_on", 4.0)
    timed("_write", 0.0)
    generator.submit(make_writing(model, None, [7] * 8, {**settings, "max_new_tokens": 2}, None, 60))
    while short.first is not None and short in {writing for writing, _ in generator.rows}:
        generator.turn()
    pieces = [at for at, name in enumerate(order) if name == "_go_on"]
    assert len(pieces) == 4
    assert all(8 <= later - at - 1 <= 10 for at, later in itertools.pairwise(pieces))
    loop.close()


def test_a_client_that_was_just_answered_does_not_come_back_to_a_long_piece(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """While nothing is written, a long prompt is read in short pieces at first, and later in long ones."""
    from cutaway.serve import generator as module

    monkeypatch.setattr(module, "ALONE_PIECE", 4)
    monkeypatch.setattr(module, "LONG_PIECE", 10)
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    model, loop = model_of("llama"), asyncio.new_event_loop()
    generator = Generator("x", model, Engine(), Limits(running=4, prefix_bytes=0, piece_tokens=2), Metrics())
    short = make_writing(model, None, [1, 2], {"max_new_tokens": 2, "loop": loop}, None, 60)
    generator.submit(short)
    while any(generator.count()):
        generator.turn()
    long = make_writing(model, None, [i % 50 + 1 for i in range(36)], {"max_new_tokens": 1, "loop": loop}, None, 60)
    generator.submit(long)
    read: list[int] = []
    for _ in range(4):
        now[0] += 0.4
        before = 0 if generator.reading is None else generator.reading.done
        generator.turn()
        assert generator.reading is not None
        read.append(generator.reading.done - before)
    assert read == [2, 2, 10, 10]
    loop.close()

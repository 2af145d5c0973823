"""The engine's turns: each source of work has its share of time, and a long job is held or ended between two passes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest
import torch
from parity.pairs import load
from parity.tiny_models import make

from cutaway.nn.call_context import begin_pass
from cutaway.serve import engine as engine_module
from cutaway.serve.engine import Engine, Jobs


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(engine_module.time, "perf_counter", lambda: self.now)


class Work:
    """A source whose turns take `seconds` each."""

    def __init__(self, clock, seconds, left=10**9):
        self.clock, self.seconds, self.left, self.turns = clock, seconds, left, 0

    def turn(self):
        if not self.left:
            return False
        self.left -= 1
        self.turns += 1
        self.clock.now += self.seconds
        return True

    def fail(self, error):
        self.left = 0


def test_long_turns_of_one_leave_the_others_their_time(monkeypatch):
    clock = Clock(monkeypatch)
    engine, long, short = Engine(), Work(clock, 10.0), Work(clock, 0.1)
    engine.add(long)
    engine.add(short)
    while clock.now < 100:
        assert engine.turn()
    assert 40 <= short.turns * short.seconds <= 60


def test_who_had_no_work_is_first_and_gets_no_more_than_a_share(monkeypatch):
    clock = Clock(monkeypatch)
    engine, steady, late = Engine(), Work(clock, 0.1), Work(clock, 0.1, left=0)
    engine.add(steady)
    engine.add(late)
    for _ in range(1000):
        engine.turn()
    late.left, before = 10**9, steady.turns
    engine.turn()
    assert late.turns == 1
    for _ in range(100):
        engine.turn()
    assert abs((steady.turns - before) - late.turns) <= 2
    steady.left = late.left = 0
    assert not engine.turn()


@pytest.fixture
def running():
    engine = Engine()
    jobs = Jobs(engine)
    engine.add(jobs)
    engine.start()
    yield engine, jobs
    engine.close()


def test_a_job_of_many_passes_lets_others_in_between(monkeypatch):
    monkeypatch.setattr(engine_module, "SLICE", 0.0)
    jobs, seen = Jobs(Engine()), []

    def work():
        for _ in range(20):
            begin_pass()
            seen.append(turns)
        return "done"

    job, turns = jobs.submit(work), 0
    while not job.done():
        assert jobs.turn()
        turns += 1
    assert job.result() == "done" and seen == list(range(1, 21)) and not jobs.turn()
    jobs.fail(RuntimeError())


def test_a_job_that_nobody_waits_for_ends_before_its_next_pass(running):
    _, jobs = running
    begun, go, passes = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        go.wait(30)
        for _ in range(10):
            with contextlib.suppress(Exception):
                begin_pass()
            passes.append(1)

    job = jobs.submit(work)
    begun.wait(30)
    job.left = True
    go.set()
    with pytest.raises(RuntimeError, match="waited"):
        job.result(timeout=30)
    assert not passes
    assert jobs.submit(lambda: 5).result(timeout=30) == 5


def test_errors_reach_who_waits_and_closing_ends_what_runs(running):
    engine, jobs = running
    with pytest.raises(ZeroDivisionError):
        jobs.submit(lambda: 1 / 0).result(timeout=30)

    def endless():
        while True:
            time.sleep(0.001)
            begin_pass()

    job, waiting = jobs.submit(endless), jobs.submit(lambda: 1)
    time.sleep(0.05)
    engine.close()
    for one in (job, waiting):
        with pytest.raises(RuntimeError):
            one.result(timeout=30)
    assert "cutaway-jobs" not in {thread.name for thread in threading.enumerate() if thread is jobs._thread}


def test_an_explanation_that_is_interrupted_is_the_same(monkeypatch):
    """What runs between its passes, on the same model, changes nothing of it."""
    from cutaway.inspect.gradients import integrated_gradients
    from cutaway.inspect.target import Target

    model = load(make("llama", "ForCausalLM"), "ForCausalLM").eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    work = lambda: integrated_gradients(model, inputs, Target(index=3), steps=8, most=2).scores  # noqa: E731
    other = lambda: model.generate(torch.tensor([[9, 5]]), max_new_tokens=3, do_sample=False).tolist()  # noqa: E731
    alone, expected = work(), other()
    monkeypatch.setattr(engine_module, "SLICE", 0.0)
    jobs, between = Jobs(Engine()), 0
    job = jobs.submit(work)
    while not job.done():
        jobs.turn()
        assert other() == expected
        between += 1
    assert torch.equal(job.result(), alone) and between > 1
    jobs.fail(RuntimeError())


def test_the_job_of_a_request_that_left_ends():
    from cutaway.serve.service import Service

    service = Service({"x": "cutaway/sentiment"})
    service.engine.start()
    begun, ended = threading.Event(), threading.Event()

    def endless():
        begun.set()
        try:
            while True:
                time.sleep(0.001)
                begin_pass()
        finally:
            ended.set()

    async def leave():
        task = asyncio.ensure_future(service.compute(endless))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert ended.wait(30)
    service.close()

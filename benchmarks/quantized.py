"""Models in few bits: tokens per second, prompts, memory and the time to a first token, beside llama.cpp on one file.

SmolLM2-135M in five formats, written by `cutaway convert`. A text counts as right where its tokens are those of float32
on the same weights; both sides round the rows that they multiply, so near ties may fall otherwise in either.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from decoder import LLAMA_CPP, NEW, OURS, prompts
from process import BUILD, JOB_SECONDS, Entry, Worker, leave_out, measured, turns, workers

BATCHED = "peers.llama_cpp_peer:Batched"
FORMATS = ("q4_0", "q4_1", "q4_k_m", "q6_k", "q8_0")
PARTS = (*FORMATS, "own")
PROMPT, VOCABULARY = 512, 49_000  # tokens
STARTS = 3  # processes that are started for each library and format


def written(gguf: Path, form: str) -> Path:
    """The weights in another format, under `BUILD`."""
    from cutaway.convert import to_gguf

    target = BUILD / f"smollm2-{form}.gguf"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        to_gguf(gguf, target, form)
    return target


def shares(running: dict[Entry, Worker], call: str, inputs: Any, new: int) -> dict[Entry, float]:
    """How much of each text is float32's text on the same weights."""
    texts = {entry: worker.result(call, inputs, new) for entry, worker in running.items()}
    right = next(text for entry, text in texts.items() if entry.precision == "fp32")
    return {entry: float((text == right).mean()) for entry, text in texts.items()}


def writing(running: dict[Entry, Worker], exact: Entry, texts: int, rounds: int) -> list[dict[str, Any]]:
    """So many sequences at once: the rates of all but `exact`, and how much of each text is its."""
    asked = ("continued", prompts(texts, VOCABULARY), NEW)
    right = shares(running, *asked)
    timed = {entry: worker for entry, worker in running.items() if entry != exact}
    took = turns(timed, dict.fromkeys(timed, asked), rounds, is_warm=True, at_most=JOB_SECONDS)
    return [measured(e, seconds, texts * NEW, same_text=right[e]) for e, seconds in took.items()]


def started(entry: Entry, file: Path, threads: int) -> dict[str, float]:
    """A process from its start: seconds to the first token, and MB above its imports after 16."""
    worker = Worker(entry, file, threads)
    try:
        ids = prompts(1, VOCABULARY)
        first = worker.start["seconds"] + worker.ask("continued", ids, 1)["seconds"]
        worker.ask("continued", ids, 16)
        return {"first_token_seconds": first, "memory_mb": float(worker.result("memory"))}
    finally:
        worker.close()


def format_figures(form: str, file: Path, threads: int, rounds: int) -> Iterator[tuple[str, Any]]:
    """One format: one sequence, eight, a prompt, and starts."""
    exact, ours = Entry("cutaway", OURS, "fp32"), Entry("cutaway", OURS, "blocks")
    theirs, batched = Entry("llama.cpp", LLAMA_CPP, form), Entry("llama.cpp", BATCHED, form)
    with workers([exact, ours, theirs], file, threads) as running:
        yield f"{form}_1", writing(running, exact, 1, rounds)
        timed = {entry: worker for entry, worker in running.items() if entry != exact}
        long = np.random.default_rng(1).integers(1000, VOCABULARY, PROMPT).tolist()
        logits = {entry: worker.result("prompt", long) for entry, worker in running.items()}
        took = turns(timed, dict.fromkeys(timed, ("prompt", long)), rounds, is_warm=True, at_most=JOB_SECONDS)
        yield (
            f"{form}_prompt",
            [
                measured(e, seconds, PROMPT, error=float(np.std(logits[e] - logits[exact]) / np.std(logits[exact])))
                for e, seconds in took.items()
            ],
        )
    with workers([exact, ours, batched], file, threads) as running:
        yield f"{form}_8", writing(running, exact, 8, rounds)
    starts: dict[Entry, list[dict[str, float]]] = {ours: [], theirs: []}
    for _ in range(STARTS):
        for entry, found in starts.items():
            try:
                found.append(started(entry, file, threads))
            except RuntimeError as error:
                leave_out(entry, error)
    yield (
        f"{form}_starts",
        [
            {
                "name": entry.name,
                "precision": entry.precision,
                "file_mb": file.stat().st_size / 1e6,
                **{key: statistics.median(one[key] for one in found) for key in ("first_token_seconds", "memory_mb")},
            }
            for entry, found in starts.items()
            if found
        ],
    )


def suite(gguf: Path, threads: int, rounds: int, parts: Iterable[str] = PARTS) -> Iterator[tuple[str, Any]]:
    """Each format beside llama.cpp, then our own int8 and int4 of the same weights."""
    for form in parts:
        if form == "own":
            yield own_figures(gguf, threads, rounds)
        else:
            yield from format_figures(form, written(gguf, form), threads, rounds)


def own_figures(gguf: Path, threads: int, rounds: int) -> tuple[str, Any]:
    """Our own few bits, beside float32, of the same weights."""
    entries = [Entry("cutaway", OURS, precision) for precision in ("fp32", "int8", "int4")]
    inputs = prompts(1, VOCABULARY)
    with workers(entries, gguf, threads) as running:
        right = shares(running, "continued", inputs, NEW)
        calls = dict.fromkeys(running, ("continued", inputs, NEW))
        took = turns(running, calls, rounds, is_warm=True, at_most=JOB_SECONDS)
        return "own", [
            measured(e, seconds, NEW, same_text=right[e], memory_mb=float(running[e].result("memory")))
            for e, seconds in took.items()
        ]

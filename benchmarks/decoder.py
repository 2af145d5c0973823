"""Decoders: greedy tokens per second, one sequence and several, SmolLM2-135M and a GPT-2 of 124M."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from process import BUILD, Entry, Worker, leave_out, measured, turns, workers

OURS, THEIRS = "peers.cutaway_peer:Decoder", "peers.transformers_peer:Decoder"
LLAMA_CPP = "peers.llama_cpp_peer:Decoder"
PROMPT, NEW = 16, 48  # tokens
ENTRIES = [
    Entry("cutaway", OURS, "fp32"),
    Entry("cutaway", OURS, "bf16"),
    Entry("cutaway", OURS, "int8"),
    Entry("transformers", THEIRS, "fp32"),
    Entry("transformers", THEIRS, "bf16"),
]


def gpt2_size() -> Path:
    """A GPT-2 of 124M parameters with random weights, under `BUILD`."""
    target = BUILD / "gpt2-size"
    if not (target / "model.safetensors").exists():
        import torch
        import transformers

        torch.manual_seed(0)
        transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(target)
    return target


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    """`count` different prompts of `PROMPT` tokens."""
    draw = np.random.default_rng(0)
    ids: list[list[int]] = draw.integers(1000, vocabulary - 1000, (count, PROMPT)).tolist()
    return ids


def rates(running: dict[Entry, Worker], count: int, vocabulary: int, rounds: int) -> list[dict[str, Any]]:
    """New tokens per second, summed over `count` sequences; and whether the fp32 text is transformers' text."""
    inputs = prompts(count, vocabulary)
    texts = {entry: worker.result("continued", inputs, NEW) for entry, worker in running.items()}
    right = next(text for entry, text in texts.items() if entry.where == THEIRS and entry.precision == "fp32")
    seconds = turns(running, dict.fromkeys(running, ("continued", inputs, NEW)), rounds, is_warm=True)
    return [
        measured(entry, took, count * NEW, same_text=float((texts[entry] == right).mean()))
        for entry, took in seconds.items()
    ]


def eight_bit(gguf: Path) -> Path:
    """The same weights as Q8_0, written by llama.cpp's own quantizer."""
    target = BUILD / "smollm2-q8_0.gguf"
    if not target.exists():
        import llama_cpp

        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
        if llama_cpp.llama_model_quantize(str(gguf).encode(), str(target).encode(), options) != 0:
            raise RuntimeError("llama.cpp did not write the Q8_0 file")
    return target


def suite(gguf: Path, threads: int, rounds: int) -> Iterator[tuple[str, Any]]:
    """SmolLM2 from its GGUF file, then the GPT-2 size; 1, 8 and 32 sequences."""
    with workers(ENTRIES, gguf, threads) as running:
        cpp: dict[Entry, Worker] = {}
        for kind, file in (("Q4_1", lambda: gguf), ("Q8_0", lambda: eight_bit(gguf))):
            entry = Entry("llama.cpp", LLAMA_CPP, kind)
            try:
                cpp[entry] = Worker(entry, file(), threads)
            except (RuntimeError, ImportError) as error:
                leave_out(entry, error)
        yield "versions", {entry.name: worker.start["version"] for entry, worker in {**running, **cpp}.items()}
        for count in (1, 8, 32):
            both = {**running, **cpp} if count == 1 else running
            yield f"smollm2_{count}", rates(both, count, 49_000, rounds)
        for worker in cpp.values():
            worker.close()
    with workers(ENTRIES, gpt2_size(), threads) as running:
        for count in (1, 8):
            yield f"gpt2_{count}", rates(running, count, 50_000, rounds)

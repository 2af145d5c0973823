"""Encoders: sentence vectors of short and of mixed texts, single queries, a BERT-base size, starting and memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers.batches import Tokens
from process import BUILD, Entry, Worker, cosine_distance, measured, turns, workers

OURS, THEIRS = "peers.cutaway_peer:Encoder", "peers.transformers_peer:Encoder"
IMPORTS = Entry("imports alone", "peers.imports_peer:Imports", "fp32")
ENTRIES = [
    Entry("cutaway", OURS, "fp32"),
    Entry("cutaway", OURS, "bf16", tolerance=2e-3),
    Entry("cutaway", OURS, "int8", tolerance=2e-2),
    Entry("transformers, sorted", THEIRS, "fp32"),
    Entry("transformers, sorted", THEIRS, "bf16", tolerance=2e-3),
    Entry("transformers pipeline, batch 32", "peers.transformers_peer:Pipeline", "fp32", share=0.25),
    Entry("transformers pipeline, batch 1", "peers.transformers_peer:PipelineOneByOne", "fp32", share=0.25),
    Entry("sentence-transformers", "peers.sentence_transformers_peer:Encoder", "fp32"),
    Entry("ONNX Runtime", "peers.onnxruntime_peer:Encoder", "fp32"),
    Entry("ONNX Runtime", "peers.onnxruntime_peer:Encoder", "int8", tolerance=5e-2),
    Entry("OpenVINO", "peers.openvino_peer:Encoder", "fp32"),
    Entry("OpenVINO", "peers.openvino_peer:Encoder", "bf16", tolerance=2e-3),
    Entry("CTranslate2", "peers.ctranslate2_peer:Encoder", "fp32"),
    Entry("CTranslate2", "peers.ctranslate2_peer:Encoder", "int8", tolerance=2e-2),
]


def throughput(running: dict[Entry, Worker], tokens: Tokens, texts: list[str], rounds: int) -> list[dict[str, Any]]:
    """Tokens per second of each entry; its vectors are compared with fp32 transformers' first."""
    lengths = [len(ids) for ids in tokens.ids(texts)]
    parts = {entry: texts[: max(1, round(entry.share * len(texts)))] for entry in running}
    probe = texts[:64]
    reference = next(w for e, w in running.items() if e.where == THEIRS and e.precision == "fp32")
    right = reference.result("vectors", probe)
    distance = {entry: cosine_distance(worker.result("vectors", probe), right) for entry, worker in running.items()}
    wrong = [f"{e.name} {e.precision}: {d:.1e}" for e, d in distance.items() if d > e.tolerance]
    if wrong:
        raise SystemExit(f"other results than fp32 transformers, so their times say nothing: {'; '.join(wrong)}")
    seconds = turns(running, {entry: ("vectors", part) for entry, part in parts.items()}, rounds)
    return [
        measured(entry, took, sum(lengths[: len(parts[entry])]), cosine_distance=distance[entry])
        for entry, took in seconds.items()
    ]


def queries(running: dict[Entry, Worker], texts: list[str]) -> list[dict[str, Any]]:
    """Milliseconds of one text at a time: the median and the 99th percentile."""
    seconds: dict[Entry, list[float]] = {entry: [] for entry in running}
    for number, text in enumerate([*texts[:5], *texts]):
        for entry, worker in running.items():
            took = worker.ask("vectors", [text])["seconds"]
            if number >= 5:
                seconds[entry].append(1000 * took)
    return [
        {
            "name": entry.name,
            "precision": entry.precision,
            "p50_ms": statistics.median(took),
            "p99_ms": float(np.percentile(took, 99)),
        }
        for entry, took in seconds.items()
    ]


def starts(folder: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds from the start of a process to its first vector, and its peak memory then and after 10,000 texts."""
    from texts import snippets

    texts = (snippets() * 2)[:10_000]
    entries = [IMPORTS, *(e for e in ENTRIES if e.precision == "fp32" and e.share == 1.0)]
    lines = []
    for entry in entries:
        ready, peak = [], 0.0
        for number in range(rounds + 1):
            worker = Worker(entry, folder, threads)
            first = worker.ask("vectors", ["A first text."])
            if number:  # the first start only brings the files into the system's cache
                ready.append(worker.start["seconds"] + first["seconds"])
            if number == rounds and entry.where in (OURS, THEIRS):
                peak = worker.ask("vectors", texts)["peak_mb"]
            worker.close()
        lines.append(
            {"name": entry.name, "seconds": statistics.median(ready), "load_mb": first["peak_mb"], "scored_mb": peak}
        )
    return lines


def base_size(folder: Path) -> Path:
    """A BERT of the base size with random weights (they cost what trained ones cost), under `BUILD`."""
    target = BUILD / "bert-base"
    if not (target / "model.safetensors").exists():
        import shutil

        import torch
        import transformers

        torch.manual_seed(0)
        # a converter of CTranslate2's asks for a field that later configurations no longer have
        config = transformers.BertConfig(position_embedding_type="absolute")
        transformers.BertModel(config).save_pretrained(target)
        for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
            if (folder / name).exists():
                shutil.copy(folder / name, target / name)
    return target


def suite(folder: Path, threads: int, rounds: int, share: float) -> Iterator[tuple[str, Any]]:
    """Everything above, one job after the other, MiniLM-L6 in `folder`; `share` of the texts."""
    from texts import mixed, short

    def part(texts: list[str]) -> list[str]:
        return texts[: max(64, round(share * len(texts)))]

    tokens = Tokens(folder)
    with workers(ENTRIES, folder, threads) as running:
        yield "versions", {entry.name: worker.start["version"] for entry, worker in running.items()}
        yield "share", share
        yield "short", throughput(running, tokens, part(short()), rounds)
        yield "mixed", throughput(running, tokens, part(mixed()), rounds)
        yield "queries", queries(running, part(short(200)))
    base = base_size(folder)
    entries = [entry for entry in ENTRIES if entry.share == 1.0 and entry.name != "sentence-transformers"]
    with workers(entries, base, threads) as running:
        yield "base_size", throughput(running, tokens, part(short(256)), rounds)
    yield "starts", starts(folder, threads, max(2, rounds // 2))

"""cutaway on a GPU: the same numbers as on the processor, and what a few jobs cost; one JSON file of figures.

    python benchmarks/gpu.py RESULT.json [--device cpu]

With `--device cpu`, small shapes run through the same lines on the processor, to try the script where there is no GPU:
its figures mean nothing. Models are random, of published sizes, so nothing is fetched. Each part is stopped by `LIMIT`
seconds, and what was measured until then is written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cutaway

ROUNDS, LIMIT = 20, 60.0
LLAMA = {
    "vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 4096,
}  # fmt: skip
BERT = {"vocab_size": 30_000, "num_labels": 2}  # the base size
CUDA = torch.device("cuda")
TRIAL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def try_on_processor() -> None:
    """The same on the processor, in sizes that take seconds."""
    global CUDA, ROUNDS
    CUDA, ROUNDS = torch.device("cpu"), 1
    LLAMA.update(TRIAL)
    BERT.update(TRIAL)


def synchronize() -> None:
    if CUDA.type == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], Any]) -> float:
    """The median of some rounds, seconds; a round ends when the GPU has."""
    run()
    synchronize()
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < ROUNDS and (time.perf_counter() - begun < LIMIT or not seconds):
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def decoder() -> Any:
    torch.manual_seed(0)
    return cutaway.AutoModelForCausalLM.from_config(cutaway.LlamaConfig(**LLAMA)).eval()


def encoder() -> Any:
    torch.manual_seed(0)
    return cutaway.AutoModelForSequenceClassification.from_config(cutaway.BertConfig(**BERT)).eval()


@torch.inference_mode()
def parity() -> dict[str, float]:
    """The largest difference between GPU and processor over the spread, float32, padded on both sides."""
    found = {}
    for name, model in (("decoder", decoder()), ("encoder", encoder())):
        ids = torch.randint(5, 30_000, (3, 48))
        for side in ("left", "right"):
            mask = torch.ones_like(ids)
            for row, length in enumerate((48, 17, 30)):
                mask[row, (slice(0, 48 - length) if side == "left" else slice(length, 48))] = 0
            here = model.cpu()(input_ids=ids, attention_mask=mask).logits
            there = model.to(CUDA)(input_ids=ids.to(CUDA), attention_mask=mask.to(CUDA)).logits.cpu()
            real = mask.bool() if here.dim() == 3 else slice(None)
            found[f"{name}, padded {side}"] = float((there[real] - here[real]).abs().max() / here[real].std())
    return found


@torch.inference_mode()
def variable_lengths() -> dict[str, Any]:
    """Texts of many lengths in one batch: padding is never computed, so the rate should not fall with it."""
    model = encoder().bfloat16().to(CUDA)
    found: dict[str, Any] = {}
    for name, lengths in (("equal", [128] * 64), ("mixed", [16 + 7 * i % 240 for i in range(64)])):
        width = max(lengths)
        ids = torch.randint(5, 30_000, (64, width), device=CUDA)
        mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long().to(CUDA)
        seconds = timed(lambda ids=ids, mask=mask: model(input_ids=ids, attention_mask=mask))
        found[name] = {
            "real tokens per second": sum(lengths) / seconds,
            "share of padding": 1 - sum(lengths) / mask.numel(),
        }
    return found


@torch.inference_mode()
def decode_step() -> dict[str, Any]:
    """Greedy tokens per second, one sequence and eight; and one step alone, as it is and captured as a CUDA graph."""
    model = decoder().bfloat16().to(CUDA)
    found: dict[str, Any] = {}
    for count in (1, 8):
        ids = torch.randint(5, 30_000, (count, 32), device=CUDA)
        seconds = timed(lambda ids=ids: model.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False))
        found[f"{count} sequences, tokens per second"] = count * 64 / seconds
    token = torch.randint(5, 30_000, (1, 1), device=CUDA)
    found["one pass over one token, ms"] = 1000 * timed(lambda: model(input_ids=token, use_cache=False))
    if CUDA.type == "cpu":
        return found
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model(input_ids=token, use_cache=False)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = model(input_ids=token, use_cache=False).logits
        graph.replay()
        synchronize()
        plain = model(input_ids=token, use_cache=False).logits
        found["captured, ms"] = 1000 * timed(graph.replay)
        found["captured, largest difference"] = float((captured - plain).abs().max())
    except RuntimeError as error:  # a pass that reads from the GPU cannot be captured; the figure is then this
        found["captured"] = f"not captured: {str(error).splitlines()[0][:200]}"
    return found


def training_step() -> dict[str, Any]:
    """One step of a classifier of the base size, 32 texts of 128 tokens, bfloat16 under autocast."""
    model = encoder().to(CUDA).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(5, 30_000, (32, 128), device=CUDA)
    labels = torch.randint(0, 2, (32,), device=CUDA)
    losses: list[float] = []

    def step() -> None:
        with torch.autocast(CUDA.type, torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))

    seconds = timed(step)
    return {
        "seconds": seconds, "tokens per second": 32 * 128 / seconds, "loss, first and last": (losses[0], losses[-1]),
        "MB": torch.cuda.max_memory_allocated() / 1e6 if CUDA.type == "cuda" else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, metavar="RESULT.json", help="where the figures go")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only try the script")
    asked = parser.parse_args()
    target: Path = asked.target
    if asked.device == "cpu":
        try_on_processor()
    elif not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU on this machine; nothing was measured.")
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if CUDA.type == "cuda" else "cpu, a trial in small sizes",
        "torch": torch.__version__,
        "cutaway": cutaway.__version__,
    }
    for part in (parity, variable_lengths, decode_step, training_step):
        try:
            record[part.__name__] = part()
        except Exception as error:  # the other parts have their figures all the same
            record[part.__name__] = f"{type(error).__name__}: {error}"[:500]
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(part.__name__, json.dumps(record[part.__name__]), flush=True)
        if CUDA.type == "cuda":
            torch.cuda.empty_cache()
    if any(isinstance(record[part.__name__], str) for part in (parity, variable_lengths, decode_step, training_step)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

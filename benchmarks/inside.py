"""What looking inside costs, how time grows with what is asked for, and how close the chip's own rate is."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CACHES = (64, 256, 1024, 4096)  # tokens that a cache holds before the step that is timed
VOCABULARIES = (2_000, 8_000, 32_000, 128_000)
STEPS = 8  # of one sequence, timed together
SMALL = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip


def alternate(
    ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] | None = None
) -> dict[str, float]:
    """Median seconds of each way, taken in turns after one round that is not counted; `clock`: run.py's --clock."""
    clock = clock or (time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:
                seconds[name].append(clock() - start)
    return {name: statistics.median(took) for name, took in seconds.items()}


def recording(model: Any, theirs: Any, inputs: dict[str, Any], rounds: int) -> dict[str, float]:
    """CPU seconds of one padded batch: plain, and with more and more of it recorded; transformers' ways beside.

    `theirs`: {what transformers calls its attention: the model with it}.
    """
    import torch

    def with_record(*addresses: str, read: bool = False) -> Callable[[], object]:
        def way() -> object:
            with model.record(*addresses) as record:
                model(**inputs)
            return [record[a] for a in addresses] if read else record

        return way

    ways = {
        "plain": lambda: model(**inputs),
        "one head's output, and read": with_record("blocks.3.attn.head.2.out", read=True),
        "one layer's attention": with_record("blocks.3.attn.pattern"),
        "one layer's attention, and read": with_record("blocks.3.attn.pattern", read=True),
        "all attention": with_record("blocks.*.attn.pattern"),
        "all hidden states": with_record("blocks.*.resid"),
        "everything": with_record(*model.addresses()),
        "transformers, sdpa, plain": lambda: theirs["sdpa"](**inputs),
        "transformers, eager, plain": lambda: theirs["eager"](**inputs),
        "transformers, eager, attentions and hidden states": lambda: theirs["eager"](
            **inputs, output_attentions=True, output_hidden_states=True
        ),
    }
    with torch.inference_mode():
        return alternate(ways, rounds, time.process_time)


def forward(model: Any, batch: int, length: int) -> Callable[[], object]:
    """One call of the model on random tokens [batch, length]."""
    import torch

    ids = torch.randint(999, 9999, (batch, length))
    return lambda: model(input_ids=ids)


def steps(vocabulary: int, length: int) -> Callable[[], object]:
    """`STEPS` new tokens after `length` tokens that a cache holds, of a small random Llama, as `generate` runs them."""
    import torch

    import cutaway

    torch.manual_seed(0)
    config = cutaway.LlamaConfig(vocab_size=vocabulary, **SMALL)
    model = cutaway.AutoModelForCausalLM.from_config(config).eval()
    cache = model(input_ids=torch.randint(5, vocabulary, (1, length)), use_cache=True, logits_to_keep=1).past_key_values
    stepper, token = model.decode_stepper(), torch.tensor([[7]])

    def way() -> object:
        for _ in range(STEPS):
            logits = stepper(token, cache)
        cache.crop(length)
        return logits

    return way


def step_growth(rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of one new token: after caches of 64 to 4,096 tokens; with vocabularies of 2,000 to 128,000."""
    import torch

    found = {}
    with torch.inference_mode():
        for what, sizes in (("cache", CACHES), ("vocabulary", VOCABULARIES)):
            ways = {str(n): steps(8_000, n) if what == "cache" else steps(n, 64) for n in sizes}
            found[what] = {size: 1e6 * took / STEPS for size, took in alternate(ways, rounds).items()}
    return found


def growth(model: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds for each token: texts of 8 to 512 tokens in one batch of 4,096; batches of 1 to 128 texts of 32."""
    import torch

    shapes = {"length": [(4096 // n, n) for n in (8, 32, 128, 512)], "batch": [(n, 32) for n in (1, 4, 16, 64, 128)]}
    found = {}
    with torch.inference_mode():
        for what, pairs in shapes.items():
            ways = {f"{b}x{n}": forward(model, b, n) for b, n in pairs}
            took = alternate(ways, rounds)
            found[what] = {f"{b}x{n}": 1e6 * took[f"{b}x{n}"] / (b * n) for b, n in pairs}
    return found


def peak_share(model: Any, rounds: int) -> dict[str, float]:
    """GFLOP/s of the linear layers' work in a whole forward pass of 2,048 tokens, and of the bare packed product."""
    import torch

    config = model.config
    hidden, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens = 2048
    ids = torch.randint(999, 9999, (tokens // 32, 32))
    weight, rows = torch.randn(wide, hidden), torch.randn(tokens, hidden)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
    with torch.inference_mode():
        took = alternate(
            {
                "model": lambda: model(input_ids=ids),
                "product": lambda: torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], ""),
            },
            rounds,
        )
    work = layers * (4 * hidden * hidden + 2 * hidden * wide) * 2 * tokens
    return {
        "model_gflops": work / took["model"] / 1e9,
        "product_gflops": 2 * tokens * hidden * wide / took["product"] / 1e9,
    }


def suite(folder: Path, base: Path, threads: int, rounds: int) -> Iterator[tuple[str, Any]]:
    """All in this process. `folder`: MiniLM-L6; `base`: a BERT of the base size."""
    import torch
    import transformers
    from texts import mixed

    import cutaway

    torch.set_num_threads(threads)
    model = cutaway.AutoModel.from_pretrained(folder)
    tokenizer = cutaway.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(mixed(64), padding=True, truncation=True, max_length=512, return_tensors="pt")
    theirs = {
        kind: transformers.AutoModel.from_pretrained(folder, attn_implementation=kind).eval()
        for kind in ("sdpa", "eager")
    }
    yield "recording", recording(model, theirs, dict(inputs), rounds)
    del theirs
    yield "base_size_peak", peak_share(cutaway.AutoModel.from_pretrained(base), rounds)


def growth_suite(folder: Path, threads: int, rounds: int) -> Iterator[tuple[str, Any]]:
    """What a token costs as texts, batches, caches and vocabularies grow. `folder`: MiniLM-L6."""
    import torch

    import cutaway

    torch.set_num_threads(threads)
    yield "growth", growth(cutaway.AutoModel.from_pretrained(folder), rounds) | step_growth(rounds)

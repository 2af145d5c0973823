"""Long prompts: tokens per second of one pass that fills a cache, SmolLM2's shapes, beside transformers.

512, 2,048 and 8,192 tokens (the last beyond what the model was trained for: the numbers are compared all the same).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from decoder import OURS, THEIRS
from process import JOB_SECONDS, Entry, measured, turns, workers

PARTS = ("512", "2048", "8192")
ENTRIES = [
    Entry(name, where, p) for p in ("fp32", "bf16") for name, where in (("cutaway", OURS), ("transformers", THEIRS))
]


def suite(gguf: Path, threads: int, rounds: int, parts: Iterable[str] = PARTS) -> Iterator[tuple[str, Any]]:
    """Each length.

    `error` is how far the last logits are from transformers' in float32, over their spread.
    """
    with workers(ENTRIES, gguf, threads) as running:
        for length in map(int, parts):
            ids = np.random.default_rng(length).integers(1000, 49_000, length).tolist()
            logits = {entry: worker.result("prompt", ids) for entry, worker in running.items()}
            right = next(x for e, x in logits.items() if e.where == THEIRS and e.precision == "fp32")
            took = turns(running, dict.fromkeys(running, ("prompt", ids)), rounds, is_warm=True, at_most=JOB_SECONDS)
            yield (
                f"prompt_{length}",
                [
                    measured(e, seconds, length, error=float(np.std(logits[e] - right) / np.std(right)))
                    for e, seconds in took.items()
                ],
            )

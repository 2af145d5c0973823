"""cutaway, as its users call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


class Encoder:
    """The pipeline over texts."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch

        torch.set_num_threads(threads)
        import cutaway

        self.version = cutaway.__version__
        self.pipe = cutaway.pipeline("feature-extraction", model=str(folder), dtype=DTYPES[precision])

    def vectors(self, texts: list[str]) -> np.ndarray:
        vectors: np.ndarray = self.pipe(texts, pooling="mean", return_tensors="np", truncation=True)
        return vectors


class Decoder:
    """`model.generate`, greedy."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch

        torch.set_num_threads(threads)
        import cutaway

        self.version = cutaway.__version__
        where: dict[str, Any] = {}
        if folder.is_file():
            folder, where["gguf_file"] = folder.parent, folder.name
        self.model = cutaway.AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[precision], **where)

    def continued(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        import torch

        out = self.model.generate(
            torch.tensor(prompts), max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
        )
        answers: list[list[int]] = out[:, len(prompts[0]) :].tolist()
        return answers

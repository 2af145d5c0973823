"""cutaway, as its users call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from peers.memory import resident_megabytes

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8", "int4": "int4", "blocks": "stored"}


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
        load = cutaway.AutoModelForCausalLM.from_pretrained  # which imports what it needs
        self.before = resident_megabytes()
        self.model = load(folder, dtype=DTYPES[precision], **where)

    def continued(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        import torch

        out = self.model.generate(
            torch.tensor(prompts), max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
        )
        answers: list[list[int]] = out[:, len(prompts[0]) :].tolist()
        return answers

    def prompt(self, ids: list[int]) -> list[float]:
        """The logits after a prompt, of a cache that is filled."""
        import torch

        with torch.inference_mode():
            out = self.model(input_ids=torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        logits: list[float] = out.logits[0, -1].float().tolist()
        return logits

    def memory(self) -> float:
        """MB above what the imports took."""
        return resident_megabytes() - self.before


class Translator:
    """`model.generate` of an encoder-decoder: source ids [texts][length], greedy or by beams."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch

        torch.set_num_threads(threads)
        import cutaway

        self.version = cutaway.__version__
        self.model = cutaway.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=DTYPES[precision])

    def translated(self, sources: list[list[int]], new: int, beams: int) -> list[list[int]]:
        import torch

        out = self.model.generate(
            torch.tensor(sources), max_new_tokens=new, min_new_tokens=new, do_sample=False, num_beams=beams
        )
        answers: list[list[int]] = out[:, 1:].tolist()
        return answers

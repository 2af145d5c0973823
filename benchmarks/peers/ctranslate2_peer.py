"""CTranslate2, fp32 or int8, from its own converter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from peers.batches import Tokens, padded, pooled


class Encoder:
    """`ctranslate2.Encoder` on batches sorted by length."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import ctranslate2

        self.version = ctranslate2.__version__
        converted = build / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}.ct2"
        if not converted.exists():
            converter = ctranslate2.converters.TransformersConverter(str(folder))
            converter.convert(str(converted))
        compute = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}[precision]
        self.model = ctranslate2.Encoder(str(converted), device="cpu", compute_type=compute, intra_threads=threads)
        self.tokens = Tokens(folder)

    def vectors(self, texts: list[str]) -> np.ndarray:
        rows: list[np.ndarray] = [np.empty(0)] * len(texts)
        for places, ids in self.tokens.sorted_batches(texts):
            states = np.array(self.model.forward_batch(ids).last_hidden_state)
            for place, vector in zip(places, pooled(states, padded(ids)[1]), strict=True):
                rows[place] = vector
        return np.stack(rows)

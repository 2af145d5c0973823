"""sentence-transformers over the same folder, mean pooling."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.batches import LONGEST


class Encoder:
    """`SentenceTransformer.encode`, which sorts by length itself."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import sentence_transformers
        import torch
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        torch.set_num_threads(threads)
        self.version = sentence_transformers.__version__
        words = Transformer(str(folder), max_seq_length=LONGEST)
        mean = Pooling(words.get_embedding_dimension())
        self.model = sentence_transformers.SentenceTransformer(modules=[words, mean], device="cpu")

    def vectors(self, texts: list[str]) -> np.ndarray:
        vectors: np.ndarray = self.model.encode(texts, batch_size=32, show_progress_bar=False)
        return vectors

"""CTranslate2, fp32 or int8, from its own converter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from peers.batches import Tokens, padded, pooled

COMPUTE = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def converted(folder: Path, build: Path) -> Path:
    """The model in CTranslate2's own form, written once."""
    import ctranslate2

    target = build / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}.ct2"
    if not target.exists():
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target))
    return target


class Encoder:
    """`ctranslate2.Encoder` on batches sorted by length."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import ctranslate2

        self.version = ctranslate2.__version__
        compute = COMPUTE[precision]
        self.model = ctranslate2.Encoder(
            str(converted(folder, build)), device="cpu", compute_type=compute, intra_threads=threads
        )
        self.tokens = Tokens(folder)

    def vectors(self, texts: list[str]) -> np.ndarray:
        rows: list[np.ndarray] = [np.empty(0)] * len(texts)
        for places, ids in self.tokens.sorted_batches(texts):
            states = np.array(self.model.forward_batch(ids).last_hidden_state)
            for place, vector in zip(places, pooled(states, padded(ids)[1]), strict=True):
                rows[place] = vector
        return np.stack(rows)


class Translator:
    """`ctranslate2.Translator`: source ids [texts][length], greedy or by beams; words are the ids' names."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        self.version = ctranslate2.__version__
        where = str(converted(folder, build))
        self.model = ctranslate2.Translator(where, device="cpu", compute_type=COMPUTE[precision], intra_threads=threads)
        self.words = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def translated(self, sources: list[list[int]], new: int, beams: int) -> list[list[int]]:
        batch = [[self.words.id_to_token(i) for i in row] for row in sources]
        # the first token that it writes is one of those asked for
        out = self.model.translate_batch(
            batch, beam_size=beams, max_decoding_length=new, min_decoding_length=new, max_batch_size=0
        )
        return [[self.words.token_to_id(word) for word in one.hypotheses[0]] for one in out]

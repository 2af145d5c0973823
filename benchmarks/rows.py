"""Rows and a tiny model for the runs that count rows: made by a seed, so that two runs have the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from cutaway import BertConfig, BertForSequenceClassification, BertTokenizer

WORDS = [
    "a", "the", "film", "plot", "cast", "score", "good", "bad", "dull",
    "warm", "long", "short", "never", "felt", "was", "is", "not", "very",
]  # fmt: skip


def tiny_model(folder: Path) -> Path:
    """A classifier of two layers with random weights: what is measured is everything around the model."""
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"0123456789"]
    vocabulary += [f"##{digit}" for digit in "0123456789"]
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.5,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokens = {token: i for i, token in enumerate(vocabulary)}
    BertTokenizer(vocab=tokens, model_max_length=64).save_pretrained(folder)
    return folder


def texts(number: int, seed: int = 0) -> Iterator[str]:
    """Texts of 1 to 30 words, each with its number in it."""
    draw = random.Random(seed)
    for i in range(number):
        yield " ".join([*draw.choices(WORDS, k=draw.randint(1, 29)), str(i)])


def write_rows(path: Path, number: int) -> None:
    """JSON lines {"id", "text"}."""
    with path.open("w", encoding="utf-8") as file:
        for i, text in enumerate(texts(number)):
            file.write(json.dumps({"id": i, "text": text}) + "\n")

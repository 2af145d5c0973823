"""Texts to measure on: real film-review snippets, alone and joined to mixed lengths; the same for the same seed."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "build" / "sentiment" / "data"  # where the recipe of the built-in model keeps them as well

sys.path.append(str(HERE.parent / "recipes"))


def snippets() -> list[str]:
    """All film-review snippets, in an order of our own."""
    from reviews import Source, fetch

    texts = [row.text for row in Source(fetch(DATA)).films()]
    random.Random(0).shuffle(texts)
    return texts


def short(count: int = 2048) -> list[str]:
    """`count` snippets: about 27 tokens each."""
    return snippets()[:count]


def mixed(count: int = 512, words: int = 56) -> list[str]:
    """`count` texts of log-normal length, `words` in the middle and 8 to 400: snippets joined and cut between words."""
    chance = random.Random(1)
    stream = " ".join(snippets()).split()
    texts, at = [], 0
    for _ in range(count):
        length = min(400, max(8, round(math.exp(chance.gauss(math.log(words), 0.75)))))
        if at + length > len(stream):
            at = 0
        texts.append(" ".join(stream[at : at + length]))
        at += length
    return texts

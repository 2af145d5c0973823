"""Texts to measure on: sentences put together from a list of words, always the same for the same seed."""

from __future__ import annotations

import random

VOCABULARY = (
    "a the this that one its film story actor scene music camera plot director ending character hour minute screen "
    "is was feels seems becomes remains moves tells shows gives keeps loses finds makes turns plays wants leaves "
    "slow quick warm cold funny clever honest dull strange gentle brave empty long bright tired careful familiar "
    "and but because while although with without about through for never always almost hardly often simply still"
)
WORDS = VOCABULARY.split()


def sentences(count: int, seed: int = 7) -> list[str]:
    """`count` sentences of 4 to 40 words, most of them about 20 words long."""
    chance = random.Random(seed)
    lengths = (min(40, max(4, round(chance.gauss(20, 8)))) for _ in range(count))
    return [" ".join(chance.choice(WORDS) for _ in range(length)).capitalize() + "." for length in lengths]

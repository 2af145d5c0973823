"""New texts made from rated ones. They have no rating: a teacher gives them one.

Three ways: words swapped for their nearest neighbours in the embedding table, clauses cut out, and clauses of two
texts joined.
"""

from __future__ import annotations

import random
import re

import torch
from torch import Tensor

SEED = 7
SWAP, SWAP_IN_CROP = 0.25, 0.15  # share of the words that are swapped
CROPPED, JOINED = 0.35, 0.25  # share of the texts that also give a crop, or a joined text
NEIGHBOURS = 8
# Words that carry the grammar, or turn the meaning round, are not swapped.
GRAMMAR = """the and that this with for from are was were has have had its his her their our your you they them not but
than then who what when where which while will would could should can may might been being into onto about over under
more most some any all each few"""
KEPT = frozenset(GRAMMAR.split())
CLAUSE = re.compile(r"(?<=[,;:.!?])\s+|\s+(?=but |and |with |although |though |yet )")


class Maker:
    """Makes texts; `vocabulary` and the rows of `table` [vocabulary size, hidden] belong together."""

    def __init__(self, vocabulary: list[str], table: Tensor) -> None:
        unit = torch.nn.functional.normalize(table.float(), dim=1)
        self._vocabulary = vocabulary
        self._number = {word: i for i, word in enumerate(vocabulary)}
        self._whole = [i for i, word in enumerate(vocabulary) if re.fullmatch("[a-z]{3,}", word)]
        self._rows = unit
        self._wholes = unit[self._whole]
        self._near: dict[str, list[str]] = {}
        self._random = random.Random(SEED)

    def make(self, texts: list[str]) -> list[str]:
        """About 1.6 new texts for each text."""
        made = []
        for text in texts:
            made.append(self._swap(text, SWAP))
            chance = self._random.random()
            if chance < CROPPED:
                made.append(self._swap(self._crop(text), SWAP_IN_CROP))
            elif chance < CROPPED + JOINED:
                first = self._crop(self._random.choice(texts)).rstrip(". ")
                second = self._crop(self._random.choice(texts))
                made.append(first + self._random.choice([", but ", ", and ", ". ", ", yet "]) + second)
        return made

    def _neighbour(self, word: str) -> str:
        if word not in self._near:
            close = self._wholes @ self._rows[self._number[word]]  # [whole words]
            names = [self._vocabulary[self._whole[i]] for i in close.topk(NEIGHBOURS + 1)[1].tolist()]
            self._near[word] = [name for name in names if name != word][:NEIGHBOURS]
        return self._random.choice(self._near[word])

    def _swap(self, text: str, share: float) -> str:
        def one(match: re.Match[str]) -> str:
            word = match[0].lower()
            known = word in self._number and word not in KEPT
            return self._neighbour(word) if known and self._random.random() < share else match[0]

        return re.sub(r"[A-Za-z]{3,}", one, text)

    def _crop(self, text: str) -> str:
        clauses = [clause for clause in CLAUSE.split(text) if clause.strip()]
        if len(clauses) < 2:
            words = text.split()
            count = max(3, int(len(words) * self._random.uniform(0.4, 0.8)))
            start = self._random.randrange(max(1, len(words) - count + 1))
            return " ".join(words[start : start + count])
        count = self._random.randint(1, len(clauses) - 1)
        start = self._random.randrange(len(clauses) - count + 1)
        return " ".join(clauses[start : start + count]).strip(" ,;")

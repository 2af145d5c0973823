"""From a score per token and label to entities: tokens to words, words to groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cutaway.tokenization.protocols import TokenizerLike

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Piece:
    """One token of a text: its scores [labels], its spelling, its place among the tokens and in the characters."""

    scores: NDArray[np.floating[Any]]
    word: str
    start: int
    end: int
    index: int
    inner: bool  # whether it goes on with the word before it


@dataclass(frozen=True)
class Entity:
    """A stretch of text with one label.

    Attributes:
        label: the model's label; without "B-" or "I-" where tokens are grouped.
        score: its probability (of a group: the mean over its parts).
        word: the tokens as text; the exact characters are text[start:end].
        start, end: characters of the text.
        index: the token's number, where tokens are not grouped.
    """

    label: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None


def entities(
    pieces: Sequence[Piece], strategy: str, labels: Mapping[int, str], tokenizer: TokenizerLike
) -> list[Entity]:
    """The entities of one text, those with the label "O" included.

    "none": one per token. "simple": neighbouring tokens of one label together, a "B-" begins a new one. "first",
    "average" and "max" first give each word one label: its first token's, that of the mean of its tokens' scores, or
    that of its token with the highest score.
    """
    if strategy in ("none", "simple"):
        found = [_labelled([piece], piece.scores, labels, piece.word) for piece in pieces]
        if strategy == "none":
            return found
    else:
        words: list[list[Piece]] = []
        for piece in pieces:
            if piece.inner and words:
                words[-1].append(piece)
            else:
                words.append([piece])
        found = [_word(word, strategy, labels, tokenizer) for word in words]
    groups: list[list[Entity]] = []
    for entity in found:
        begins, tag = _tag(entity.label)
        if groups and not begins and tag == _tag(groups[-1][-1].label)[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [_group(group, tokenizer) for group in groups]


def _labelled(pieces: list[Piece], scores: NDArray[np.floating[Any]], labels: Mapping[int, str], word: str) -> Entity:
    best = int(scores.argmax())
    return Entity(labels[best], float(scores[best]), word, pieces[0].start, pieces[-1].end, pieces[0].index)


def _word(pieces: list[Piece], strategy: str, labels: Mapping[int, str], tokenizer: TokenizerLike) -> Entity:
    if strategy == "first":
        scores = pieces[0].scores
    elif strategy == "max":
        scores = max(pieces, key=lambda piece: float(piece.scores.max())).scores
    else:
        scores = np.stack([piece.scores for piece in pieces]).mean(0)  # [labels]
    return _labelled(pieces, scores, labels, tokenizer.convert_tokens_to_string([piece.word for piece in pieces]))


def _group(group: list[Entity], tokenizer: TokenizerLike) -> Entity:
    score = float(np.mean([entity.score for entity in group]))
    word = tokenizer.convert_tokens_to_string([entity.word for entity in group])
    label = group[0].label.split("-", 1)[-1]
    return Entity(label, score, word, group[0].start, group[-1].end)


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and of which kind."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label

"""The answers that a classifier is most sure of and that are wrong, with what moved it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspect.attribution import Attribution
from cutaway.inspect.gradients import integrated_gradients
from cutaway.inspect.target import Target
from cutaway.show.label import token_label

if TYPE_CHECKING:
    from cutaway.pipelines.base import Pipeline

LONGEST = 256  # tokens up to which an attribution is quick
SHADES = 4  # of each colour
PAIR = " ¶ "


@dataclass(frozen=True)
class Answer:
    """What a classifier said of one row, and what is right. row: from 1; confidence: the probability of `said`."""

    row: int
    text: str
    right: str
    said: str
    confidence: float


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Attributes:
        answer: the row, its text (a pair's second one after ¶), what is right, and what was said.
        tokens: (token, shade): -4 to 4, how much it spoke for what was said (above 0) against what is right; empty
            where the text is too long for it. note: what the attribution says of itself.
    """

    answer: Answer
    tokens: list[tuple[str, int]]
    note: str


def confident_mistakes(pipe: Pipeline, answers: Sequence[Answer], most: int) -> list[Mistake]:
    """The `most` wrong answers with the highest probability, highest first.

    Args:
        pipe: the pipeline of text-classification that gave them.
    """
    wrong = [answer for answer in answers if answer.said != answer.right]
    wrong.sort(key=lambda answer: (-answer.confidence, answer.row))
    return [Mistake(answer, *_moved(pipe, answer)) for answer in wrong[:most]]


def _moved(pipe: Pipeline, answer: Answer) -> tuple[list[tuple[str, int]], str]:
    text, _, pair = answer.text.partition(PAIR)
    encoded: Mapping[str, Any] = pipe.tokenizer(text, pair or None, truncation=True, return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    if len(ids) > LONGEST:
        return [], f"longer than {LONGEST} tokens"
    model = pipe.model
    inputs = {name: value.to(pipe.device) for name, value in encoded.items()}
    place = {str(name): int(i) for i, name in model.config.id2label.items()}
    for weight in (weights := list(model.parameters())):
        weight.grad = None
    learned = [weight.requires_grad for weight in weights]
    model.requires_grad_(False)  # only the tokens' vectors need a gradient
    try:
        target = Target(place[answer.said], place[answer.right])
        found: Attribution = integrated_gradients(model, inputs, target, steps=16, most=64)
    finally:
        for weight, learns in zip(weights, learned, strict=True):
            weight.requires_grad_(learns)
    scores = found.scores.detach().cpu().numpy()  # [tokens]
    largest = max(float(np.abs(scores).max()), 1e-12)
    tokenizer = pipe.tokenizer
    special = set(tokenizer.all_special_ids)
    labels = [
        token_label(tokenizer, token, id, id in special)
        for token, id in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True)
    ]
    shades = [round(SHADES * float(score) / largest) for score in scores]
    return list(zip(labels, shades, strict=True)), found.note

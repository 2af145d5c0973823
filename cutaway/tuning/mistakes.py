"""The answers that a model is most sure of and that are wrong, with what moved it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspect.attribution import Attribution
from cutaway.inspect.gradients import integrated_gradients
from cutaway.inspect.target import Target
from cutaway.show.label import token_label
from cutaway.train.evaluation import PredictionOutput
from cutaway.tuning.labelled import Labelled

if TYPE_CHECKING:
    from cutaway.train.trainer import Trainer

LONGEST = 256  # tokens up to which an attribution is quick
SHADES = 4  # of each colour


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Attributes:
        text: the text, with its pair. right, said: labels; confidence: the probability of `said`.
        tokens: (token, shade): -4 to 4, how much it spoke for `said` (above 0) against `right`; empty where the text is
            too long for it. note: what the attribution says of itself.
    """

    text: str
    right: str
    said: str
    confidence: float
    tokens: list[tuple[str, int]]
    note: str


def confident_mistakes(
    trainer: Trainer, data: Labelled, rows: Sequence[dict[str, Any]], answers: PredictionOutput, most: int
) -> list[Mistake]:
    """The `most` wrong answers with the highest probability, highest first.

    Args:
        data: single-label rows. rows: the same, as the trainer takes them. answers: what it predicts for them.
    """
    logits = np.asarray(answers.predictions, dtype=float)  # [rows, classes]
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    said, right = logits.argmax(-1), np.asarray(answers.label_ids)
    wrong = [int(i) for i in np.argsort(-shares.max(-1), kind="stable") if said[i] != right[i]]
    names = trainer.model.config.id2label
    made = []
    for row in wrong[:most]:
        text = " ¶ ".join([data.texts[row], *([data.pairs[row]] if data.pairs else [])])
        tokens, note = _moved(trainer, rows[row], int(said[row]), int(right[row]))
        made.append(
            Mistake(text, names[int(right[row])], names[int(said[row])], float(shares[row, said[row]]), tokens, note)
        )
    return made


def _moved(trainer: Trainer, row: dict[str, Any], said: int, right: int) -> tuple[list[tuple[str, int]], str]:
    ids = row["input_ids"]
    if len(ids) > LONGEST:
        return [], f"longer than {LONGEST} tokens"
    inputs = trainer.processing_class.pad(
        [{name: value for name, value in row.items() if name != "labels"}], return_tensors="pt"
    )
    inputs = {name: value.to(trainer.device) for name, value in inputs.items()}
    for weight in (weights := list(trainer.model.parameters())):
        weight.grad = None
    learned = [weight.requires_grad for weight in weights]
    trainer.model.requires_grad_(False)  # only the tokens' vectors need a gradient
    try:
        found: Attribution = integrated_gradients(trainer.model, inputs, Target(said, right), steps=16, most=64)
    finally:
        for weight, learns in zip(weights, learned, strict=True):
            weight.requires_grad_(learns)
    scores = found.scores.detach().cpu().numpy()  # [L]
    largest = max(float(np.abs(scores).max()), 1e-12)
    tokenizer = trainer.processing_class
    special = set(tokenizer.all_special_ids)
    labels = [
        token_label(tokenizer, token, id, id in special)
        for token, id in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True)
    ]
    shades = [round(SHADES * float(score) / largest) for score in scores]
    return list(zip(labels, shades, strict=True)), found.note

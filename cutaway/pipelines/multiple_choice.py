"""Which of several texts goes on best from a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.one_and_several import one_and_several
from cutaway.pipelines.plan import Row


@dataclass(frozen=True)
class Choice:
    """One choice: its place in the list that was given, its probability among them, its text."""

    index: int
    score: float
    text: str


@dataclass(frozen=True)
class Choices:
    """choices: best first. cut: how many tokens of the prompt were left out, at most."""

    choices: tuple[Choice, ...]
    cut: int = 0


class MultipleChoicePipeline(Pipeline):
    """`pipe("a prompt", ["a choice", ...])`, or {"prompt": ..., "choices": [...]}: dicts {"index", "score", "text"}.

    Best first; the scores are a softmax over the choices (Zellers et al., 2018). Choices may be of any number.
    """

    settings: ClassVar[dict[str, Any]] = {"long": None}

    def __call__(
        self, inputs: object, choices: object = None, *, batch_size: int | None = None, **settings: object
    ) -> Any:
        """The choices with their probabilities, best first; of a list of mappings, a list of these."""
        if choices is not None:
            inputs = {"prompt": inputs, "choices": choices}
        return super().__call__(inputs, batch_size=batch_size, **settings)

    def check(self, item: object) -> tuple[str, list[str]]:
        """The prompt and the choices."""
        return one_and_several(item, "multiple-choice", "prompt", "choices", "choice")

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        pairs = [(prompt, choice) for prompt, choices in items for choice in choices]
        rows = iter(self.fitted(pairs, settings, cutting="only_first"))
        return [[next(rows)[0] for _ in choices] for _, choices in items]

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        # each row is a question of one choice, so choices of many lengths need no common shape
        batch = {name: value[:, None] for name, value in self.batch(rows).items()}  # [rows, 1, longest]
        logits: list[float] = self.model(**batch).logits[:, 0].float().tolist()
        return logits

    def finish(
        self, item: tuple[str, list[str]], rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]
    ) -> Choices:
        scores = torch.tensor(outputs).softmax(0).tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return Choices(tuple(Choice(i, scores[i], item[1][i]) for i in order), max(row.cut for row in rows))

    def shaped(self, result: Choices, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(vars(choice)) for choice in result.choices]

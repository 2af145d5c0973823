"""Texts to labels with scores: sentiment, topics, entailment of pairs, several labels at once, or a regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from cutaway.errors import InputError, nearest
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.plan import Row, shares

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FUNCTIONS = ("softmax", "sigmoid", "none")


@dataclass(frozen=True)
class Classification:
    """labels and their scores, best first.

    cut: how many tokens of the text were left out. windows: how many windows the text was read in.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    cut: int = 0
    windows: int = 1

    @property
    def label(self) -> str:
        """The best label."""
        return self.labels[0]

    @property
    def score(self) -> float:
        """The best label's score."""
        return self.scores[0]


class TextClassificationPipeline(Pipeline):
    """Sequence classification of one text, a pair {"text": ..., "text_pair": ...}, a list, or a stream of them.

    Shapes are upstream's: without `top_k`, a text gives a list with its best label and a list of texts gives one dict
    per text. With `top_k=` in the call (None: all labels), each text gives its list of dicts, best first. With `top_k=`
    given to the pipeline instead, one text gives that list inside a list.

    `function_to_apply` is "softmax", "sigmoid" or "none"; unless given, it follows the model: a regression applies
    none, several labels at once or a single label a sigmoid, everything else a softmax.

    `long="window"` reads a long text (of a pair: the first) in overlapping windows. A label's score is then the mean of
    its scores in the windows (probabilities, or the numbers of a regression), each weighted by the tokens that the
    window owns: every token of the text counts once. `windows` of the typed result says how many there were.
    """

    settings: ClassVar[dict[str, Any]] = {
        "top_k": "best",
        "function_to_apply": None,
        "long": None,
        "overlap": None,
    }
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate", "window")

    def predict_proba(self, texts: Sequence[str | tuple[str, str]]) -> NDArray[np.float64]:
        """Of each text (or pair) the scores of all labels in the order of `id2label`: float64 [texts, labels].

        What lime and shap call, and scikit-learn's name for it.
        """
        import numpy as np

        places = {name: place for place, name in self.model.config.id2label.items()}
        found = np.zeros((len(texts), len(places)))
        for row, result in zip(found, self.each(list(texts)), strict=True):
            row[[places[label] for label in result.labels]] = result.scores
        return found

    def single(self, answer: object, inputs: object, given: Mapping[str, Any]) -> object:
        return [answer] if isinstance(inputs, str) and "top_k" not in given else answer

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        top_k = settings["top_k"]
        if top_k not in ("best", None) and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise InputError(f"top_k={top_k!r} must be a whole number from 1 up, or None for all labels.")
        return {**settings, "function_to_apply": self._function(settings["function_to_apply"])}

    def check(self, item: object) -> str | tuple[str, str]:
        """A text, or a text and its pair."""
        if isinstance(item, str):
            return item
        if isinstance(item, Mapping):
            unknown = [str(key) for key in item if key not in ("text", "text_pair")]
            text, pair = item.get("text"), item.get("text_pair")
            if not unknown and isinstance(text, str) and (pair is None or isinstance(pair, str)):
                return (text, pair) if pair else text
        match item:
            case [[str() as text, str() as pair]]:  # the older form of a pair
                return (text, pair) if pair else text
        raise InputError(
            f"text-classification got {item!r:.80}. An input is a text, or a pair as "
            "{'text': 'My text', 'text_pair': 'My pair'}."
        )

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        return self.fitted(items, settings)

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        logits = self.model(**self.batch(rows)).logits.float()  # [rows, labels]
        scores: list[Any] = _apply(settings["function_to_apply"], logits).tolist()
        return scores

    def finish(
        self, item: str | tuple[str, str], rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]
    ) -> Classification:
        if len(rows) == 1:
            scores: list[float] = outputs[0]
        else:
            weights = shares(rows)
            scores = [sum(w * s for w, s in zip(weights, own, strict=True)) for own in zip(*outputs, strict=True)]
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)  # equal ones keep their order
        labels = self.model.config.id2label
        return Classification(tuple(labels[i] for i in order), tuple(scores[i] for i in order), rows[0].cut, len(rows))

    def shaped(self, result: Classification, settings: Mapping[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        entries = [{"label": a, "score": b} for a, b in zip(result.labels, result.scores, strict=True)]
        return entries[0] if settings["top_k"] == "best" else entries[: settings["top_k"]]

    def _function(self, asked: object) -> str:
        if asked is not None:
            name = str(getattr(asked, "name", asked)).lower()
            if name not in FUNCTIONS:
                raise InputError(f"function_to_apply={asked!r} is not known.{nearest(name, FUNCTIONS)}")
            return name
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return "sigmoid"
        return "softmax"


def _apply(function: str, logits: torch.Tensor) -> torch.Tensor:
    if function == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if function == "sigmoid" else logits

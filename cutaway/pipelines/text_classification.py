"""Texts to labels with scores: sentiment, topics, entailment of pairs, several labels at once, or a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from cutaway.errors import InputError, nearest
from cutaway.pipelines.base import Pipeline

FUNCTIONS = ("softmax", "sigmoid", "none")


class TextClassificationPipeline(Pipeline):
    """Sequence classification of one text, a pair {"text": ..., "text_pair": ...}, a list, or a stream of them.

    Shapes are upstream's: without `top_k`, a text gives a list with its best label and a list of texts gives one dict
    per text. With `top_k=` in the call (None: all labels), each text gives its list of dicts, best first. With `top_k=`
    given to the pipeline instead, one text gives that list inside a list.

    `function_to_apply` is "softmax", "sigmoid" or "none"; unless given, it follows the model: a regression applies
    none, several labels at once or a single label a sigmoid, everything else a softmax.
    """

    settings: ClassVar[dict[str, Any]] = {"top_k": "best", "function_to_apply": None}

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **settings: Any) -> Any:
        """See the class. Raises InputError for an input that is no text or is longer than the model takes."""
        answer = super().__call__(inputs, batch_size=batch_size, **settings)
        return [answer] if isinstance(inputs, str) and "top_k" not in settings else answer

    def check(self, item: Any) -> tuple[str, str | None]:
        """A text, or a text and its pair."""
        if isinstance(item, str):
            return item, None
        if isinstance(item, Mapping):
            unknown = [str(key) for key in item if key not in ("text", "text_pair")]
            text, pair = item.get("text"), item.get("text_pair")
            if not unknown and isinstance(text, str) and (pair is None or isinstance(pair, str)):
                return text, pair
        match item:
            case [[str() as text, str() as pair]]:  # the older form of a pair
                return text, pair
        raise InputError(
            f"text-classification got {item!r:.80}. An input is a text, or a pair as "
            "{'text': 'My text', 'text_pair': 'My pair'}."
        )

    def run(self, items: list[tuple[str, str | None]], settings: Mapping[str, Any]) -> list[Any]:
        """Label and score dicts, one (or one list) per item."""
        function = self._function(settings["function_to_apply"])
        top_k = settings["top_k"]
        scores = _apply(function, self._logits(items, settings).float())  # [B, labels]
        labels = self.model.config.id2label
        if top_k == "best":
            best = scores.argmax(-1).tolist()
            return [{"label": labels[i], "score": row[i]} for i, row in zip(best, scores.tolist(), strict=True)]
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise InputError(f"top_k={top_k!r} must be a whole number from 1 up, or None for all labels.")
        return [
            sorted(
                ({"label": labels[i], "score": score} for i, score in enumerate(row)),
                key=lambda entry: -entry["score"],
            )[:top_k]
            for row in scores.tolist()
        ]

    def _logits(self, items: list[tuple[str, str | None]], settings: Mapping[str, Any]) -> torch.Tensor:
        """[B, labels]. Pairs and single texts go through the tokenizer apart, and through the model together."""
        options = {key: settings[key] for key in self.tokenizer_settings if key in settings}
        options.pop("padding", None)  # padding costs nothing and changes nothing: a batch is always padded
        encodings = [self.tokenizer(text, pair, **options) for text, pair in items]
        longest = self.tokenizer.model_max_length
        for (text, _), encoding in zip(items, encodings, strict=True):
            if len(encoding["input_ids"]) > longest:
                raise InputError(
                    f"The text {text[:40]!r}... has {len(encoding['input_ids'])} tokens, the model takes {longest}. "
                    "Pass truncation=True to cut it there."
                )
        names = list(encodings[0])
        columns = {name: [encoding[name] for encoding in encodings] for name in names}
        batch = self.tokenizer.pad(columns, padding=True, return_tensors="pt")
        logits: torch.Tensor = self.model(**{name: batch[name].to(self.device) for name in names}).logits
        return logits

    def _function(self, asked: Any) -> str:
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

"""What a task reads from a row, and the columns that its answer becomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cutaway.errors import InputError
from cutaway.pipelines.row_faults import is_blank


@dataclass(frozen=True)
class Answers:
    """A task over rows.

    Attributes:
        reads: the columns that one input is made of; the first is the text where there is only one.
        optional: those of them that a table may lack.
        lists: those of them that hold a list (in CSV: a JSON list).
        writes: the columns of an answer.
        columns: turns the pipeline's answer for one input into these columns.
        at_once: rows that are scored, and then on the disk, together.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    columns: Callable[[Any], tuple[Any, ...]]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    at_once: int = 1024

    def item(
        self, values: Mapping[str, Any], renamed: Mapping[str, str]
    ) -> str | list[str] | dict[str, str | list[str]]:
        """The pipeline's input for a row's values; `renamed`: what the table calls a column of `reads`.

        A cell of `optional` that is blank counts as lacking, unless the column was named in `renamed`.

        Raises InputError: a column that is not there, or does not hold what it must.
        """
        found: dict[str, str | list[str]] = {}
        for name in self.reads:
            column = renamed.get(name, name)
            value = values.get(column)
            if name in self.optional and is_blank(value):
                continue
            if value is None:
                known = ", ".join(map(repr, values)) or "none"
                raise InputError(f"the row has no {column!r}; its columns: {known}")
            found[name] = _listed(column, value) if name in self.lists else _text(column, value)
        return found[self.reads[0]] if len(self.reads) == 1 or len(found) == 1 else found


def _text(column: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{column!r} is {value!r:.60}, not a text")
    return value


def _listed(column: str, value: object) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f'{column!r} must be a JSON list, for example ["a", "b"]') from error
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise InputError(f"{column!r} must be a list of texts")
    return value


def _labels(answer: Any) -> tuple[Any, ...]:
    entries = answer if isinstance(answer, list) else [answer]
    return entries[0]["label"], entries[0]["score"], entries


def with_label_columns(answers: Answers, labels: Sequence[str]) -> Answers:
    """The task with a column `score_LABEL` for each label in place of the list of all of them.

    answers: of a task whose columns are "label", "score" and "labels".
    """

    def columns(answer: object) -> tuple[Any, ...]:
        label, score, entries = answers.columns(answer)
        scores = {entry["label"]: entry["score"] for entry in entries}
        return (label, score, *(scores.get(name) for name in labels))

    return replace(answers, writes=("label", "score", *(f"score_{name}" for name in labels)), columns=columns)


def _candidates(answer: Mapping[str, Any]) -> tuple[Any, ...]:
    pairs = [{"label": label, "score": score} for label, score in zip(answer["labels"], answer["scores"], strict=True)]
    return pairs[0]["label"], pairs[0]["score"], pairs


def _best(*names: str) -> Callable[[Any], tuple[Any, ...]]:
    def columns(answer: Any) -> tuple[Any, ...]:
        entries = answer if isinstance(answer, list) else [answer]
        return (*(entries[0][name] for name in names), entries)

    return columns


def _whole(answer: object) -> tuple[Any, ...]:
    return (answer,)


def _vector(answer: object) -> tuple[Any, ...]:
    return (answer.tolist() if hasattr(answer, "tolist") else answer,)


def _written(name: str) -> Callable[[Any], tuple[Any, ...]]:
    def columns(answer: Any) -> tuple[Any, ...]:
        texts = [entry[name] for entry in (answer if isinstance(answer, list) else [answer])]
        return (texts[0] if len(texts) == 1 else texts,)

    return columns


WRITING = 16  # rows at once of a task that writes text: each takes seconds

TASKS: dict[str, Answers] = {
    "text-classification": Answers(("text", "text_pair"), ("label", "score", "labels"), _labels, ("text_pair",)),
    "zero-shot-classification": Answers(("text",), ("label", "score", "labels"), _candidates, at_once=64),
    "token-classification": Answers(("text",), ("entities",), _whole),
    "question-answering": Answers(
        ("question", "context"),
        ("answer", "score", "start", "end", "answers"),
        _best("answer", "score", "start", "end"),
    ),
    "fill-mask": Answers(("text",), ("fills",), _whole),
    "feature-extraction": Answers(("text",), ("vector",), _vector),
    "sentence-similarity": Answers(("source_sentence", "sentences"), ("scores",), _whole, lists=("sentences",)),
    "rerank": Answers(
        ("query", "documents"), ("index", "score", "ranking"), _best("index", "score"), lists=("documents",)
    ),
    "multiple-choice": Answers(
        ("prompt", "choices"), ("index", "score", "ranking"), _best("index", "score"), lists=("choices",)
    ),
    "perplexity": Answers(
        ("text",), ("perplexity", "loss", "tokens"), lambda a: (a["perplexity"], a["loss"], a["tokens"])
    ),
    "summarization": Answers(("text",), ("summary_text",), _written("summary_text"), at_once=WRITING),
    "translation": Answers(("text",), ("translation_text",), _written("translation_text"), at_once=WRITING),
    "text2text-generation": Answers(("text",), ("generated_text",), _written("generated_text"), at_once=WRITING),
    "text-generation": Answers(("text",), ("generated_text",), _written("generated_text"), at_once=WRITING),
}

"""Rows of every task that is trained on, from tables, CoNLL files and data sets, checked before anything is trained."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.errors import InputError, counted, nearest
from cutaway.jobs.table_reader import divided_by
from cutaway.pipelines.row_faults import faults, is_blank
from cutaway.tuning.labelled import read_rows

CONLL = (".conll", ".bio", ".iob", ".iob2")
Row = dict[str, Any]


@dataclass(frozen=True)
class TaskRows:
    """Rows as a task reads them.

    Attributes:
        rows: of the same columns each. numbers: theirs in the file, from 1.
        columns: which of the task's columns there are.
    """

    rows: list[Row]
    numbers: list[int]
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: Sequence[int]) -> TaskRows:
        """Only these rows."""
        return TaskRows([self.rows[i] for i in places], [self.numbers[i] for i in places], self.columns)

    def digest(self) -> str:
        """The SHA-256 of all rows: equal for equal data in the same order."""
        return hashlib.sha256(json.dumps([self.columns, self.rows]).encode()).hexdigest()

    def split(self, share: float, seed: int) -> tuple[TaskRows, TaskRows]:
        """(the rows to train on, a share of them to validate with), by chance.

        Raises InputError where there are too few for both.
        """
        n = round(len(self) * share)
        if not 0 < n < len(self):
            raise InputError(f"{counted(len(self), 'row')}: a share of {share} leaves none; give more, or a file.")
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        return self.take(sorted(order[n:])), self.take(sorted(order[:n]))


@dataclass(frozen=True)
class Reading:
    """What a task reads.

    Attributes:
        forms: sets of columns; a table has one of them. The first whose columns are all there is taken.
        row: (values by the task's names) -> a row; it raises InputError with what is wrong.
    """

    forms: tuple[tuple[str, ...], ...]
    row: Callable[[Mapping[str, Any]], Row]

    def names(self) -> list[str]:
        """All columns that the task may read."""
        return list(dict.fromkeys(name for form in self.forms for name in form))


def read_task(
    data: str,
    reading: Reading,
    renamed: Mapping[str, str],
    *,
    split: str = "train",
    encoding: str | None = None,
    delimiter: str | None = None,
) -> TaskRows:
    """The rows of a table, a CoNLL file, a data set's folder or its name.

    Args:
        renamed: what the data calls the task's columns, where it is something else.
        split, encoding, delimiter: as in `cutaway.tuning.read`.

    Raises:
        InputError: the data cannot be read, has no set of columns that the task reads, or rows that cannot be trained
            on; it names them.
    """
    path = Path(data)
    if path.suffix.lower() in CONLL:
        if ("tokens", "tags") not in reading.forms:
            raise InputError(f"{data} is a CoNLL file, of words with tags: it belongs to --task token-classification.")
        source: Iterator[tuple[int, Mapping[str, Any], str]] = _conll(path, encoding or "utf-8")
    else:
        source = read_rows(data, split, "", encoding, delimiter)[0]
    form: tuple[str, ...] = ()
    rows, numbers = [], []
    bad: list[tuple[int, str]] = []
    for number, values, error in source:
        if not error:
            form = form or _form(data, reading, renamed, values)
            try:
                found = {name: values.get(renamed.get(name, name)) for name in reading.names()}
                lacking = next((name for name in form if is_blank(found[name])), None)
                if lacking is not None:
                    raise InputError(f"{renamed.get(lacking, lacking)!r} is empty")
                rows.append(reading.row(found))
                numbers.append(number)
                continue
            except InputError as wrong:
                error = str(wrong)
        bad.append((number, error))
    if bad:
        raise InputError(f"{data} has rows that cannot be trained on: {faults(bad)}. Correct them.")
    if not rows:
        raise InputError(f"{data} has no rows.")
    kinds = {tuple(row): number for row, number in zip(reversed(rows), reversed(numbers), strict=True)}
    if len(kinds) > 1:
        said = " and ".join(f"{', '.join(kind)} (row {number})" for kind, number in kinds.items())
        raise InputError(f"{data} has rows of several kinds: {said}. Train on one of them at a time.")
    sizes = {len(row["texts"]): number for row, number in zip(rows, numbers, strict=True) if "texts" in row}
    if len(sizes) > 1:
        said = " and ".join(f"{counted(n, 'text')} (row {number})" for n, number in sizes.items())
        raise InputError(f"{data} has rows of {said}; give each as many negatives as the others.")
    return TaskRows(rows, numbers, tuple(rows[0]))


def _form(data: str, reading: Reading, renamed: Mapping[str, str], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The first set of columns that a row has."""
    for form in reading.forms:
        if all(renamed.get(name, name) in values for name in form):
            return form
    wanted = " or ".join(", ".join(form) for form in reading.forms)
    has = ", ".join(map(repr, values)) or "none"
    lacking = next(name for name in reading.forms[0] if renamed.get(name, name) not in values)
    asked = renamed.get(lacking, lacking)
    others = [name for name in values if name not in {renamed.get(one, one) for one in reading.forms[0]}]
    way = divided_by(list(values), asked) or nearest(asked, others, few=0) or f" Name them: --column {lacking}=COLUMN."
    raise InputError(f"{data} has the columns {has}; needed are {wanted}.{way}")


# -- words and their tags ----------------------------------------------------------------------------------------------


def _conll(path: Path, encoding: str) -> Iterator[tuple[int, Mapping[str, Any], str]]:
    """The sentences of a CoNLL file: a word and its tag a line, the first and the last of its columns."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    tokens: list[str] = []
    tags: list[str] = []
    number, error = 1, ""
    try:
        lines = path.read_text(encoding=encoding).splitlines()
    except (UnicodeError, LookupError) as wrong:
        raise InputError(f"{path} is not {encoding}: {wrong}. Say what it is written in with --encoding.") from None
    for place, line in enumerate([*lines, ""], start=1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not cells or line.startswith("-DOCSTART-"):
            if tokens or error:
                yield number, {"tokens": tokens, "tags": tags}, error
                tokens, tags, number, error = [], [], number + 1, ""
            continue
        if line.startswith("# ") and not tokens:  # a comment before a sentence
            continue
        if len(cells) < 2:
            error = error or f"line {place} holds {line!r:.40}, and not a word and its tag"
            continue
        tokens.append(cells[0])
        tags.append(cells[-1].strip())


_WORD = re.compile(r"\w+|[^\w\s]")


def words_of_spans(text: str, spans: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """(words, tags B-, I- and O) of a text with marked spans {"start", "end", "label"}, in characters.

    Raises InputError for a span that is none of the text, or that overlaps another.
    """
    marks: list[tuple[int, int, str]] = []
    for span in spans:
        try:
            start, end, label = int(span["start"]), int(span["end"]), str(span["label"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"the span {span!r:.60} needs start, end and label") from None
        if not 0 <= start < end <= len(text) or not text[start:end].strip():
            raise InputError(f"the span from {start} to {end} marks no text (there are {len(text)} characters)")
        marks.append((start, end, label))
    marks.sort()
    for (_, end, _), (start, _, _) in itertools.pairwise(marks):
        if start < end:
            raise InputError(f"two spans overlap at character {start}")
    cuts = sorted({0, len(text), *(place for start, end, _ in marks for place in (start, end))})
    words, tags = [], []
    begun: set[int] = set()
    for first, last in itertools.pairwise(cuts):  # a word ends where a span does
        of = next((i for i, (start, end, _) in enumerate(marks) if start <= first < end), None)
        for found in _WORD.finditer(text[first:last]):
            words.append(found[0])
            tags.append("O" if of is None else f"{'I' if of in begun else 'B'}-{marks[of][2]}")
            if of is not None:
                begun.add(of)
    return words, tags


def _tagged(values: Mapping[str, Any]) -> Row:
    spans = values.get("spans") if values.get("spans") is not None else values.get("entities")
    if values.get("tokens") is None and spans is not None:
        words, tags = words_of_spans(_text(values, "text"), _list(spans, "spans"))
    else:
        words = [str(word) for word in _list(values["tokens"], "tokens")]
        tags = [str(tag) for tag in _list(values["tags"], "tags")]
    if len(words) != len(tags):
        raise InputError(f"it has {counted(len(words), 'word')} and {counted(len(tags), 'tag')}")
    if not words:
        raise InputError("it has no word")
    return {"tokens": words, "tags": tags}


# -- the other tasks ---------------------------------------------------------------------------------------------------


def _list(value: object, name: str) -> list[Any]:
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise InputError(f"{name!r} is {value!r:.40}, not a list (in CSV a JSON list)")
    return value


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name!r} holds {value!r:.40}, no text")
    return value


def _number(value: object, name: str) -> float:
    try:
        found = float(value)  # type: ignore[arg-type]  # whatever else is met below
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{name!r} is {value!r:.40}, not a number")
    return found


def _question(values: Mapping[str, Any]) -> Row:
    answers = values["answers"]
    starts: list[Any] = []
    if isinstance(answers, str) and answers.lstrip().startswith(("[", "{")):
        try:
            answers = json.loads(answers)
        except ValueError:  # a text that begins so
            answers = [answers]
    if isinstance(answers, Mapping):  # as SQuAD holds them
        starts, answers = list(answers.get("answer_start", ())), answers.get("text")
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise InputError(f"'answers' is {values['answers']!r:.40}; it holds a text, or a list of texts")
    answers = [one for one in answers if one]
    context = _text(values, "context")
    start = int(starts[0]) if starts and answers else context.find(answers[0]) if answers else 0
    if answers and (start < 0 or context[start : start + len(answers[0])] != answers[0]):
        raise InputError(f"the answer {answers[0]!r:.40} does not stand in its context")
    return {"question": _text(values, "question"), "context": context, "answers": answers, "start": start}


def _written(values: Mapping[str, Any]) -> Row:
    return {"text": _text(values, "text"), "target": _text(values, "target")}


def _plain(values: Mapping[str, Any]) -> Row:
    return {"text": _text(values, "text")}


def _conversation(values: Mapping[str, Any]) -> Row:
    if values.get("messages") is not None:
        messages = _list(values["messages"], "messages")
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
                raise InputError(f"the message {message!r:.60} needs role and content, both texts")
        if not any(message.get("role") == "assistant" for message in messages):
            raise InputError("no message is the assistant's, so there is nothing to learn from it")
        return {"messages": [{"role": str(m.get("role")), "content": m["content"]} for m in messages]}
    if values.get("prompt") is not None:
        return {"prompt": _text(values, "prompt"), "answer": _text(values, "answer")}
    return {"text": _text(values, "text")}


def _compared(values: Mapping[str, Any]) -> Row:
    """Texts that belong together, in the order of a loss's columns; with a label where there is one."""
    if values.get("sentence1") is not None:
        texts = [_text(values, "sentence1"), _text(values, "sentence2")]
        return {"texts": texts, "label": _number(values["score"], "score")}
    texts = [_text(values, "anchor"), _text(values, "positive")]
    if values.get("negative") is not None:
        texts.append(_text(values, "negative"))
    elif values.get("negatives") is not None:
        more = _list(values["negatives"], "negatives")
        texts += [_text({"negatives": one}, "negatives") for one in more]
    return {"texts": texts}


def _ranked(values: Mapping[str, Any]) -> Row:
    query = _text(values, "query")
    if values.get("document") is not None:
        label = _number(values["label"], "label")
        if not 0 <= label <= 1:
            raise InputError(f"'label' is {label:g}; it must be from 0 (no answer) to 1 (an answer)")
        return {"query": query, "documents": [_text(values, "document")], "labels": [label]}
    negatives = _list(values["negatives"], "negatives") if values.get("negatives") is not None else []
    if values.get("negative") is not None:
        negatives = [values["negative"]]
    documents = [_text(values, "positive"), *(_text({"negatives": one}, "negatives") for one in negatives)]
    return {"query": query, "documents": documents, "labels": [1.0, *[0.0] * len(negatives)]}


READINGS: dict[str, Reading] = {
    "token-classification": Reading((("tokens", "tags"), ("text", "spans"), ("text", "entities")), _tagged),
    "question-answering": Reading((("question", "context", "answers"),), _question),
    "summarization": Reading((("text", "target"),), _written),
    "translation": Reading((("text", "target"),), _written),
    "text2text-generation": Reading((("text", "target"),), _written),
    "fill-mask": Reading((("text",),), _plain),
    "text-generation": Reading((("messages",), ("prompt", "answer"), ("text",)), _conversation),
    "sentence-similarity": Reading(
        (
            ("anchor", "positive", "negative"),
            ("anchor", "positive", "negatives"),
            ("anchor", "positive"),
            ("sentence1", "sentence2", "score"),
        ),
        _compared,
    ),
    "rerank": Reading(
        (("query", "positive", "negatives"), ("query", "positive", "negative"), ("query", "document", "label")),
        _ranked,
    ),
}

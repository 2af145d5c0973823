"""Labelled texts from a table or a data set, checked before anything is trained on them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, SupportsFloat

from cutaway.errors import InputError, nearest
from cutaway.jobs import TableReader
from cutaway.jobs.table_reader import KINDS, divided_by
from cutaway.pipelines.row_faults import faults, is_blank

Kind = Literal["one", "several", "number"]
KIND_NAMES = {"one": "one label each", "several": "several labels at once", "number": "a number each"}
MOST = 1000  # labels; a column with more is not one of labels


@dataclass(frozen=True)
class Labelled:
    """Texts with right answers.

    Attributes:
        kind: "one" label each, "several" at once, or a "number" (a regression).
        texts, pairs: the texts, and the second ones where there are pairs (else None).
        labels: names ("one"), tuples of names ("several"), numbers.
        names: the labels there are, in order; none for numbers.
    """

    kind: Kind
    texts: list[str]
    pairs: list[str] | None
    labels: list[Any]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: list[int]) -> Labelled:
        """Only these rows; the names stay."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in rows]
        return Labelled(self.kind, [self.texts[i] for i in rows], pairs, [self.labels[i] for i in rows], self.names)

    def counts(self) -> dict[str, int]:
        """How many rows each label has; nothing for numbers."""
        if self.kind == "number":
            return {}
        each = self.labels if self.kind == "one" else [name for row in self.labels for name in row]
        found = Counter(each)
        return {name: found[name] for name in self.names}

    def digest(self) -> str:
        """The SHA-256 of everything: equal for equal data in the same order."""
        rows = json.dumps([self.kind, self.texts, self.pairs, self.labels, self.names])
        return hashlib.sha256(rows.encode()).hexdigest()


def read(
    data: str,
    text: str,
    label: str,
    *,
    pair: str | None = None,
    kind: Kind | None = None,
    split: str = "train",
    names: tuple[str, ...] | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Labelled:
    """The labelled texts of a table, a folder or a `datasets` name.

    Args:
        data: a .csv, .tsv, .jsonl or .parquet file, a folder that `datasets` reads, or a name of it.
        text, label, pair: columns.
        kind: what the labels are. Unless given: lists (in CSV: JSON lists) are several at once, decimals a number, and
            everything else one label each.
        split: the part of a data set of several.
        names: the labels that there may be; all that the data holds unless given.
        encoding, delimiter: of a table, as in `TableReader`.

    Raises:
        InputError: the data cannot be read, lacks a column, or holds rows without a text or a label; it names them.
    """
    rows, classes = read_rows(data, split, label, encoding, delimiter)
    texts, pairs, labels, numbers = [], [], [], []
    bad: list[tuple[int, str]] = []
    for number, values, error in rows:
        if not error:
            _check_columns(data, values, (text, label, *([pair] if pair else [])))
            error = _fault(values, text, label, pair)
        if error:
            bad.append((number, error))
            continue
        texts.append(values[text])
        pairs.append(values[pair] if pair else "")
        labels.append(values[label])
        numbers.append(number)
    if bad:
        raise InputError(f"{data} has rows that cannot be trained on: {faults(bad)}. Correct them.")
    if not texts:
        raise InputError(f"{data} has no rows.")
    if classes and all(isinstance(value, int) and 0 <= value < len(classes) for value in labels):
        labels = [classes[value] for value in labels]
    kind = kind or _kind(labels)
    made: list[Any] = [_label(data, number, value, kind) for number, value in zip(numbers, labels, strict=True)]
    found = _names(data, made, kind, names)
    return Labelled(kind, texts, pairs if pair else None, made, found)


def read_rows(
    data: str, split: str, label: str, encoding: str | None, delimiter: str | None
) -> tuple[Iterator[tuple[int, Mapping[str, Any], str]], list[str]]:
    """((number, values, what is wrong) of each row, the names of whole-number labels where the data has any)."""
    path = Path(data)
    if path.is_file() or path.suffix.lower() in KINDS:
        table = TableReader(path, encoding=encoding, delimiter=delimiter)
        return ((row.number, row.values, row.error) for row in table.rows()), []
    if encoding is not None or delimiter is not None:
        raise InputError(f"{data} is no table, so it has no encoding or delimiter; leave them out.")
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{data} is no file, and reading a data set needs: pip install datasets.") from error
    try:
        saved = any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
        if saved:
            found = datasets.load_from_disk(data)
        else:
            # "NA" and "null" are texts; pandas, which reads its CSV files, would take them for holes
            csv = datasets.load_dataset_builder(data).config.__class__.__name__ == "CsvConfig"
            found = datasets.load_dataset(data, **({"keep_default_na": False} if csv else {}))
    except Exception as error:  # whatever a data set's reader raises, the user named a place that cannot be read
        raise InputError(f"{data} cannot be read: {type(error).__name__}: {str(error)[:200]}") from error
    if isinstance(found, Mapping):
        if split not in found:
            raise InputError(f"{data} has no part {split!r}; it has {', '.join(map(str, found))}.")
        found = found[split]
    names = getattr(found.features.get(label), "names", None) or []
    return ((number, row, "") for number, row in enumerate(found, start=1)), list(names)


def _check_columns(data: str, values: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    for column in wanted:
        if column not in values:
            has = ", ".join(map(repr, values)) or "none"
            way = divided_by(list(values), column) or nearest(column, list(values), few=0)
            raise InputError(f"{data} has no column {column!r}; it has {has}.{way}")


def _fault(values: Mapping[str, Any], text: str, label: str, pair: str | None) -> str:
    for column in (text, pair):
        if column and (not isinstance(values[column], str) or not values[column].strip()):
            return f"{column!r} holds {values[column]!r:.40}, no text"
    value = values[label]
    if is_blank(value):
        return f"{label!r} is empty"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{label!r} is {value}"
    return ""


def _kind(labels: list[Any]) -> Kind:
    if all(_list(value) is not None for value in labels):
        return "several"
    numbers = [_number(value) for value in labels]
    if all(value is not None for value in numbers) and any(not float(value or 0).is_integer() for value in numbers):
        return "number"
    return "one"


def _label(data: str, number: int, value: object, kind: Kind) -> object:
    if kind == "number":
        found = _number(value)
        if found is None:
            raise InputError(f"{data}, row {number}: the label {value!r:.40} is not a number, as others are.")
        return found
    if kind == "several":
        entries = _list(value)
        if entries is None:
            raise InputError(f"{data}, row {number}: the label {value!r:.40} is not a list, as others are.")
        return tuple(dict.fromkeys(_name(entry) for entry in entries))
    if isinstance(value, (list, dict)):
        raise InputError(f"{data}, row {number}: the label is a {type(value).__name__}; others are single labels.")
    return _name(value)


def _name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, SupportsFloat)):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _list(value: object) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


def _names(data: str, labels: list[Any], kind: Kind, known: tuple[str, ...] | None) -> tuple[str, ...]:
    if kind == "number":
        return ()
    found = {name for row in labels for name in row} if kind == "several" else set(labels)
    if known is not None:
        unknown = sorted(found - set(known))
        if unknown:
            raise InputError(
                f"{data} has the label {unknown[0]!r}, which no training row has: {', '.join(known[:20])}."
            )
        return known
    if len(found) < (1 if kind == "several" else 2):
        raise InputError(f"{data} has only the label {', '.join(found) or '(none)'}; there is nothing to tell apart.")
    if len(found) > MOST:
        raise InputError(f"{data} has {len(found):,} different labels; is the label column the right one?")
    whole = all(re.fullmatch(r"-?\d{1,20}", name) for name in found)
    return tuple(sorted(found, key=int) if whole else sorted(found))

"""The labels of a classification head: id2label, label2id and num_labels, kept in agreement."""

from __future__ import annotations

from collections.abc import Mapping

from cutaway.checkpoint.field_checks import shown_value
from cutaway.errors import ConfigError

MAX_LABELS = 200_000  # checked before one name per label is made


def label_count(value: object) -> int:
    """`num_labels` as an int from 1 to 200,000; ConfigError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LABELS:
        raise ConfigError(f"num_labels is {shown_value(value)}; give a whole number from 1 to {MAX_LABELS:,}.")
    return value


def default_labels(count: int) -> dict[int, str]:
    """{0: "LABEL_0", ...} with `count` entries, the published default names."""
    return {i: f"LABEL_{i}" for i in range(label_count(count))}


def id2label_of(value: object) -> dict[int, str]:
    """id2label with int keys, from a mapping with int or string keys or a list of names; ConfigError otherwise."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        raise ConfigError(f"id2label is a {type(value).__name__}; give a dict such as {{0: 'neg', 1: 'pos'}}.")
    labels: dict[int, str] = {}
    for key, name in value.items():
        number = _id(key, "id2label")
        if number in labels:
            raise ConfigError(f"id2label names the id {number} twice; remove one.")
        if isinstance(name, (Mapping, list)):
            raise ConfigError(f"id2label[{key!r}] is a {type(name).__name__}; give a name.")
        labels[number] = name
    return labels


def label2id_of(value: object) -> dict[str, int]:
    """label2id with int values, from a mapping whose values are ints or digits; ConfigError otherwise."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"label2id is a {type(value).__name__}; give a dict such as {{'neg': 0, 'pos': 1}}.")
    return {name: _id(number, "label2id") for name, number in value.items()}


def inverse(id2label: Mapping[int, str]) -> dict[str, int]:
    """label2id from id2label."""
    return {name: number for number, name in id2label.items()}


def from_label2id(label2id: Mapping[str, int]) -> dict[int, str] | None:
    """id2label from label2id, or None where the ids are not exactly 0 ... n-1."""
    if sorted(label2id.values()) != list(range(len(label2id))):
        return None
    return {number: name for name, number in sorted(label2id.items(), key=lambda item: item[1])}


def agree(num_labels: int | None, id2label: Mapping[int, str] | None, label2id: Mapping[str, int] | None) -> None:
    """ConfigError unless the fields that are given say the same thing."""
    if num_labels is not None and id2label is not None and num_labels != len(id2label):
        raise ConfigError(
            f"num_labels is {num_labels} but id2label has {len(id2label)} entries; leave one out or make them agree."
        )
    if id2label is None or label2id is None:
        return
    for name, number in label2id.items():
        if number in id2label and id2label[number] != name:
            raise ConfigError(
                f"label2id says {name!r} is {number}, but id2label says {number} is {id2label[number]!r}; "
                "leave label2id out or make them agree."
            )


def _id(value: object, field: str) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8 else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MAX_LABELS:
        raise ConfigError(f"{field} holds {shown_value(value)} as a label id; give whole numbers from 0.")
    return number

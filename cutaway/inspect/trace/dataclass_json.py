"""A tree of dataclasses as JSON and arrays, and back again with every type checked: nothing a file says is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from cutaway.inspect.measures import Array
from cutaway.show.label import printable

ENDLESS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
AS_WRITTEN = ("text", "token", "generated")  # fields that are shown through `printable` wherever they are shown
ARRAY = "array"
LATER = {"number", "base", "residual"}  # fields of Evidence and Parts that the first files of this format lack


def to_json(value: object, where: str, arrays: dict[str, Array]) -> Any:
    """`value` as JSON; its arrays go into `arrays` under their paths from `where`, which then stand for them."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return {name: to_json(part, f"{where}.{name}", arrays) for name, part in named.items()}
    if isinstance(value, dict):
        return {str(name): to_json(part, f"{where}.{name}", arrays) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part, f"{where}.{i}", arrays) for i, part in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[where] = value
        return {ARRAY: where}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(kind: Any, data: Any, where: str, arrays: Mapping[str, Array]) -> Any:
    """What `to_json` took apart, as a value of type `kind`; ValueError names the first part that is not one.

    Names and labels come back as they may be shown (`printable`); fields in AS_WRITTEN as they are.
    """
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        if data is None and NoneType in get_args(kind):
            return None
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
        origin = get_origin(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [entry.name for entry in fields(kind)]
        _must(isinstance(data, dict), where, f"the fields {', '.join(names)}", data)
        # a field of LATER is missing in files of before it, and has its default
        needed = set(names) - (LATER - set(data))
        _must(set(data) == needed, where, f"the fields {', '.join(names)}", data)
        made: Any = kind
        return made(**{n: from_json(hints[n], data[n], f"{where}.{n}", arrays) for n in names if n in needed})
    if origin is list:
        _must(isinstance(data, list), where, "a list", data)
        (part,) = get_args(kind)
        return [from_json(part, entry, f"{where}.{i}", arrays) for i, entry in enumerate(data)]
    if origin is dict:
        _must(isinstance(data, dict), where, "an object", data)
        part = get_args(kind)[1]
        return {printable(k): from_json(part, entry, f"{where}.{k}", arrays) for k, entry in data.items()}
    if origin is np.ndarray:
        _must(data == {ARRAY: where} and where in arrays, where, "an array of the file", data)
        return arrays[where]
    if origin is Literal:
        _must(data in get_args(kind), where, f"one of {', '.join(map(repr, get_args(kind)))}", data)
        return data
    if kind is float:
        if isinstance(data, str) and data in ENDLESS:
            return ENDLESS[data]
        _must(isinstance(data, int | float) and not isinstance(data, bool), where, "a number", data)
        return float(data)
    _must(isinstance(data, kind) and (kind is bool or not isinstance(data, bool)), where, f"a {kind.__name__}", data)
    if kind is int:
        _must(abs(data) < 1 << 53, where, "a whole number below 2^53", data)
    return printable(data) if kind is str and where.rpartition(".")[2] not in AS_WRITTEN else data


def _must(holds: bool, where: str, what: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{printable(where)[:200]} must be {what}, not {printable(repr(value))[:80]}")

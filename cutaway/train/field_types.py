"""A setting's value in the type of its field."""

from __future__ import annotations

import json
import types
import typing
from typing import Any, Literal

from cutaway.errors import ConfigError
from cutaway.train.strategy import IntervalStrategy, SaveStrategy, SchedulerType


def fitting(name: str, value: object, kind: object) -> Any:
    """The value in the type of its field; whole numbers serve as floats, strings as members of an enumeration."""
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) or _is_union(kind) else (kind,)
    said: list[str] = []
    words = [word for choice in choices if typing.get_origin(choice) is Literal for word in typing.get_args(choice)]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) and value[0] in words:
        return value[0]  # from a command line that may also give a list
    for choice in choices:
        origin = typing.get_origin(choice)
        if choice is type(None):
            if value is None:
                return None
        elif origin is Literal:
            if not isinstance(value, list | dict) and value in typing.get_args(choice):
                return value
            said += [repr(v) for v in typing.get_args(choice)]
        elif isinstance(choice, type) and issubclass(choice, (IntervalStrategy, SaveStrategy, SchedulerType)):
            members = [m.value for m in choice]
            plain = getattr(value, "value", value)
            if isinstance(plain, str) and plain in members:
                return choice(plain)
            said += [repr(m) for m in members]
        elif origin is list:
            part = typing.get_args(choice)[0]
            if hasattr(value, "tolist"):
                value = value.tolist()
            if isinstance(value, (list, tuple)):
                return [fitting(name, v, part) for v in value]
            said.append(f"a list of {part.__name__}")
        elif origin is dict:
            if isinstance(value, str) and str not in choices:
                value = from_text(name, value)
            if isinstance(value, dict) and all(isinstance(k, str) for k in value):
                part = typing.get_args(choice)[1]
                return value if part is Any else {k: fitting(f"{name}[{k!r}]", v, part) for k, v in value.items()}
            said.append("a dict of numbers by name")
        elif choice is float and isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
            return float(value)
        elif choice is not float and (
            isinstance(choice, type) and isinstance(value, choice) and (choice is bool or not isinstance(value, bool))
        ):
            return value
        else:
            said.append({str: "text", int: "a whole number", float: "a number", bool: "True or False"}[choice])
    raise ConfigError(f"{name} is {value!r}; it must be {' or '.join(said)}.")


def _is_union(kind: object) -> bool:
    return typing.get_origin(kind) is typing.Union


def from_text(name: str, value: str) -> dict[str, Any]:
    """A dict that a command line gives as JSON."""
    try:
        found = json.loads(value)
    except ValueError as error:
        raise ConfigError(f"{name} is {value!r}; on a command line it must be JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{name} is {value!r}; it must be a dict.")
    return found

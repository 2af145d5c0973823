"""A Python function as the JSON schema that chat templates describe tools with.

The names and types come from the type hints, the texts from a Google-style docstring (an `Args:` section with one
line per argument). The form of the schema is that of the OpenAI function-calling API, as Transformers writes it.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cutaway.errors import TokenizerError

_SCALARS: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_CONTAINERS: dict[Any, str] = {list: "array", tuple: "array", dict: "object"}
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


class DocstringParsingException(TokenizerError):
    """A tool's docstring does not say what the tool or one of its arguments is."""


class TypeHintParsingException(TokenizerError):
    """A tool's argument has no type hint, or one that has no JSON form."""


def tool_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON schema of a function that a model may call.

    Raises:
        TokenizerError: a type hint or a description is missing, or a type has no JSON form.
    """
    name = getattr(function, "__name__", "")
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise TokenizerError(f"A tool is a JSON schema or a function, not {type(function).__name__}.")
    text = (inspect.getdoc(function) or "").strip()
    if not text:
        raise DocstringParsingException(f"The tool {name!r} needs a docstring: what it does, then an 'Args:' section.")
    summary, described, returned = _docstring(text)
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].annotation is inspect.Parameter.empty:
        parameters = parameters[1:]
    hints = get_type_hints(function)
    properties = {}
    for parameter in parameters:
        if parameter.name not in hints:
            raise TypeHintParsingException(f"The tool {name!r}: the argument {parameter.name!r} needs a type hint.")
        if parameter.name not in described:
            raise DocstringParsingException(
                f"The tool {name!r}: the docstring's 'Args:' does not describe {parameter.name!r}."
            )
        schema, description = _type_schema(hints[parameter.name]), described[parameter.name]
        if choices := _CHOICES.search(description):
            schema["enum"] = [c.strip() if isinstance(c, str) else c for c in json.loads(choices.group(1))]
            description = description[: choices.start()].strip()
        properties[parameter.name] = {**schema, "description": description}
    schema = {"type": "object", "properties": properties}
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    if required:
        schema["required"] = required
    described_function: dict[str, Any] = {"name": name, "description": summary, "parameters": schema}
    if "return" in hints and (result := _return_schema(hints["return"])) is not None:
        described_function["return"] = {**result, "description": returned} if returned is not None else result
    return {"type": "function", "function": described_function}


def _return_schema(hint: object) -> dict[str, Any] | None:
    try:
        return _type_schema(hint)
    except TokenizerError:  # most templates do not show what a tool returns, so this must not stop anyone
        return None


def _docstring(text: str) -> tuple[str | None, dict[str, str], str | None]:
    """Summary, description of each argument, and of the returned value, of a Google-style docstring."""
    parts = re.split(r"^[ \t]*(Args|Returns|Raises):[ \t]*\n?", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    described: dict[str, str] = {}
    name = None
    body = inspect.cleandoc("\n" + sections.get("Args", "")) if "Args" in sections else ""
    for line in body.splitlines():
        entry = re.match(r"(\w+)(?:\s*\([^)]*\))?\s*:\s*(.*)$", line)
        if entry is not None:
            name = entry.group(1)
            described[name] = entry.group(2).strip()
        elif name is not None and line.strip():
            described[name] = f"{described[name]} {line.strip()}".strip()
    returned = sections.get("Returns")
    return parts[0].strip() or None, described, returned.strip() if returned is not None else None


def _values(values: list[Any]) -> dict[str, Any]:
    kinds = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _type_schema(hint: object) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is None:
        if isinstance(hint, type) and issubclass(hint, Enum):
            values = [member.value for member in hint]
            if values and all(type(value) in _SCALARS for value in values):
                return _values(values)
        kind = _SCALARS.get(hint) or _CONTAINERS.get(hint)
        if kind is not None:
            return {"type": kind}
    elif origin is Literal and all(type(value) in _SCALARS for value in args):
        return _values(list(args))
    elif origin in (Union, types.UnionType):
        parts = [_type_schema(part) for part in args if part is not type(None)]
        names = sorted({str(part["type"]) for part in parts if part.keys() == {"type"}})
        if len(parts) == 1:
            schema = parts[0]
        elif all(part.keys() == {"type"} and isinstance(part["type"], str) for part in parts):
            schema = {"type": names[0] if len(names) == 1 else names}
        else:
            schema = {"anyOf": parts}
        return {**schema, "nullable": True} if type(None) in args else schema
    elif origin is list and args:
        return {"type": "array", "items": _type_schema(args[0])}
    elif origin is tuple and len(args) > 1 and ... not in args:
        return {"type": "array", "prefixItems": [_type_schema(part) for part in args]}
    elif origin is dict and len(args) == 2:
        return {"type": "object", "additionalProperties": _type_schema(args[1])}
    raise TypeHintParsingException(
        f"The type hint {hint!r} has no JSON form; use plain types, or give the tool's JSON schema itself."
    )


get_json_schema = tool_schema  # upstream's name

"""Body: what a request holds, read as the types say and not otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from cutaway.errors import nearest
from cutaway.serve.problem import Problem


class Body(BaseModel):
    """A JSON object whose fields are all known: one that is not is refused, never ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, data: bytes, status: int = 400, prefix: str = "") -> Self:
        """The body of a request; Problem, with the field's name and value, where it is not as it should be.

        prefix: the field of another body that this one stands in.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise _problem(cls, error, status, prefix) from None

    @classmethod
    def field_of(cls, message: str) -> str | None:
        """The field that a message begins with; else the first that must be given, the model's name aside."""
        named = next((name for name in cls.model_fields if re.match(rf"{name}\b", message)), None)
        must = (name for name, entry in cls.model_fields.items() if entry.is_required() and name != "model")
        return named or next(must, None)


def _problem(kind: type[BaseModel], error: ValidationError, status: int, prefix: str) -> Problem:
    # of a union, every form that was tried has an error: the one that got farthest says most
    first = max(error.errors(include_url=False, include_context=False), key=lambda e: len(_path(e["loc"])))
    path = _path(first["loc"], named=first["type"] in ("extra_forbidden", "missing"))
    name = ".".join([prefix, *path] if prefix else path) or None
    if first["type"] == "json_invalid":
        return Problem(status, f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}.", code="json")
    if first["type"] == "missing":
        return Problem(status, f"{name} is missing.", param=name, code="missing")
    if first["type"] == "extra_forbidden":
        known = [entry.alias or field for field, entry in kind.model_fields.items()] if len(path) == 1 else []
        return Problem(status, f"{name} is not a field of this route.{nearest(path[-1], known)}", param=name)
    value = f"{first['input']!r:.60}"
    if name is None:
        return Problem(status, f"The body must be a JSON object, not {value}.", code="json")
    reason = first["msg"].removeprefix("Value error, ")
    return Problem(status, f"{name}={value}: {reason[:1].lower()}{reason[1:]}.".replace("..", "."), param=name)


def _path(loc: Sequence[Any], *, named: bool = False) -> list[str]:
    """The fields of a place; pydantic also names the types of a union that it tried. `named`: the last is a field."""
    types = {"str", "int", "float", "bool", "dict", "list", "nullable"}
    found = []
    for place, part in enumerate(loc):
        if isinstance(part, int):
            found.append(str(part))
        elif (named and place == len(loc) - 1) or (
            part not in types and not any(mark in part for mark in "[(-") and not part[:1].isupper()
        ):
            found.append(part[:80])
    return found


def _off(value: bool) -> bool:
    if value:
        raise ValueError("this server does not do that; leave it out")
    return value


Off = Annotated[bool, AfterValidator(_off)]  # a field that may only be false

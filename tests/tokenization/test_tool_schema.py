"""Functions as JSON schemas: the same as transformers writes, and clear where there is none."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Optional, Union

import pytest
from transformers.utils import get_json_schema

from cutaway.errors import TokenizerError
from cutaway.tokenization.tool_schema import tool_schema


class Unit(Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


def plain(a: int, b: float = 2.0, c: bool = False) -> None:
    """Do it.

    Args:
        a: The first
        b: The second,
            which goes on
        c: The third
    """


def nested(a: list[list[int]], b: dict[str, float], c: tuple[int, str], d: Any, e: list, f: dict) -> str:
    """
    Do it.

    With more to say.

    Args:
        a: one
        b: two
        c: three
        d: four
        e: five
        f: six

    Returns:
        What it made
    """
    return ""


def choices(a: Literal["x", "y"], b: Unit, c: Optional[int], d: Union[int, str], e: list[int] | str | None) -> Unit:  # noqa: UP007, UP045
    """Choose.

    Args:
        a: one
        b: two
        c: three
        d: four (choices: ["p", "q"])
        e: five

    Returns:
        a unit
    """
    return b


def nothing() -> list[str]:
    """Take nothing."""
    return []


class Thing:
    def method(self, a: int) -> int:
        """Do.

        Args:
            a: one
        """
        return a


@pytest.mark.parametrize("function", [plain, nested, choices, nothing, Thing().method])
def test_the_schema_is_transformers(function: Callable[..., Any]) -> None:
    assert tool_schema(function) == get_json_schema(function)


def undocumented(a: int) -> None: ...


def unhinted(a) -> None:  # type: ignore[no-untyped-def]
    """Do.

    Args:
        a: one
    """


def undescribed(a: int) -> None:
    """Do."""


def strange(a: Thing) -> None:
    """Do.

    Args:
        a: one
    """


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (undocumented, "needs a docstring"),
        (unhinted, "'a' needs a type hint"),
        (undescribed, "does not describe 'a'"),
        (strange, "has no JSON form"),
        (3, "not int"),
    ],
)
def test_functions_without_a_schema(function: Any, says: str) -> None:
    with pytest.raises(TokenizerError, match=says):
        tool_schema(function)

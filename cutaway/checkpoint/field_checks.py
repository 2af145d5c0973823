"""Checked reading of configuration fields: each value is what a builder can use, or one error says why not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

from cutaway.errors import ConfigError, nearest


class Bounds:
    """The checks of a configuration: `integer`, `number`, `choice`, `flag`."""

    attribute_map: ClassVar[dict[str, str]] = {}

    def integer(self, name: str, low: int = 0, high: int = 1_000_000) -> int:
        """The field as an int in [low, high]; ConfigError naming the field, the value and the bounds otherwise."""
        value = self._required(name)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(
                f"{self._called(name)} is {shown_value(value)}; give a whole number from {low:,} to {high:,}."
            )
        return value

    def number(self, name: str, low: float = 0.0, high: float = 1e6) -> float:
        """The field as a finite float in [low, high]; ConfigError otherwise."""
        value = self._required(name)
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not low <= value <= high
            or not math.isfinite(value)
        ):
            raise ConfigError(f"{self._called(name)} is {shown_value(value)}; give a number from {low:g} to {high:g}.")
        return float(value)

    def choice(self, name: str, allowed: Iterable[str]) -> str:
        """The field as one of `allowed`; ConfigError with the nearest ones otherwise."""
        value = self._required(name)
        known = sorted(allowed)
        if not isinstance(value, str) or value not in known:
            raise ConfigError(
                f"{self._called(name)} is {shown_value(value)}; cutaway builds {', '.join(map(repr, known))}."
                f"{nearest(value, known, 1) if isinstance(value, str) else ''}"
            )
        return value

    def flag(self, name: str) -> bool:
        """The field as a bool; ConfigError otherwise."""
        value = self._required(name)
        if not isinstance(value, bool):
            raise ConfigError(f"{self._called(name)} is {shown_value(value)}; give true or false.")
        return value

    def divided(self, name: str, by: str) -> int:
        """Field `name` / field `by`; ConfigError where that is not a whole number."""
        whole, parts = self.integer(name, 1), self.integer(by, 1)
        if whole % parts:
            raise ConfigError(
                f"{self._called(name)} is {whole}, which {self._called(by)}, {parts}, does not divide; change one of "
                "the two."
            )
        return whole // parts

    def _required(self, name: str) -> object:
        try:
            return getattr(self, name)
        except AttributeError as e:
            raise ConfigError(f"{e} The field is needed to build the model.") from None

    def _called(self, name: str) -> str:
        """The field's own name in config.json."""
        return self.attribute_map.get(name, name)


def shown_value(value: object) -> str:
    """The value for a message: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."

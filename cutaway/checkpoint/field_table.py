"""What each field of a file does here, as a table: used, without effect, or refused unless it has a harmless value.

Each reader of a file has one such table beside it; `docs/config-fields.md` shows them all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cutaway.checkpoint.field_checks import shown_value

logger = logging.getLogger("cutaway")


@dataclass(frozen=True)
class Only:
    """The values under which a field changes nothing that cutaway does not build.

    Attributes:
        values: compared with their type; a field that is absent is always fine.
        instead: what to do about another value, as a sentence; "" for "It must be ...".
    """

    values: tuple[Any, ...]
    instead: str = ""

    def allows(self, value: object) -> bool:
        """Whether the value is one of them."""
        return any(type(value) is type(known) and value == known for known in self.values)

    @property
    def way_out(self) -> str:
        """What to do, as a sentence."""
        return self.instead or f"It must be {' or '.join(map(repr, self.values))}."


def only(*values: object, instead: str = "") -> Only:
    """`Only` of these values."""
    return Only(values, instead)


@dataclass(frozen=True)
class Row:
    """One row of a table as people read it.

    Attributes:
        does: "used", "without effect", "refused" or "refused in training".
        note: why it is without effect; which values are not refused.
    """

    name: str
    does: str
    note: str = ""


@dataclass(frozen=True)
class FieldTable:
    """The fields of one kind of file.

    Attributes:
        source: what the fields are called in a message, such as "adapter_config.json".
        used: names. without_effect: name -> why. refused: name -> the values that are harmless.
    """

    source: str
    used: frozenset[str]
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Only] = field(default_factory=dict)

    def check(self, fields: Mapping[str, Any], error: type[Exception], where: str = "") -> None:
        """`error` for a field that asks for what is not built; fields that are not in the table go to the log, once."""
        for name, allowed in self.refused.items():
            if name in fields and not allowed.allows(fields[name]):
                raise error(
                    f"{where or self.source}: {name} is {shown_value(fields[name])}, which is not built. "
                    f"{allowed.way_out}"
                )
        say_once(self.source, (name for name in fields if name not in self.known))

    @property
    def known(self) -> frozenset[str]:
        """The names of all rows."""
        return self.used | self.without_effect.keys() | self.refused.keys()

    def rows(self) -> list[Row]:
        """The table, by name."""
        found = [Row(name, "used") for name in self.used - self.without_effect.keys() - self.refused.keys()]
        found += [Row(name, "without effect", why) for name, why in self.without_effect.items()]
        found += [Row(name, "refused", f"unless {allowed_values(own)}") for name, own in self.refused.items()]
        return sorted(found, key=lambda row: row.name)


def allowed_values(allowed: Only) -> str:
    """The harmless values, for a table."""
    return ", ".join(f"`{value!r}`" for value in allowed.values) or "absent"


def say_once(source: str, names: Iterable[Any]) -> None:
    """Name fields that no table knows in the log, once for each set of them."""
    unknown = sorted(str(name)[:60] for name in names)[:20]
    if unknown and (key := (source, *unknown)) not in _said and len(_said) < 1000:
        _said.add(key)
        logger.warning("%s holds fields that nobody knows: %s. They change nothing.", source, ", ".join(unknown))


_said: set[tuple[str, ...]] = set()

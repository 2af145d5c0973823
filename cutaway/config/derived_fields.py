"""Fields that a config leaves open and that follow from others: reading one gives what the model takes.

A family says beside its `defaults` what follows from what. The file stays as it was: an open field is written as it was
read. A list or table that was handed out and then changed by its reader becomes a field of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from cutaway.errors import CutawayError


class DerivedFields:
    """The part of a config that answers for its open fields."""

    # {field: what it is where the config leaves it open, or a function of the config that says so}
    derived: ClassVar[Mapping[str, object]] = {}
    attribute_map: ClassVar[dict[str, str]] = {}
    # {field: others that say parts of it}: they give way to a table that was handed out and then changed
    said_beside: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def _init_derived(self) -> None:
        self.__dict__["_handed_out"] = {}

    def __copy__(self) -> Self:
        """A shallow copy; what was handed out stays the original's, so that neither takes the other's changes."""
        self._adopt_changes()
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__, _handed_out={})
        return copied

    @classmethod
    def _derivations(cls) -> dict[str, object]:
        """What follows, of this class and its bases."""
        own: dict[str, object] | None = cls.__dict__.get("_derivations_of_class")
        if own is None:
            own = {}
            for base in reversed(cls.__mro__):
                own.update(vars(base).get("derived", {}))
            cls._derivations_of_class = own  # type: ignore[attr-defined]
        return own

    def stated(self, name: str, default: object = None) -> Any:
        """A field's value where the config itself says it, else `default`: nothing that follows from other fields."""
        self._adopt_changes()
        name = self.attribute_map.get(name, name)
        return self.__dict__.get(name, getattr(type(self), name, default))

    def _derive(self, name: str) -> object:
        """What an open field follows to be.

        Raises:
            AttributeError: it follows from nothing, or from fields that are wrong.
        """
        make = self._derivations()[name]
        self._adopt_changes()
        if name in self.__dict__:
            return self.__dict__[name]
        try:
            value = make(self) if callable(make) else make
        except (ArithmeticError, TypeError, CutawayError) as error:
            raise AttributeError(f"{type(self).__name__}.{name} is not given, and does not follow: {error}") from None
        return self._hand_out(name, value) if isinstance(value, (dict, list)) else value

    def _hand_out(self, name: str, value: object) -> object:
        """The value as an object that stays the same, so that a change of it can be found."""
        held: dict[str, tuple[Any, Any]] = self.__dict__.setdefault("_handed_out", {})
        if any(value is other for other in (*self.__dict__.values(), *(v for v, _ in held.values()))):
            return value  # another field's
        if name in held and type(held[name][0]) is type(value):
            old = held[name][0]
            old.clear()
            if isinstance(value, dict):
                old.update(value)
            elif isinstance(value, list):
                old.extend(value)
            value = old
        held[name] = (value, copy.deepcopy(value))
        return value

    def _adopt_changes(self) -> None:
        held: dict[str, tuple[Any, Any]] = self.__dict__.get("_handed_out", {})
        for name, (value, before) in list(held.items()):
            if value != before:
                del held[name]
                if self.__dict__.setdefault(name, value) is value:
                    self._give_way(name, value)

    def _give_way(self, name: str, table: Mapping[str, object] | list[object]) -> None:
        """Leave open, or at its default, what other fields say of a table that says it itself from now on."""
        inner = [v for v in table.values() if isinstance(v, dict)] if isinstance(table, Mapping) else []
        for other in self.said_beside.get(name, ()):
            if callable(self._derivations().get(other)) or any(other in each for each in (table, *inner)):
                field = self.attribute_map.get(other, other)
                default = vars(type(self)).get("defaults", {}).get(field)
                if default is None:
                    self.__dict__.pop(field, None)
                elif field in self.__dict__:
                    self.__dict__[field] = default

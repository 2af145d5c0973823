"""Patterns over dotted names: steps with `*`, and `0-3` for a range of blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_RANGE = re.compile(r"(\d+)-(\d+)")


def fits(name: str, pattern: str) -> bool:
    """Whether `name` begins with the steps of `pattern`."""
    steps, wanted = name.split("."), pattern.split(".")
    return len(wanted) <= len(steps) and all(_step(a, b) for a, b in zip(steps, wanted, strict=False))


def beginnings(names: Iterable[str]) -> list[str]:
    """Every place that a pattern could name: each name and what it begins with."""
    return sorted({".".join(n.split(".")[:i]) for n in names for i in range(1, n.count(".") + 2)})


def _step(step: str, wanted: str) -> bool:
    bounds = _RANGE.fullmatch(wanted)
    if bounds and step.isdigit():
        return int(bounds[1]) <= int(step) <= int(bounds[2])
    return fnmatchcase(step, wanted)

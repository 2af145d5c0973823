"""Upstream's module paths and the small names that live there, so that a script changes one import."""

from __future__ import annotations

MYPY = False
if MYPY:
    from typing import Any


def __getattr__(name: str) -> Any:
    """`logging`: upstream's top level has that module among its names."""
    if name == "logging":
        from importlib import import_module

        return import_module("cutaway.compat.verbosity")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Look inside a model while it runs: `explain` gives everything that one run showed, as data, pictures or a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.inspect.explainer import explain
    from cutaway.inspect.explanation import Explanation

__all__ = ["Explanation", "explain"]

_LAZY = {"explain": "cutaway.inspect.explainer", "Explanation": "cutaway.inspect.explanation"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

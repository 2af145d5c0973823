"""Look inside a model while it runs: `explain` gives everything that one run showed, as data, pictures or a page.

Beside it stand the measures, each in the file of its noun: functions of a model and texts, or of recorded tensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "cutaway.inspect.explainer": "explain",
    "cutaway.inspect.explanation": "Explanation",
    "cutaway.model.edits": "Edit",
    "cutaway.model.recorder": "Recorder",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""`pipeline(task, model=...)`: one task in one line, with the shapes of the Transformers tutorials.

Nothing here imports torch or the engine until a pipeline is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.pipelines.factory import LATER, TASKS, pipeline

if TYPE_CHECKING:
    from cutaway.pipelines.base import Pipeline
    from cutaway.pipelines.text_classification import TextClassificationPipeline

__all__ = ["LATER", "TASKS", "Pipeline", "TextClassificationPipeline", "pipeline"]

_LAZY = {
    "Pipeline": "cutaway.pipelines.base",
    "TextClassificationPipeline": "cutaway.pipelines.text_classification",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

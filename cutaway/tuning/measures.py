"""What is measured on the validation rows during a training: functions of logits and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.tuning.labelled import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST: dict[Kind, str] = {"one": "accuracy", "several": "micro_f1", "number": "mean_absolute_error"}


def measures_of(kind: Kind) -> Callable[[Any], dict[str, float]]:
    """The `compute_metrics` of a kind of labels; its first measure is `FIRST`."""
    return {"one": _one, "several": _several, "number": _number}[kind]


def _one(given: tuple[NDArray[np.float32], NDArray[np.float32]]) -> dict[str, float]:
    logits, labels = given  # [rows, classes], [rows]
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


def _several(given: tuple[NDArray[np.float32], NDArray[np.float32]]) -> dict[str, float]:
    logits, labels = given  # both [rows, classes]
    said, right = logits > 0, labels > 0.5
    both, either = float((said & right).sum()), float(said.sum() + right.sum())
    return {"micro_f1": 2 * both / either if either else 1.0, "exact": float((said == right).all(-1).mean())}


def _number(given: tuple[NDArray[np.float32], NDArray[np.float32]]) -> dict[str, float]:
    logits, labels = given  # [rows, 1], [rows]
    said, right = np.asarray(logits, dtype=float).reshape(-1), np.asarray(labels, dtype=float)
    found = {"mean_absolute_error": float(np.abs(said - right).mean())}
    if said.std() > 0 and right.std() > 0:
        found["pearson"] = float(np.corrcoef(said, right)[0, 1])
    return found

"""What each evaluation of a training gets wrong and how sure it is: validation.json, beside the checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import InputError
from cutaway.evaluate.scoring import reliability
from cutaway.jsonfile import read_json, write_text
from cutaway.train import TrainerCallback

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cutaway.train import TrainerControl, TrainerState, TrainingArguments

VALIDATION = "validation.json"
MOST = 200  # evaluations that are kept, the newest
LABELS = 50  # up to which a confusion is written


class ValidationLog(TrainerCallback):
    """Notes confusion and calibration of each evaluation of a classifier with one label a row.

    `measure` is the trainer's `compute_metrics`: it hands on what `measures` says, and keeps what is written when the
    evaluation has ended.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], measures: Callable[[tuple[Any, Any]], dict[str, float]]
    ) -> None:
        self.path, self.names, self.measures = folder / VALIDATION, list(names), measures
        self._latest: dict[str, object] | None = None

    def measure(self, given: tuple[NDArray[np.float32], NDArray[np.float32]]) -> dict[str, float]:
        """What is measured of logits [rows, labels] and labels [rows]."""
        logits, labels = given
        right, n = np.asarray(labels).astype(int), len(self.names)
        if 1 < n <= LABELS and logits.ndim == 2 and logits.shape[1] == n:
            shares = np.exp(logits - logits.max(-1, keepdims=True))  # [rows, labels]
            shares /= shares.sum(-1, keepdims=True)
            said = shares.argmax(-1)
            confusion = np.zeros((n, n), int)
            np.add.at(confusion, (right, said), 1)  # [true, said]
            bins = reliability(shares.max(-1), said == right)
            self._latest = {"confusion": confusion.tolist(), "reliability": bins}
        return self.measures(given)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *values: object,
        **kwargs: object,
    ) -> None:
        """Writes what was kept, with the step; an evaluation of the same step takes the place of the one before."""
        if self._latest is None or not state.is_world_process_zero:
            return
        before: list[dict[str, object]] = []
        if self.path.is_file():
            try:
                before = [e for e in read_json(self.path, InputError)["evaluations"] if e["step"] < state.global_step]
            except (InputError, KeyError, TypeError):
                before = []  # a file that somebody else wrote; the training does not end for it
        entries = [*before, {"step": state.global_step, **self._latest}][-MOST:]
        write_text(self.path, json.dumps({"labels": self.names, "evaluations": entries}) + "\n")

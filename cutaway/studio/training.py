"""A folder of `cutaway train`, running or finished: what was logged so far, and its checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cutaway.errors import InputError
from cutaway.jsonfile import read_json
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem
from cutaway.show.label import printable
from cutaway.tuning.validation_log import VALIDATION

STATE = "trainer_state.json"
DEEP = 2  # folders below those that were given
BIN = ("low", "share", "confidence", "accuracy")
FRESH = 120.0  # seconds since the last word of a training that is taken to run


class TrainingBody(Body):
    """A training's folder, by the name that the list gives it."""

    name: Annotated[str, Field(max_length=4096)]


def trainings(folders: Sequence[Path]) -> dict[str, Path]:
    """{name: folder} of the trainings in these folders, and in theirs."""
    found: dict[str, Path] = {}
    for root in folders:
        for folder in _below(root, DEEP):
            if (folder / STATE).is_file() or any(folder.glob(f"checkpoint-*/{STATE}")):
                found[str(folder)] = folder
    return found


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that hold a model, by their step."""
    held = [path for path in folder.glob("checkpoint-*") if (path / "config.json").is_file()]
    return sorted(held, key=lambda path: int(path.name.rpartition("-")[2]) if path.name[-1].isdigit() else 0)


def read(folder: Path) -> dict[str, object]:
    """What a training says of itself: its curves, where it stands, and the seconds that are left by its pace.

    Raises:
        Problem: there is no state yet that can be read.
    """
    states = [folder / STATE, *(path / STATE for path in folder.glob("checkpoint-*"))]
    held = [path for path in states if path.is_file()]
    if not held:
        raise Problem(404, f"name={folder.name!r}: nothing was logged there yet.", param="name")
    newest = max(held, key=lambda path: path.stat().st_mtime)
    try:
        state = json.loads(newest.read_text("utf-8"))
    except ValueError:
        raise Problem(503, f"{newest.name} is being written.", retry_after=1) from None
    history = [entry for entry in state.get("log_history", []) if isinstance(entry, dict)]
    curves: dict[str, list[list[float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name not in ("step", "epoch") and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(str(name), []).append([float(entry.get("step", 0)), float(value)])
    step, most = int(state.get("global_step", 0)), int(state.get("max_steps", 0) or 0)
    age = time.time() - newest.stat().st_mtime
    first = min(path.stat().st_mtime for path in held)
    pace = step / (newest.stat().st_mtime - first) if newest.stat().st_mtime > first else 0.0
    running = age < FRESH and 0 < step < most
    return {
        "name": str(folder), "step": step, "steps": most, "epoch": state.get("epoch"), "curves": curves,
        "running": running, "left": (most - step) / pace if running and pace else None,
        "best": state.get("best_metric"), "best_step": state.get("best_global_step"),
        "checkpoints": [str(path) for path in checkpoints(folder)], "validation": _validation(folder),
    }  # fmt: skip


def _validation(folder: Path) -> dict[str, object] | None:
    """Confusion and calibration of each evaluation, where the training wrote them (`cutaway train`)."""
    try:
        told = read_json(folder / VALIDATION, InputError)
        labels = [printable(str(label)) for label in told["labels"]]
        evaluations = [
            {"step": int(one["step"]), "confusion": [[int(n) for n in row] for row in one["confusion"]],
             "reliability": [{key: float(one_bin[key]) for key in BIN} for one_bin in one["reliability"]]}
            for one in told["evaluations"]
        ]  # fmt: skip
    except (InputError, KeyError, TypeError, ValueError):
        return None
    return {"labels": labels, "evaluations": evaluations}


def _below(root: Path, depth: int) -> Iterator[Path]:
    yield root
    if depth:
        try:
            inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:
            return
        for path in inside:
            if not path.name.startswith("checkpoint-"):
                yield from _below(path, depth - 1)

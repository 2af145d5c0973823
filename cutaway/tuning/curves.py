"""The picture of a training: loss, rate and measure over its steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cutaway.jsonfile import write_aside


def save(history: Sequence[dict[str, Any]], measure: str, path: Path) -> None:
    """Draw what was logged (`TrainerState.log_history`); `measure` is the name of an evaluation's, without eval_."""
    import matplotlib
    from matplotlib.figure import Figure

    def series(name: str) -> tuple[list[float], list[float]]:
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        return [p[0] for p in points], [p[1] for p in points]

    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        left.plot(*series("loss"), color="#0b6e99", linewidth=1.2, label="training")
        left.plot(*series("eval_loss"), color="#c2410c", marker="o", markersize=4, label="validation")
        left.legend(frameon=False)
        middle.plot(*series(f"eval_{measure}"), color="#c2410c", marker="o", markersize=4)
        right.plot(*series("learning_rate"), color="#5b6878", linewidth=1.2)
        for axes, title in ((left, "loss"), (middle, measure.replace("_", " ")), (right, "learning rate")):
            axes.set(title=title, xlabel="step")
            axes.spines[["top", "right"]].set_visible(False)
        write_aside(path, lambda aside: figure.savefig(aside, dpi=150, format=path.suffix[1:].lower()))

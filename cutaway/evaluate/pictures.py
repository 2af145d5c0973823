"""Pictures of an evaluation: the confusion matrix and the reliability of probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cutaway.errors import InputError
from cutaway.evaluate.evaluation import Evaluation
from cutaway.jsonfile import write_aside
from cutaway.show.label import printable


def save(evaluation: Evaluation, path: Path) -> None:
    """Both side by side, as .png, .svg or .pdf. Raises InputError for a task that has neither."""
    if "confusion" not in evaluation.details:
        raise InputError(f"{evaluation.task} has no picture; write the measures as .json.")
    import matplotlib
    from matplotlib.figure import Figure

    labels = [printable(label).replace("$", r"\$") for label in evaluation.details["labels"]]
    counts = np.array(evaluation.details["confusion"])
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        left.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "black" if shares[row, column] > 0.5 else "white"
            left.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
        left.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        left.set_yticks(range(len(labels)), labels)
        left.set(xlabel="said", ylabel="right", title=f"accuracy {evaluation.measures['accuracy']:.1%}")
        bins = evaluation.details["reliability"]
        right.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        sizes = [20 + 400 * entry["share"] for entry in bins]
        right.scatter(
            [e["confidence"] for e in bins], [e["accuracy"] for e in bins], s=sizes, color="#0b6e99", alpha=0.8
        )
        right.set(
            xlabel="probability of the label said", ylabel="how often it is right", xlim=(0, 1.02), ylim=(0, 1.02)
        )
        right.set_title(f"expected calibration error {evaluation.measures['ece']:.1%} (area: share of the answers)")
        write_aside(path, lambda aside: figure.savefig(aside, dpi=150, format=path.suffix[1:].lower()))

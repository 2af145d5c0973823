"""The answer before and after the changes of the lab, and how far they moved what is inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.inspect.page.page import run_data

if TYPE_CHECKING:
    from cutaway.studio.analysis import Analysis

TOP = 8  # answers of each side


def side_by_side(before: Analysis, after: Analysis) -> dict[str, object]:
    """Both answers, KL in nats from before to after, and the distance of each state as a share of its length before."""
    sides: list[dict[str, object]] = []
    for run in (before, after):
        answers = run_data(run.explanation)["answers"]
        if not answers and run.explanation.steps:
            answers = run_data(run.explanation)["steps"][0]["candidates"]
        best = sorted(answers, key=lambda answer: -(answer["logit"] or 0.0))[:TOP]
        moved = {"kl": _kl(before, run), "states": _distances(before, run)}
        sides.append({"answers": best, "moved": moved})
    return {"before": sides[0], "after": sides[1]}


def _kl(before: Analysis, after: Analysis) -> float | None:
    """KL of the answers' softmax; None for a model without one."""
    import torch

    logits = []
    for run in (before, after):
        if run.run.output.get("logits") is None:
            return None
        place = {"labels": None, "next-token": run.run.prompt - 1, "target": 0}.get(run.explanation.kind)
        if run.explanation.kind == "mask":
            place = run.explanation.steps[0].position if run.explanation.steps else 0
        found = run.run.output["logits"][0] if place is None else run.run.logits_at(place)  # [answers]
        logits.append(found.double().log_softmax(-1))
    return float(torch.sum(logits[0].exp() * (logits[0] - logits[1])))


def _distances(before: Analysis, after: Analysis) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name, states in before.explanation.states.items():
        x, y = before.run.hidden[name], after.run.hidden[name]  # [states, L, H]
        gap = np.linalg.norm(x - y, axis=-1).mean(-1) / np.maximum(np.linalg.norm(x, axis=-1).mean(-1), 1e-30)
        found.append({"name": name, "places": states.places, "distance": gap.tolist()})
    return found

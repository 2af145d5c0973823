"""What an answer loses when a part of the model is put out of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs, logits_of, one_text

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class Ablation(Result):
    """`effect` [places]: the target with each place put out of use, minus `value`, the target without."""

    kind: str
    places: list[str]
    effect: Tensor
    value: float
    target: Target


@torch.no_grad()
@measure
def ablate(
    model: LanguageModel,
    inputs: Inputs,
    places: Sequence[str] = ("*attn.head.*.out",),
    target: Target | None = None,
    *,
    kind: Literal["zero", "mean", "resample"] = "zero",
    others: Inputs | None = None,
    seed: int = 0,
) -> Ablation:
    """f(x with the place at zero, at its mean, or at another text's value) - f(x).

    Zero leaves the model where it never was; the mean over `others` keeps what all texts share (Wang et al., 2022,
    2211.00593); resampling puts in the value of one of `others`, drawn once (Chan et al., 2022, causal scrubbing).

    Args:
        inputs: one text. others: a batch for "mean" and "resample"; for "resample", of the same length.
    """
    text_inputs = one_text(inputs, 0)
    goal = (target or Target()).fixed(model, text_inputs)
    known = model.find_addresses(places)
    value = float(goal.of(logits_of(model, text_inputs)))
    if kind not in ("zero", "mean", "resample"):
        raise InputError(f"kind={kind!r} must be 'zero', 'mean' or 'resample'.")
    if kind != "zero" and others is None:
        raise InputError(f"kind={kind!r} takes its values from other texts; pass others=.")
    instead: dict[str, Any] = dict.fromkeys(known, 0.0)
    if others is not None and kind != "zero":
        instead = _instead(model, others, known, kind, seed)
    effect = []
    for place in known:
        with model.edit({place: instead[place]}):
            effect.append(goal.of(logits_of(model, text_inputs)) - value)
    return Ablation(kind, known, torch.cat(effect), value, goal)


def _instead(model: LanguageModel, others: Inputs, places: list[str], kind: str, seed: int) -> dict[str, Tensor]:
    texts = [one_text(others, row) for row in range(others["input_ids"].shape[0])]
    if kind == "resample":
        texts = [texts[int(torch.randint(len(texts), (1,), generator=torch.Generator().manual_seed(seed)))]]
    runs = []
    for text in texts:
        with model.record(*places) as r:
            model(**text)
        runs.append({a: r[a] for a in places})
    if kind == "resample":
        return runs[0]
    # over all positions of all texts: [1, 1, ...]
    return {a: torch.cat([run[a][0] for run in runs]).mean(0)[None, None] for a in places}

"""Which activation carries a difference: put one run's values into another, and see how much of the answer follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.perturbation import BATCH
from cutaway.inspect.result import Result
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs, logits_of, one_text, repeated, tower_of
from cutaway.nn.activations.edits import Edit
from cutaway.nn.activations.recorder import Recorder
from cutaway.show.sheet import Scale

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class Patching(Result):
    """`effect` [places, positions], or [places, 1] for all positions at once: 0 changes nothing, 1 restores the answer.

    `clean` and `corrupted` are the target of the two runs.
    """

    SCALES: ClassVar[dict[str, Scale]] = {"effect": "signed"}

    places: list[str]
    effect: Tensor
    clean: float
    corrupted: float
    target: Target


@measure
def activation_patching(
    model: LanguageModel,
    clean: Inputs,
    corrupted: Inputs,
    places: Sequence[str] = ("*blocks.*.resid",),
    target: Target | None = None,
    *,
    each_position: bool = True,
) -> Patching:
    """(f(corrupted, with this value from the clean run) - f(corrupted)) / (f(clean) - f(corrupted)).

    Vig et al. (2020, 2004.12265); Meng et al. (2022, 2202.05262); Zhang and Nanda (2024, 2309.16042) on its choices. A
    whole layer at all positions is 1. All positions of a place run as one batch.

    Args:
        clean, corrupted: one text each, of the same length. places: addresses, * allowed.
        target: by default, the clean run's likeliest answer against the corrupted run's.
    """
    first, second = one_text(clean, 0), one_text(corrupted, 0)
    _same_length(first, second)
    goal = _goal(model, first, second, target)
    known = model.find_addresses(places)
    with torch.no_grad():
        with model.record(*known) as r:
            good = float(goal.of(logits_of(model, first)))
        bad = float(goal.of(logits_of(model, second)))
        rows = [_along(model, second, goal, place, r, each_position) for place in known]
    effect = torch.stack(rows)
    return Patching(known, (effect - bad) / _apart(good, bad), good, bad, goal)


def _along(model: LanguageModel, inputs: Inputs, goal: Target, place: str, source: Recorder, each: bool) -> Tensor:
    """The target with `place` patched, at each position or at all: [positions] or [1]."""
    if not each:
        with model.edit({place: source}):
            return goal.of(logits_of(model, inputs))
    axis = 2 if place.rsplit(".", 1)[-1] in ("scores", "pattern") else 1
    goals = []
    for places in torch.arange(source[place].shape[axis]).split(BATCH):
        edits = [Edit(source, rows=row, positions=int(at)) for row, at in enumerate(places)]
        with model.edit({place: edits}):
            goals.append(goal.of(logits_of(model, repeated(inputs, len(places)))))
    return torch.cat(goals)


def _goal(model: LanguageModel, clean: Inputs, corrupted: Inputs, target: Target | None) -> Target:
    goal = (target or Target()).fixed(model, clean)
    if target is not None:
        return goal
    other = Target(position=goal.position).fixed(model, corrupted)
    return goal if other.index == goal.index else replace(goal, against=other.index)


def _same_length(a: Inputs, b: Inputs) -> None:
    for name in a:
        if name in b and a[name].shape != b[name].shape:
            raise InputError(
                f"patching needs texts of the same length, token by token: {name} is {list(a[name].shape)} and "
                f"{list(b[name].shape)}."
            )


def _apart(good: float, bad: float) -> float:
    if good == bad:
        raise InputError(
            "the two texts get the same answer, so there is no difference to restore; choose another target."
        )
    return good - bad


@dataclass(frozen=True)
class PathPatching(Result):
    """`effect`: how much of the answer's difference goes from the sender to the receivers directly."""

    sender: str
    receivers: list[str]
    effect: float


@measure
def path_patching(
    model: LanguageModel,
    clean: Inputs,
    corrupted: Inputs,
    sender: str,
    receivers: Sequence[str],
    target: Target | None = None,
) -> PathPatching:
    """What of the difference goes along the direct path (Wang et al., 2022, 2211.00593; Goldowsky-Dill et al., 2023).

    In the corrupted run the sender is put at its clean value while every attention and feed-forward result after it is
    held at the corrupted one, so that only the stream carries the change; what then stands at the receivers is put into
    a plain corrupted run. A receiver before the sender gets nothing: 0. The last state from itself: 1.
    """
    first, second = one_text(clean, 0), one_text(corrupted, 0)
    _same_length(first, second)
    goal = _goal(model, first, second, target)
    known = model.addresses()
    (source,) = model.find_addresses([sender])
    ends = model.find_addresses(receivers)
    order = {address: n for n, address in enumerate(known)}
    results = [a for a in known if a.endswith((".attn.out", ".cross.out", ".mlp.out"))]
    # a head's own address stands before its layer's sum, which the head must still reach
    source_layer = source.partition(".head.")[0] + ".out" if ".head." in source else source
    frozen = [a for a in results if order[a] > order[source] and a != source_layer]
    reached = [a for a in frozen if a not in ends]
    with torch.no_grad():
        with model.record(source) as r:
            good = float(goal.of(logits_of(model, first)))
        with model.record(*frozen, source) as base:
            bad = float(goal.of(logits_of(model, second)))
        with model.edit({source: r, **dict.fromkeys(reached, base)}), model.record(*ends) as sent:
            logits_of(model, second)
        with model.edit(dict.fromkeys(ends, sent)):
            patched = float(goal.of(logits_of(model, second)))
    return PathPatching(source, ends, (patched - bad) / _apart(good, bad))


@dataclass(frozen=True)
class CausalTrace(Result):
    """`restored` [places, positions]: the answer's probability with one state put back; `clean` and `noised` without.

    Each is the mean over the noise that was drawn.
    """

    places: list[str]
    restored: Tensor
    clean: float
    noised: float
    target: Target


@measure
def causal_trace(
    model: LanguageModel,
    inputs: Inputs,
    subject: Sequence[int],
    places: Sequence[str] = ("*blocks.*.resid",),
    target: Target | None = None,
    *,
    noise: float = 3.0,
    draws: int = 5,
    window: int = 1,
    seed: int = 0,
) -> CausalTrace:
    """Noise on the subject's vectors, then one place and position put back (Meng et al., 2022, 2202.05262, section 2).

    Args:
        subject: positions of the tokens to blur. noise: in standard deviations of the token table. draws: how often.
        window: neighbouring places of the list (layers) that are put back together.
    """
    text_inputs = one_text(inputs, 0)
    tower = tower_of(model, "encoder" if model.base_model.architecture.decoder is not None else None)
    goal = replace((target or Target()).fixed(model, text_inputs), probability=True)
    known = model.find_addresses(places)
    vectors = tower.vectors(text_inputs[tower.ids][0]).detach()
    spread = noise * tower.scaled(tower.stack.embed.tokens.weight.detach()).std()
    draw = torch.Generator().manual_seed(seed)
    shape = (draws, len(subject), vectors.shape[1])
    blur = torch.randn(shape, generator=draw, dtype=torch.float64).to(vectors) * spread
    blurred = vectors.repeat(draws, 1, 1)
    blurred[:, list(subject)] += blur
    with torch.no_grad():
        with model.record(*known) as r:
            good = float(goal.of(logits_of(model, text_inputs)))
        batch = repeated(text_inputs, draws)
        with tower.reading(blurred):
            bad = float(goal.of(logits_of(model, batch)).mean())
        rows = []
        for i in range(len(known)):
            near = known[max(0, i - (window - 1) // 2) : i + window // 2 + 1]
            row = []
            for at in range(r[known[i]].shape[1]):
                with tower.reading(blurred), model.edit({a: Edit(r, positions=at) for a in near}):
                    row.append(goal.of(logits_of(model, batch)).mean())
            rows.append(torch.stack(row))
    return CausalTrace(known, torch.stack(rows), good, bad, goal)

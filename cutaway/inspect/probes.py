"""What can be read from a layer by a linear map, and how much of that is the map's own learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, tower_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class Probes(Result):
    """One linear probe per state: accuracy on the held-out tokens, [states] each.

    Attributes:
        places: the states. accuracy: on the task. control: on the control task, where each token has a random label.
        selectivity: accuracy - control; a probe that learns the control as well says nothing about the state.
        majority: the accuracy of the commonest label.
    """

    places: list[str]
    accuracy: Tensor
    control: Tensor
    selectivity: Tensor
    majority: float


@measure
def linear_probe(
    states: Tensor, labels: Tensor, classes: int, *, decay: float = 1e-3, steps: int = 50
) -> Callable[[Tensor], Tensor]:
    """Logistic regression on [n, H], by L-BFGS on mean cross-entropy + decay ||W||^2; states -> logits."""
    mean, spread = states.mean(0), states.std(0).clamp(min=1e-6)
    x = (states - mean) / spread
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        with torch.enable_grad():
            loss = F.cross_entropy(x @ weight.T + bias, labels) + decay * weight.pow(2).sum()
            loss.backward()
        return loss

    solver.step(closure)
    return lambda y: (y - mean) / spread @ weight.detach().T + bias.detach()


@measure
def probe_layers(
    model: LanguageModel,
    inputs: Inputs,
    labels: Tensor,
    *,
    tower: str | None = None,
    held_out: float = 0.3,
    seed: int = 0,
) -> Probes:
    """A probe on every state, beside its control (Hewitt and Liang, 2019, 1909.03368).

    The control task gives every token type one random label, drawn as the true labels are spread; a probe can only
    learn it by heart. Texts, not tokens, are held out.

    Args:
        inputs: a batch. labels: [B, L], -100 where there is none, or [B]: then each text's mean state is probed.
    """
    handle = tower_of(model, tower)
    ids, real = inputs[handle.ids], handle.real(inputs)
    texts = labels.dim() == 1
    if labels.shape != (ids.shape[:1] if texts else ids.shape):
        raise InputError(f"labels {list(labels.shape)} do not belong to inputs {list(ids.shape)}.")
    n = len(ids)
    n_held_out = max(1, round(held_out * n))
    if n_held_out >= n:
        raise InputError(f"{n} texts cannot be split: held_out={held_out} leaves none to learn from.")
    draw = torch.Generator().manual_seed(seed)
    test = torch.zeros(n, dtype=torch.bool)
    test[torch.randperm(n, generator=draw)[:n_held_out]] = True
    places = [handle.at("embed"), *handle.layers("resid")]
    with torch.no_grad(), model.record(*places) as r:
        model(**inputs)
    where = torch.ones(n, dtype=torch.bool) if texts else real.cpu() & (labels.cpu() != -100)
    wanted = labels.cpu()[where]
    classes = int(wanted.max()) + 1
    if texts:
        keys = torch.arange(n)
        split = test
    else:
        keys = ids.cpu()[where]
        split = test[:, None].expand_as(where)[where]
    random = _control(keys, wanted, draw)
    accuracy: list[Tensor] = []
    control: list[Tensor] = []
    for place in places:
        state = r[place].detach()
        if texts:
            share = real.to(state)[..., None]
            states = ((state * share).sum(1) / share.sum(1)).cpu()
        else:
            states = state.cpu()[where]
        for goal, into in ((wanted, accuracy), (random, control)):
            probe = linear_probe(states[~split], goal[~split], classes)
            into.append((probe(states[split]).argmax(-1) == goal[split]).double().mean())
    real_accuracy, control_accuracy = torch.stack(accuracy), torch.stack(control)
    commonest = int(wanted[~split].bincount().argmax())
    majority = float((wanted[split] == commonest).double().mean())
    return Probes(places, real_accuracy, control_accuracy, real_accuracy - control_accuracy, majority)


def _control(keys: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
    """One label per key, drawn from the labels: [n]."""
    types, own = keys.unique(return_inverse=True)
    picked = labels[torch.randint(len(labels), (len(types),), generator=draw)]
    return picked[own]

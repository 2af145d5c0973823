"""What the model would say if it stopped after a layer: logit lens and tuned lens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, StackHandle, tower_of
from cutaway.models.lm_heads import output_head
from cutaway.show.sheet import Part, Sheet

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel


@dataclass(frozen=True)
class Lens(Result):
    """What each state says.

    Attributes:
        places: the addresses of the states, before block 0 first. logits: [states, B, L, V].
        tokens, probability: [states, B, L, k], the likeliest tokens. kl: [states, B, L], in nats, from the model's own
            answer to the state's.
    """

    places: list[str]
    logits: Tensor
    tokens: Tensor
    probability: Tensor
    kl: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Without the logits, which are as many as the vocabulary at every place."""
        kept = Lens(self.places, self.logits[..., :0], self.tokens, self.probability, self.kl)
        return {name: value for name, value in Result.to_dict(kept).items() if name != "logits"}

    def sheet(self) -> Sheet:
        """The likeliest token of each state and place of the first text, coloured by its probability."""
        best = self.grid("the likeliest token after each state", self.probability[:, 0, :, 0], "share")
        said = [[self.label(id) for id in line] for line in self.tokens[:, 0, :, 0].tolist()]
        parts: list[Part] = [replace(best, texts=said, note="colour: its probability, if the model stopped there")]
        return Sheet("lens", parts=[*parts, self.grid("KL to the model's answer, nats", self.kl[:, 0])])


def _places(tower: StackHandle) -> list[str]:
    return [tower.at("embed"), *tower.layers("resid")]


def _tower(model: GenerativeModel) -> StackHandle:
    if output_head(model) is None:
        raise InputError(f"{type(model).__name__} has no output over a vocabulary; a lens needs a language model.")
    return tower_of(model)


def read_state(model: GenerativeModel, state: Tensor, tower: StackHandle) -> Tensor:
    """A state of the stream [..., H] as logits [..., V]: through the last norm where the family has one, then the head.

    `hidden_states[-1]` of such a family has had that norm; a state of the stream (`blocks.{i}.resid`) has not, so it is
    normed here, once.
    """
    normed = tower.stack.final_norm(state) if tower.spec.final_norm else state
    return model.logits(tower.stack.project_out(normed) if tower.spec.projects_out else normed)


def _lens(model: GenerativeModel, inputs: Inputs, translate: Callable[[int, Tensor], Tensor], top: int) -> Lens:
    tower = _tower(model)
    places = _places(tower)
    with model.record(*places, "logits") as r:
        model(**inputs)
    logits = torch.stack([read_state(model, translate(i, r[a]), tower) for i, a in enumerate(places)])
    shares = logits.log_softmax(-1)
    best = shares.topk(min(top, shares.shape[-1]), -1)
    final = r["logits"].log_softmax(-1)
    kl = (final.exp() * (final - shares)).sum(-1)
    return Lens(places, logits, best.indices, best.values.exp(), kl)


@torch.no_grad()
@measure
def logit_lens(model: GenerativeModel, inputs: Inputs, *, top: int = 5) -> Lens:
    """Each state of the stream through the model's own last norm and output matrix (nostalgebraist, 2020).

    The last state gives the model's logits. Early states were never trained to be read so; in models whose basis turns
    from layer to layer they say little (see `TunedLens`).
    """
    return _lens(model, inputs, lambda i, state: state, top)


class TunedLens(nn.Module):
    """A lens with one affine map per layer, trained to say what the model says (Belrose et al., 2023, 2303.08112).

    state -> state + W_l state + b_l, then as the logit lens; W = 0 and b = 0 at the start, so it begins as the logit
    lens. The last state is read as it is.
    """

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        tower = _tower(model)
        size, dtype, device = tower.spec.hidden_size, model.dtype, model.device
        n = tower.spec.n_layers
        self.turn = nn.Parameter(torch.zeros(n, size, size, dtype=dtype, device=device))
        self.shift = nn.Parameter(torch.zeros(n, size, dtype=dtype, device=device))

    def translate(self, number: int, state: Tensor) -> Tensor:
        """State `number` [..., H] in the basis of the last one."""
        if number == len(self.turn):
            return state
        return state + state @ self.turn[number].T + self.shift[number]

    @torch.no_grad()
    @measure
    def read(self, model: GenerativeModel, inputs: Inputs, *, top: int = 5) -> Lens:
        """As `logit_lens`."""
        return _lens(model, inputs, self.translate, top)

    @measure
    def fit(self, model: GenerativeModel, batches: Sequence[Inputs], *, steps: int = 100, rate: float = 1e-3) -> Tensor:
        """Train on the batches' real tokens; mean KL per layer on them, before and after: [2, layers].

        Each layer keeps the best map that it met, the one that it began with among them, so it never gets worse there.
        """
        tower = _tower(model)
        places = _places(tower)[:-1]
        states: list[list[Tensor]] = [[] for _ in places]
        wanted = []
        with torch.no_grad():
            for inputs in batches:
                real = tower.real(inputs)
                with model.record(*places, "logits") as r:
                    model(**inputs)
                wanted.append(r["logits"][real].log_softmax(-1))
                for kept, place in zip(states, places, strict=True):
                    kept.append(r[place][real])
            final = torch.cat(wanted)  # [tokens, V]
        seen = [torch.cat(kept) for kept in states]  # [tokens, H] each
        return torch.stack([self._fit(model, tower, i, x, final, steps, rate) for i, x in enumerate(seen)], 1)

    def _fit(
        self, model: GenerativeModel, tower: StackHandle, i: int, x: Tensor, final: Tensor, steps: int, rate: float
    ) -> Tensor:
        turn = self.turn[i].detach().clone().requires_grad_()
        shift = self.shift[i].detach().clone().requires_grad_()
        adam = torch.optim.Adam([turn, shift], lr=rate)
        first = best = float("inf")
        for step in range(steps + 1):
            with torch.enable_grad():
                said = read_state(model, x + x @ turn.T + shift, tower).log_softmax(-1)
                loss = F.kl_div(said, final, reduction="batchmean", log_target=True)
            first = float(loss.detach()) if step == 0 else first
            if float(loss.detach()) < best:
                best = float(loss.detach())
                with torch.no_grad():
                    self.turn[i].copy_(turn)
                    self.shift[i].copy_(shift)
            if step < steps:
                # of these two alone: the model's own weights are somebody else's, and may be training
                turn.grad, shift.grad = torch.autograd.grad(loss, (turn, shift))
                adam.step()
        return torch.tensor([first, best])

"""What one forward pass is asked to show, and how the answers are packaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cutaway.config.architecture import Stack as Spec
from cutaway.errors import InputError
from cutaway.nn.activations.taps import Taps
from cutaway.outputs import Layers

if TYPE_CHECKING:
    from torch import Tensor

LayerSelection = bool | Sequence[int] | None


def wanted_layers(wanted: LayerSelection, total: int, argument: str) -> list[int]:
    """Layer numbers from True, False or a list; negative numbers count from the end.

    Raises:
        InputError: a number that is not a layer of this model.
    """
    if wanted is None or wanted is False:
        return []
    if wanted is True:
        return list(range(total))
    if not isinstance(wanted, (int, Sequence)) or isinstance(wanted, (str, bytes)):
        raise InputError(f"{argument} is {wanted!r}; give True, False or a list of layers.")
    numbers = [wanted] if isinstance(wanted, int) else list(wanted)
    for n in numbers:
        if isinstance(n, bool) or not isinstance(n, int) or not -total <= n < total:
            raise InputError(f"{argument} asks for {n!r}; this model has 0..{total - 1}.")
    return sorted({n % total for n in numbers})


class OutputRequest:
    """The hidden states and attentions wanted of one stack."""

    def __init__(self, spec: Spec, prefix: str, hidden_states: LayerSelection, attentions: LayerSelection) -> None:
        self.all_hidden, self.all_attentions = hidden_states is True, attentions is True
        self.n_hidden, self.n_layers = spec.n_layers + 1, spec.n_layers
        hidden = wanted_layers(hidden_states, self.n_hidden, "output_hidden_states")
        attended = wanted_layers(attentions, self.n_layers, "output_attentions")
        if not hidden and not attended:
            self.hidden: dict[int, str] = {}
            self.attended: dict[int, str] = {}
            self.crossed: dict[int, str] = {}
            return
        last = f"{prefix}final_norm" if spec.final_norm else f"{prefix}blocks.{spec.n_layers - 1}.resid"
        last = f"{prefix}project_out" if spec.projects_out else last
        places = [f"{prefix}embed", *(f"{prefix}blocks.{i}.resid" for i in range(spec.n_layers - 1)), last]
        self.hidden = {i: places[i] for i in hidden}
        self.attended = {i: f"{prefix}blocks.{i}.attn.pattern" for i in attended}
        self.crossed = {i: f"{prefix}blocks.{i}.cross.pattern" for i in attended} if spec.cross else {}

    def addresses(self) -> list[str]:
        return [*self.hidden.values(), *self.attended.values(), *self.crossed.values()]

    def hidden_states(self, taps: Taps) -> tuple[Tensor, ...] | None:
        return self._package(taps, self.hidden, self.all_hidden, self.n_hidden, "hidden_states")

    def attentions(self, taps: Taps) -> tuple[Tensor, ...] | None:
        return self._package(taps, self.attended, self.all_attentions, self.n_layers, "attentions")

    def cross_attentions(self, taps: Taps) -> tuple[Tensor, ...] | None:
        return self._package(taps, self.crossed, self.all_attentions, self.n_layers, "cross_attentions")

    @staticmethod
    def _package(
        taps: Taps, places: dict[int, str], everything: bool, total: int, what: str
    ) -> tuple[Tensor, ...] | None:
        if not places:
            return None
        values = {i: taps.values[a] for i, a in places.items()}
        if everything:
            return tuple(values[i] for i in range(total))
        return Layers(values, total, what)  # type: ignore[return-value]  # see ModelOutput

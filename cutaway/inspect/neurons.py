"""Single neurons of the feed-forward layers: which fire, what they write, and what sets them off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, tower_of
from cutaway.models.lm_heads import output_head

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class TopNeurons(Result):
    """The neurons with the largest activation, layer by layer: `neurons`, `positions`, `values` are [layers, k]."""

    neurons: Tensor
    positions: Tensor
    values: Tensor


@dataclass(frozen=True)
class Promoted(Result):
    """The tokens whose logits a neuron raises most and lowers most: ids and the change per unit of activation, [k]."""

    IDS: ClassVar[tuple[str, ...]] = ("raised", "lowered")

    raised: Tensor
    raised_by: Tensor
    lowered: Tensor
    lowered_by: Tensor


@dataclass(frozen=True)
class Excited(Result):
    """Where a neuron fired most: `texts`, `positions` and `values`, [k], strongest first."""

    texts: Tensor
    positions: Tensor
    values: Tensor


@torch.no_grad()
@measure
def top_neurons(model: LanguageModel, inputs: Inputs, *, top: int = 10, tower: str | None = None) -> TopNeurons:
    """The neurons of each layer that are largest, in absolute value, anywhere in one text."""
    handle = tower_of(model, tower)
    places = handle.layers("mlp.act")
    with model.record(*places) as r:
        model(**inputs)
    per_layer = []
    for place in places:
        act = r[place][0] * handle.real(inputs)[0][:, None]  # [L, F]
        peak, at = act.abs().max(0)
        best = peak.topk(min(top, len(peak))).indices
        per_layer.append((best, at[best], act[at[best], best]))
    return TopNeurons(*(torch.stack(column) for column in zip(*per_layer, strict=True)))


@torch.no_grad()
@measure
def promoted_tokens(
    model: LanguageModel, layer: int, neuron: int, *, top: int = 10, tower: str | None = None
) -> Promoted:
    """The output matrix times the neuron's own column (Geva et al., 2022, 2203.14680, section 3), norm left out.

    What the neuron writes into the stream, read as if nothing came after it.
    """
    if output_head(model) is None:
        raise InputError(f"{type(model).__name__} has no output over a vocabulary, so a neuron promotes no tokens.")
    handle = tower_of(model, tower)
    column = handle.block(layer).mlp.down.weight
    if not 0 <= neuron < column.shape[1]:
        raise InputError(f"neuron={neuron} must lie in 0..{column.shape[1] - 1}.")
    out = cast(nn.Linear, model.get_output_embeddings())
    written = column[:, neuron]
    if handle.spec.projects_out:
        written = handle.stack.project_out(written)
    change = out.weight @ written * model.architecture.output_scale
    k = min(top, len(change))
    up, down = change.topk(k), change.topk(k, largest=False)
    return Promoted(up.indices, up.values, down.indices, down.values)


@torch.no_grad()
@measure
def exciting_texts(
    model: LanguageModel, batches: Sequence[Inputs], layer: int, neuron: int, *, top: int = 10, tower: str | None = None
) -> Excited:
    """The tokens at which a neuron is largest, over all texts; texts are numbered through the batches."""
    handle = tower_of(model, tower)
    place = handle.at(f"blocks.{layer}.mlp.act")
    values, texts, positions = [], [], []
    first = 0
    for inputs in batches:
        real = handle.real(inputs)
        with model.record(place) as r:
            model(**inputs)
        row, at = real.nonzero(as_tuple=True)
        values.append(r[place][row, at, neuron])
        texts.append(row + first)
        positions.append(at)
        first += len(real)
    every = torch.cat(values)
    best = every.topk(min(top, len(every)))
    return Excited(torch.cat(texts)[best.indices], torch.cat(positions)[best.indices], best.values)

"""Features of a sparse autoencoder (`model.attach_sae`): where each is strong, and what all of them leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import InputError
from cutaway.generate.search import reads_both_ways
from cutaway.inspect.measure import measure
from cutaway.inspect.neurons import Excited
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, StackHandle, tower_of
from cutaway.nn.activations.sparse_features import AttachedSae

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class StrongFeatures(Result):
    """The strongest features of each token of one text: `features` and `values` [L, k], 0 where fewer are on.

    `on` [L]: how many are on.
    """

    ROWS: ClassVar[str] = "on"

    features: Tensor
    values: Tensor
    on: Tensor


@dataclass(frozen=True)
class Reconstruction(Result):
    """How well features stand for the vectors that they are read from.

    Attributes:
        explained_variance: 1 - sum of squared errors / sum of squares about the mean, over all tokens but the first of
            each text, whose vector is far from all others in many models.
        features_on: how many features a token has, on average. dead: the share that is never on in these texts.
        loss: of the model, in nats a token. loss_reconstructed: with the reconstruction in place of the vectors.
            loss_zeroed: with zeros there. loss_recovered: (zeroed - reconstructed) / (zeroed - loss); None for a model
            that gives no next tokens.
        tokens: how many were measured.
    """

    explained_variance: float
    features_on: float
    dead: float
    tokens: int
    loss: float | None = None
    loss_reconstructed: float | None = None
    loss_zeroed: float | None = None
    loss_recovered: float | None = None


def _tower(model: LanguageModel, sae: AttachedSae) -> StackHandle:
    tower = sae.reads.partition(".")[0]
    return tower_of(model, tower if tower in ("encoder", "decoder") else None)


@torch.no_grad()
@measure
def strong_features(model: LanguageModel, sae: AttachedSae, inputs: Inputs, *, top: int = 5) -> StrongFeatures:
    """The strongest features at each token of one text."""
    with model.record(sae.features) as r:
        model(**inputs)
    values = r[sae.features][0]  # [L, n]
    best = values.topk(min(top, sae.n_features), dim=-1)
    return StrongFeatures(best.indices, best.values, (values > 0).sum(-1))


@torch.no_grad()
@measure
def top_texts(
    model: LanguageModel, sae: AttachedSae, feature: int, batches: Sequence[Inputs], *, top: int = 10
) -> Excited:
    """The tokens at which a feature is strongest, over all texts; texts are numbered through the batches.

    Raises:
        InputError: a number that is no feature; no texts.
    """
    sae.scaled(feature)  # checks the number
    handle = _tower(model, sae)
    values, texts, positions = [], [], []
    first = 0
    for inputs in batches:
        real = handle.real(inputs)
        with model.record(sae.features) as r:
            model(**inputs)
        row, at = real.nonzero(as_tuple=True)
        values.append(r[sae.features][row, at, feature])
        texts.append(row + first)
        positions.append(at)
        first += len(real)
    if not values:
        raise InputError("top_texts needs at least one batch of texts.")
    every = torch.cat(values)
    best = every.topk(min(top, len(every)))
    return Excited(torch.cat(texts)[best.indices], torch.cat(positions)[best.indices], best.values)


@torch.no_grad()
@measure
def reconstruction(model: LanguageModel, sae: AttachedSae, batches: Sequence[Inputs]) -> Reconstruction:
    """What is lost where the reconstruction stands in place of the vectors: variance, and loss of the next token.

    Args:
        batches: texts that the autoencoder was not trained on; without labels, the loss is of their own next tokens.

    Raises:
        InputError: no texts, or none of two tokens.
    """
    handle = _tower(model, sae)
    n, on = 0, 0.0
    missed = torch.zeros((), dtype=torch.float64)
    total, squares = torch.zeros(0), torch.zeros((), dtype=torch.float64)
    seen = torch.zeros(sae.n_features, dtype=torch.bool)
    for inputs in batches:
        with model.record(sae.features, sae.error, sae.writes) as r:
            model(**inputs)
        real = handle.real(inputs).cpu()
        real = real & (real.cumsum(1) > 1)  # [B, L] without first tokens
        x = sae.flat(r[sae.writes]).cpu()[real].double()  # [tokens, d]
        features = r[sae.features].cpu()[real]  # [tokens, n]
        total = x.sum(0) + (total if len(total) else 0)
        squares += x.square().sum()
        missed += r[sae.error].cpu()[real].double().square().sum()
        on += float((features > 0).sum())
        seen |= (features > 0).any(0)
        n += len(x)
    if not n:
        raise InputError("reconstruction needs texts of at least two tokens.")
    spread = squares - total.square().sum() / n
    measured = (float(1 - missed / spread), on / n, float((~seen).double().mean()), n)
    foresees = model.can_generate() and not reads_both_ways(model)
    if not foresees or model.base_model.architecture.decoder is not None:
        return Reconstruction(*measured)
    plain = _loss(model, batches)
    with model.edit({sae.error: 0.0}):
        with_features = _loss(model, batches)
    with model.edit({sae.writes: 0.0}):
        zeroed = _loss(model, batches)
    recovered = (zeroed - with_features) / (zeroed - plain)
    return Reconstruction(*measured, plain, with_features, zeroed, recovered)


def _loss(model: LanguageModel, batches: Sequence[Inputs]) -> float:
    """Nats a token, of the texts' own next tokens."""
    loss, n = 0.0, 0
    for inputs in batches:
        logits = model(**inputs).logits[:, :-1]  # [B, L - 1, V]
        ids, mask = inputs["input_ids"][:, 1:], inputs.get("attention_mask")
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask[:, 1:].bool()
        loss += float(F.cross_entropy(logits[real].float(), ids[real], reduction="sum"))
        n += int(real.sum())
    return loss / n

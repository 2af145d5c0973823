"""Attribution of a whole written text: for each token that the model wrote, what it was written for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.generate.search import reads_both_ways
from cutaway.inspect.attribution import Attribution
from cutaway.inspect.gradients import integrated_gradients
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs, one_text
from cutaway.show.sheet import Scale

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class WrittenAttribution(Result):
    """`scores` [written, L]: row t is the attribution of the t-th written token to the tokens before it; 0 after it.

    `written`: the ids. `residuals`: one per row, None for methods without a sum.
    """

    IDS: ClassVar[tuple[str, ...]] = ("written",)
    SCALES: ClassVar[dict[str, Scale]] = {"scores": "signed"}

    written: Tensor
    scores: Tensor
    residuals: list[float | None]


@measure
def written_attribution(
    model: LanguageModel,
    inputs: Inputs,
    ids: Tensor,
    *,
    row: int = 0,
    method: Callable[..., Attribution] = integrated_gradients,
    **options: object,
) -> WrittenAttribution:
    """One attribution per written token, of its logit where it was written (Sarti et al., 2023, Inseq, 2302.13942).

    Args:
        inputs: the prompt, as it was given to `generate`. ids: [B, length], what `generate` returned (with the prompt
            for a decoder; the decoder's text for an encoder-decoder, whose scores are over the encoder's tokens).
        method: `integrated_gradients`, `input_x_gradient`, `occlude` or `shapley_values`; options are passed on.

    Raises:
        InputError: nothing was written; a model that reads both ways, whose pass over it shows each token to itself.
    """
    if reads_both_ways(model):
        raise InputError(
            f"a written token's attribution is of the pass that foresaw it, and {type(model).__name__} reads a text "
            "both ways: each token sees itself. Attribute a logit at a place: method(model, inputs, Target)."
        )
    prompt = one_text(inputs, row)
    if model.base_model.architecture.decoder is not None:
        first, base = 1, {**prompt, "decoder_input_ids": ids[row : row + 1, :-1]}
        written = ids[row, 1:]
    else:
        padded = inputs["input_ids"].shape[1]
        first = prompt["input_ids"].shape[1]
        written = ids[row, padded:]
        base = {"input_ids": torch.cat((prompt["input_ids"], written[None, :-1]), 1)}
        if "attention_mask" in prompt:
            hidden = prompt["attention_mask"]
            base["attention_mask"] = torch.cat((hidden, hidden.new_ones(1, len(written) - 1)), 1)
    if not len(written):
        raise InputError("nothing was written: ids holds no token beyond the prompt.")
    per_token = [
        method(model, base, Target(index=int(token), position=first - 1 + t), **options)
        for t, token in enumerate(written.tolist())
    ]
    return WrittenAttribution(written, torch.stack([f.scores for f in per_token]), [f.residual for f in per_token])

"""Two runs side by side: two texts in one model, or one text in two models (before and after fine-tuning)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, one_text

Spans = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Comparison(Result):
    """How two runs differ, over the tokens that are aligned.

    Attributes:
        pairs: (position in the first, position in the second), aligned.
        places: the addresses that both models have and that hold one vector per token.
        distance: [places, pairs], Euclidean distance as a share of the first's length. cosine: [places, pairs].
        first: (address, pair's number) where the distance first exceeds the tolerance, in order of computation; None
            where it never does.
    """

    pairs: list[tuple[int, int]]
    places: list[str]
    distance: Tensor
    cosine: Tensor
    first: tuple[str, int] | None


def align_tokens(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    """Pairs of positions whose tokens match, in order (the longest common blocks; Ratcliff and Obershelp, 1988)."""
    blocks = SequenceMatcher(None, first.tolist(), second.tolist(), autojunk=False).get_matching_blocks()
    return [(b.a + i, b.b + i) for b in blocks for i in range(b.size)]


def align_characters(first: Spans, second: Spans) -> list[tuple[int, int]]:
    """Pairs of tokens that end at the same character of one text, in two tokenizers; spans [L, 2], (0, 0): no text."""
    ends = {int(end): j for j, (start, end) in enumerate(second) if end > start}
    return [(i, ends[int(end)]) for i, (start, end) in enumerate(first) if end > start and int(end) in ends]


@torch.no_grad()
def compare(
    model: Any,
    inputs: Inputs,
    other_inputs: Inputs | None = None,
    *,
    other_model: Any = None,
    spans: tuple[Spans, Spans] | None = None,
    places: Sequence[str] = ("*embed", "*.attn.out", "*.mlp.out", "*.resid"),
    tolerance: float = 1e-4,
) -> Comparison:
    """Run both, align their tokens, and measure how far their states are apart.

    Args:
        inputs, other_inputs: one text each; without the second, the same text. other_model: without it, the same model.
        spans: both texts' offset mappings, [L, 2] each, to align by characters (two tokenizers, one text). Otherwise
            equal tokens are aligned; two models with different vocabularies need spans.
        places: addresses of one vector per token; those that only one model has are left out.
        tolerance: the relative distance from which two states count as different.
    """
    if other_inputs is None and other_model is None:
        raise InputError("compare needs a second text (other_inputs=) or a second model (other_model=).")
    from fnmatch import fnmatch

    second = model if other_model is None else other_model
    a, b = one_text(inputs, 0), one_text(inputs if other_inputs is None else other_inputs, 0)
    common = set(second.addresses())
    known = [p for p in model.addresses() if p in common and any(fnmatch(p, pattern) for pattern in places)]
    towers = {"decoder."} if model.base_model.architecture.decoder is not None else set()
    known = [p for p in known if not towers or p.startswith(("encoder.", "decoder."))]
    if not known:
        raise InputError(f"the two models have none of {list(places)} in common.")
    runs = []
    for own, text in ((model, a), (second, b)):
        with own.record(*known) as r:
            own(**text)
        runs.append({p: r[p][0] for p in known})
    pairs = align_tokens(a["input_ids"][0], b["input_ids"][0]) if spans is None else align_characters(*spans)
    if not pairs:
        raise InputError("the texts have no token in common; pass spans= to align them by characters.")
    target = pairs
    if towers:
        same = "decoder_input_ids"
        target = align_tokens(a[same][0], b[same][0])
    gaps, cosines = [], []
    for place in known:
        own_pairs = target if place.startswith("decoder.") else pairs
        left, right = (torch.tensor([p[side] for p in own_pairs]) for side in (0, 1))
        x, y = runs[0][place][left].double(), runs[1][place][right].double()
        if x.shape != y.shape:
            raise InputError(f"{place} is {list(x.shape)} in one model and {list(y.shape)} in the other.")
        gaps.append((x - y).norm(dim=-1) / x.norm(dim=-1).clamp(min=1e-12))
        cosines.append(torch.cosine_similarity(x, y, dim=-1))
    distance = torch.nn.utils.rnn.pad_sequence(gaps, batch_first=True, padding_value=float("nan"))
    cosine = torch.nn.utils.rnn.pad_sequence(cosines, batch_first=True, padding_value=float("nan"))
    differs = (distance > tolerance).nonzero()
    first = None if not len(differs) else (known[int(differs[0, 0])], int(differs[0, 1]))
    return Comparison(pairs, known, distance, cosine, first)

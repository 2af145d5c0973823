"""Two texts, or two models, side by side: aligned tokens, how far their states are apart, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from cutaway.inspect.asked import kind_of
from cutaway.inspect.comparison import compare
from cutaway.serve.body import Body
from cutaway.studio.changes import batch_of
from cutaway.studio.writing import label_of

if TYPE_CHECKING:
    from cutaway.serve.served_model import ServedModel

Text = Annotated[str, Field(min_length=1, max_length=100_000)]


class CompareBody(Body):
    """A text and a model; another text, another model, or both."""

    model: str
    text: Text
    other_model: str | None = None
    other_text: Text | None = None


def side_by_side(first: ServedModel, second: ServedModel, text: str, other: str) -> dict[str, object]:
    """The comparison of the two runs; called by the engine. Two models are aligned by the characters of one text."""
    import torch

    a, b = batch_of(first, [text]), batch_of(second, [other])
    spans = None
    same_vocabulary = first is second or first.explainer.get_vocab() == second.explainer.get_vocab()
    if not same_vocabulary and text == other:
        spans = (_spans(first, text), _spans(second, text))
    with torch.no_grad():
        found = compare(first.model, a, b, other_model=None if first is second else second.model, spans=spans)
    kept = [i for i, p in enumerate(found.places) if p.endswith(("embed", ".resid")) and not p.startswith("decoder.")]
    sides = ((first, a), (second, b))
    tokens = [[label_of(served, int(id)) for id in inputs["input_ids"][0]] for served, inputs in sides]
    answers = []
    if found.said is not None and found.share is not None:
        for at in range(found.said.shape[1]):
            entry: dict[str, object] = {"kl": None if found.kl is None else float(found.kl[at])}
            for side, (served, _) in enumerate(sides):
                shares = found.share[side, at].tolist()
                said = [_answer(served, int(id)) for id in found.said[side, at]]
                entry["first" if side == 0 else "second"] = [list(pair) for pair in zip(said, shares, strict=True)]
            answers.append(entry)
    return {
        "tokens": tokens,
        "pairs": found.pairs,
        "places": [found.places[i] for i in kept],
        "distance": np.asarray(found.distance[kept].float().cpu().numpy()).tolist(),
        "first": None if found.first is None else {"place": found.first[0], "pair": found.first[1]},
        "answers": answers,
        "turn": found.turn,
    }


def _spans(served: ServedModel, text: str) -> Sequence[Sequence[int]]:
    found: Sequence[Sequence[int]] = served.explainer(text, return_offsets_mapping=True)["offset_mapping"]
    return found


def _answer(served: ServedModel, id: int) -> str:
    if kind_of(served.model) == "labels":
        return str(served.model.config.id2label[id])
    return label_of(served, id)

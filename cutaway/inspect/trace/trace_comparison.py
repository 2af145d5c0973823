"""Two saved runs side by side, without their models."""

from __future__ import annotations

import math
from typing import Any

import torch

from cutaway.errors import InputError
from cutaway.inspect.comparison import TOP, Comparison, Pairs, align_tokens, distances, kept_answers
from cutaway.inspect.measure import measure
from cutaway.inspect.trace.trace import Trace


@measure
def compare_traces(first: Trace, second: Trace, *, tolerance: float = 1e-4) -> Comparison:
    """As `compare`, from what two traces hold: the states of all blocks, and the likeliest answers.

    Equal tokens are aligned. States are stored in steps, so `Comparison.first` is the first place at which two of them
    are further apart than the tolerance and the stated errors together could make them. `kl` is known for classifiers
    only, whose classes are all kept.

    Raises:
        InputError: the runs have no state or no token in common.
    """
    a, b = first.explanation, second.explanation
    stacks = [name for name in a.states if name in b.states]
    places = [p for name in stacks for p in a.states[name].places if p in b.states[name].places]
    if not places:
        raise InputError("the two traces have no state in common: one is of an encoder-decoder, the other is not.")
    pairs = align_tokens(*(torch.tensor([token.id for token in it.tokens]) for it in (a, b)))
    if not pairs:
        raise InputError("the two traces' texts have no token in common.")
    if any(a.tokens[i].token != b.tokens[j].token for i, j in pairs):
        raise InputError("the two traces have different vocabularies; compare the models on the text.")
    written = align_tokens(*(torch.tensor([token.id for token in it.target]) for it in (a, b))) if a.target else pairs
    runs, unsure = [], []
    for trace in (first, second):
        states = trace.explanation.states
        runs.append(
            {
                p: torch.from_numpy(trace.hidden[name][i]).double()
                for name in stacks
                for i, p in enumerate(states[name].places)
                if p in places
            }
        )
        unsure.append(max((trace.errors.get(f"trace.hidden.{name}", 0.0) for name in stacks), default=0.0))
    distance, cosine = distances(places, runs, pairs, written)
    bounds = []
    for p in places:
        x = runs[0][p][[i for i, _ in (written if p.startswith("decoder.") else pairs)]]
        bounds.append(tolerance + math.sqrt(x.shape[-1]) * sum(unsure) / x.norm(dim=-1).clamp(min=1e-12))
    bound = torch.nn.utils.rnn.pad_sequence(bounds, batch_first=True, padding_value=float("inf"))
    differs = (distance > bound).nonzero()
    at = None if not len(differs) else (places[int(differs[0, 0])], int(differs[0, 1]))
    return Comparison(pairs, places, distance, cosine, at, *_answers(first, second, written))


def _answers(first: Trace, second: Trace, pairs: Pairs) -> tuple[Any, Any, Any, Any]:
    """(said, share, kl, turn), as in `compare`."""
    one, other = first.logits, second.logits
    kinds = first.explanation.kind, second.explanation.kind
    if one is None or other is None or kinds[0] != kinds[1]:
        return None, None, None, None
    said, share = [], []
    for side, logits in enumerate((one, other)):
        rows = [0] if kinds[0] == "labels" else [pair[side] for pair in pairs]
        said.append(torch.tensor([logits.ids[i] for i in rows]))  # [answers, k]
        share.append(torch.from_numpy(logits.values[rows] - logits.total[rows][:, None]).double())
    by_class = None
    if kinds[0] == "labels" and said[0].shape == said[1].shape:
        by_class = [logs.gather(1, ids.argsort(1)) for ids, logs in zip(said, share, strict=True)]
    k = min(TOP, *(ids.shape[1] for ids in said))
    return kept_answers([ids[:, :k] for ids in said], [logs[:, :k] for logs in share], by_class)

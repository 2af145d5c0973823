"""What an answer loses without each head: a pass for each layer, in which every row of the batch lacks another head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from cutaway.errors import InputError
from cutaway.nn.call_context import Evaluation
from cutaway.serve.body import Body

if TYPE_CHECKING:
    from cutaway.serve.served_model import ServedModel
    from cutaway.studio.feed import Feed


class SweepBody(Body):
    """A text whose answer is asked for again and again, each time with one head multiplied by `scale`."""

    model: str
    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    scale: float = 0.0
    tower: Literal["", "encoder", "decoder"] = ""
    cross: bool = False


def sweep(served: ServedModel, body: SweepBody, feed: Feed) -> Iterator[None]:
    """The logit of the likeliest answer, less what it is as the model stands: a row of heads for each layer."""
    import torch

    from cutaway.inspect.target import Target
    from cutaway.inspect.tower import logits_of, repeated, tower_of
    from cutaway.nn.activations.edits import Edit
    from cutaway.studio.asked import asked_of

    model = served.model
    with Evaluation(model)(), torch.no_grad():
        inputs, position, label = asked_of(served, body.text)
        goal = Target(position=position).fixed(model, inputs)
        value = float(goal.of(logits_of(model, inputs)))
    handle = tower_of(model, body.tower or None)
    kind = "cross" if body.cross else "attn"
    heads = int(model.config.num_attention_heads)
    places = set(model.addresses())
    if handle.at(f"blocks.0.{kind}.head.0.out") not in places:
        raise InputError(f"{served.name} has no {handle.at(f'blocks.0.{kind}.head.0.out')}.")
    start = {"layers": handle.spec.n_layers, "heads": heads, "value": value, "answer": label(int(goal.index or 0))}
    feed.offer("start", start)
    for layer in range(handle.spec.n_layers):
        with Evaluation(model)(), torch.no_grad():
            edits = {
                handle.at(f"blocks.{layer}.{kind}.head.{head}.out"): Edit(lambda x: body.scale * x, rows=head)
                for head in range(heads)
            }
            with model.edit(edits):
                effect = goal.of(logits_of(model, repeated(inputs, heads))) - value  # [heads]
        row = np.asarray(effect.float().cpu().numpy()).tolist()
        feed.offer("row", {"layer": layer, "effect": row})
        yield

"""Which inputs a forward takes, and which may be left out where it does not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache

from cutaway.errors import ArgumentError, nearest

# inputs that say nothing which the model does not know, where its forward does not take them
NEEDLESS = frozenset({"cache_position", "num_items_in_batch", "use_cache"})


@cache
def accepted(forward: Callable[..., object], *, innermost: bool = False) -> frozenset[str] | None:
    """The names that a forward takes; None for one that takes any. `innermost`: the function that decorators wrap."""
    parameters = inspect.signature(forward, follow_wrapped=innermost).parameters
    return None if any(one.kind is one.VAR_KEYWORD for one in parameters.values()) else frozenset(parameters)


# what is done here in the place of an argument of upstream's
INSTEAD = {
    "head_mask": "Heads are switched off with model.edit({'blocks.0.attn.head.3.out': 0.0}) (docs/addresses.md).",
    "past_key_values": "It reads its whole text at once, and keeps no keys and values: leave it out.",
    "decoder_input_ids": "It has no decoder: leave it out.",
}


def check_accepted(model: object, forward: Callable[..., object], given: Iterable[str]) -> None:
    """ArgumentError where an argument of a model's call is none of those that its forward takes."""
    known = accepted(forward)
    unknown = [] if known is None else [name for name in given if name not in known]
    if known is None or not unknown:
        return
    names = sorted(known - {"self"})
    way = INSTEAD.get(unknown[0]) or nearest(unknown[0], names).strip() or f"It takes {', '.join(names)}."
    raise ArgumentError(f"{type(model).__name__} takes no argument {unknown[0]}. {way}")

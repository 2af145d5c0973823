"""Which inputs a forward takes, and which may be left out where it does not."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

# inputs that say nothing which the model does not know, where its forward does not take them
NEEDLESS = frozenset({"cache_position", "num_items_in_batch", "use_cache"})


@cache
def taken(kind: type[Any]) -> frozenset[str]:
    """The names that a class's forward takes."""
    return frozenset(inspect.signature(kind.forward).parameters)


@cache
def reads(kind: type[Any], name: str) -> bool:
    """Whether a class's forward takes an input of this name, for itself or among others of any name."""
    parameters = inspect.signature(kind.forward).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())

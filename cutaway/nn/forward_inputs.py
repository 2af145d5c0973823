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

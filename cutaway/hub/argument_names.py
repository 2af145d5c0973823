"""An argument under its published name too: `from_pretrained(pretrained_model_name_or_path=...)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def also_called(**published: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that takes `published` names for arguments of its own: `{published name: name here}`.

    A call that gives both is a TypeError, as for any argument that is given twice.
    """

    def around(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for theirs in published.keys() & kwargs.keys():
                ours = published[theirs]
                if ours in kwargs:
                    raise TypeError(f"{function.__qualname__}() has {theirs} and {ours}, which are one argument.")
                kwargs[ours] = kwargs.pop(theirs)
            return function(*args, **kwargs)

        return call

    return around

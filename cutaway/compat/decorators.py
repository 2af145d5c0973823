"""Decorators that models and processors of other people's are written with."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def can_return_tuple(func: F) -> F:
    """A `forward` that also takes `return_dict`: False gives a tuple, None what `self.config.return_dict` says.

    A model without a config gives its output as it is.
    """

    @functools.wraps(func)
    def forward(self: object, *args: object, **kwargs: object) -> object:
        asked = kwargs.pop("return_dict", None)
        if asked is None:
            asked = getattr(getattr(self, "config", None), "return_dict", True)
        output = func(self, *args, **kwargs)
        return output if asked or isinstance(output, tuple) else output.to_tuple()

    return forward  # type: ignore[return-value]


def filter_out_non_signature_kwargs(extra: Iterable[str] | None = None) -> Callable[[F], F]:
    """A decorator that keeps named arguments from a function that does not name them; a UserWarning says which.

    Args:
        extra: names that are handed on all the same.
    """

    def decorate(func: F) -> F:
        known = {*inspect.signature(func).parameters, *(extra or ())}

        @functools.wraps(func)
        def call(*args: object, **kwargs: object) -> object:
            left_out = [name for name in kwargs if name not in known]
            if left_out:
                warnings.warn(f"{func.__qualname__} takes no {', '.join(left_out)}: left out.", UserWarning, 2)
            return func(*args, **{name: value for name, value in kwargs.items() if name in known})

        return call  # type: ignore[return-value]

    return decorate

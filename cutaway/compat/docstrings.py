"""What upstream's own modules are written with, and some scripts import: docstrings put together, and types."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, TypeVar

from cutaway.errors import MissingExtraError

F = TypeVar("F", bound=Callable[..., Any])
DataCollator = Callable[[list[Any]], dict[str, Any]]


def add_start_docstrings(*docstr: str) -> Callable[[F], F]:
    """A decorator that puts texts before a docstring."""

    def decorate(function: F) -> F:
        function.__doc__ = "".join(docstr) + (function.__doc__ or "")
        return function

    return decorate


def add_end_docstrings(*docstr: str) -> Callable[[F], F]:
    """A decorator that puts texts behind a docstring."""

    def decorate(function: F) -> F:
        function.__doc__ = (function.__doc__ or "") + "".join(docstr)
        return function

    return decorate


add_start_docstrings_to_model_forward = add_start_docstrings


def replace_return_docstrings(*args: object, **kwargs: object) -> Callable[[F], F]:
    """A decorator that leaves the docstring as it is: ours say what they return."""
    return lambda function: function


add_code_sample_docstrings = replace_return_docstrings


def copy_func(f: FunctionType) -> FunctionType:
    """A function of its own that does the same, so that a docstring put on it is not put on `f`."""
    copied = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    copied.__kwdefaults__ = f.__kwdefaults__
    functools.update_wrapper(copied, f)
    return copied


def requires_backends(obj: object, backends: str | Iterable[str]) -> None:
    """MissingExtraError for the first of these packages that is not installed; `obj` is what needs it."""
    from cutaway.compat import availability

    who = getattr(obj, "__name__", type(obj).__name__)
    for name in [backends] if isinstance(backends, str) else backends:
        question = f"is_{name}_available"
        if not (availability.known(question) and getattr(availability, question)()):
            raise MissingExtraError(f"{who} needs {name}, which is not installed: pip install {name}.")

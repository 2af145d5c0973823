"""What every measure asks of its arguments before it runs: a model, what a tokenizer returns, numbers."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import ParamSpec, TypeVar

from torch import Tensor

from cutaway.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

_IDS = ("input_ids", "decoder_input_ids", "inputs_embeds", "decoder_inputs_embeds")
_COUNTS = {"classes", "draws", "groups", "samples", "steps", "texts", "top", "tried", "width", "window"}
_WAY = 'pass what the tokenizer returns: tokenizer(text, return_tensors="pt").'


def measure(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises InputError for an argument that is not what its annotation says.

    Looked at are models, inputs, tensors, numbers, targets, recordings and attached autoencoders.
    """
    signature = inspect.signature(function)
    checks = {
        name: _CHECKS[kind]
        for name, parameter in signature.parameters.items()
        if (kind := str(parameter.annotation).removesuffix(" | None")) in _CHECKS
    }

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in checks and value is not signature.parameters[name].default:
                checks[name](name, value)
        return function(*args, **kwargs)

    return checked


def _model(name: str, value: object) -> None:
    if not hasattr(getattr(value, "base_model", None), "architecture"):
        raise InputError(f"{name} is a {type(value).__name__}: pass a model that cutaway loaded (AutoModel, ...).")


def _inputs(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {_said(value)}: {_WAY}")
    ids = next((value[key] for key in _IDS if value.get(key) is not None), None)
    if not isinstance(ids, Tensor):
        what = f"holds {', '.join(map(repr, value)) or 'nothing'}" if ids is None else f"holds {_said(ids)} as ids"
        raise InputError(f"{name} {what}, and no tensor of ids: {_WAY}")


def _several(name: str, value: object) -> None:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise InputError(
            f"{name} is {_said(value)}: pass a list, and in it for each batch {_WAY.removeprefix('pass ')}"
        )
    for place, inputs in enumerate(value if isinstance(value, Sequence) else ()):  # a data loader says it when it runs
        _inputs(f"{name}[{place}]", inputs)


def _whole(name: str, value: object) -> None:
    number = None
    if not isinstance(value, bool):
        with suppress(TypeError, ValueError):
            number = operator.index(value)  # type: ignore[arg-type]
    if number is None:
        raise InputError(f"{name} is {_said(value)}: pass a whole number.")
    if name in _COUNTS and number < 1:
        raise InputError(f"{name}={number}: pass a whole number from 1 up.")


def _real(name: str, value: object) -> None:
    real = isinstance(value, numbers.Real) or (isinstance(value, Tensor) and value.numel() == 1)
    if isinstance(value, bool) or not real or not math.isfinite(value):  # type: ignore[arg-type]
        raise InputError(f"{name} is {_said(value)}: pass a number.")


def _tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"{name} is {_said(value)}: pass a tensor.")


def _callable(name: str, value: object) -> None:
    if not callable(value):
        raise InputError(f"{name} is {_said(value)}: pass a function.")


def _having(attribute: str, way: str) -> Callable[[str, object], None]:
    def check(name: str, value: object) -> None:
        if not hasattr(value, attribute):
            raise InputError(f"{name} is {_said(value)}: {way}")

    return check


def _said(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__} ({value!r:.40})"


_CHECKS: dict[str, Callable[[str, object], None]] = {
    "LanguageModel": _model,
    "GenerativeModel": _model,
    "Inputs": _inputs,
    "Sequence[Inputs]": _several,
    "Target": _having("fixed", "pass a Target, such as Target(index=1), or None for the answer that the model gives."),
    "Tensor": _tensor,
    "int": _whole,
    "float": _real,
    "Callable[[Any], Tensor]": _callable,
    "Trace": _having("explanation", "pass a trace, which Trace.open reads."),
    "Recorder": _having("named", "pass a recording, which model.record gives."),
    "AttachedSae": _having("features", "pass what model.attach_sae gives."),
}

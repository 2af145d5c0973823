"""Every name of torch that is not public, asked for here and nowhere else, each with a way out.

The package asks for no newest version of torch, and such a name may go with any. Each is looked up by `getattr`; where
one is missing, public operators compute the same, slower: up to rounding where oneDNN would have multiplied, else to
the last bit. `tests/nn/cpu/test_torch_private.py` runs models without each of them in turn.

What a module holds under its own `_parameters`, `_buffers`, `_modules` and `_forward_hooks` is not meant: torch saves
whole modules with these names in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.modules import module as modules


class OneDNN(NamedTuple):
    """oneDNN's products with a weight that is laid out for them."""

    linear: Any  # (x, weight, bias, activation, scalars, variant) -> activation(x weight^T + bias)
    linear_add: Any  # (x, residual, weight, bias, "add") -> x weight^T + bias + residual
    reorder: Any  # (weight, rows or None) -> the weight laid out
    bf16: bool  # whether the chip multiplies bfloat16 itself


def _find_onednn() -> OneDNN | None:
    """oneDNN's operators, or None where this build of torch has not all of them."""
    operators = torch.ops.mkldnn
    pointwise = getattr(operators, "_linear_pointwise", None)
    linear, linear_add = getattr(pointwise, "default", None), getattr(pointwise, "binary", None)
    reorder = getattr(operators, "_reorder_linear_weight", None)
    if not torch.backends.mkldnn.is_available() or None in (linear, linear_add, reorder):
        return None
    return OneDNN(linear, linear_add, reorder, _chip_has(operators, "_is_mkldnn_bf16_supported"))


def _chip_has(owner: object, question: str) -> bool:
    """The answer to a question about the processor; no, where it cannot be asked."""
    ask = getattr(owner, question, None)
    return ask is not None and bool(ask())


ONEDNN = _find_onednn()
# whether the chip has tiles for matrices; taken for missing, our own kernels multiply bfloat16
AMX = _chip_has(torch.cpu, "_is_amx_tile_supported")


def _find_int_product() -> Callable[[Tensor, Tensor], Tensor] | None:
    """torch's product of int8 matrices, where it is exact: without VNNI, sums of 16 bits may overflow inside."""
    found = getattr(torch, "_int_mm", None)
    return found if _chip_has(torch.cpu, "_is_vnni_supported") else None


INT_PRODUCT = _find_int_product()


def _dispatch_mode() -> Any:
    """The class whose instances see every operator that torch computes, or None."""
    base: Any = getattr(getattr(torch.utils, "_python_dispatch", None), "TorchDispatchMode", None)
    if base is None:
        return None

    class Mode(base):  # type: ignore[misc]
        """Without torch's compiler, which the first operator would import for nothing: a second, and 70 MB."""

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False

    return Mode


DISPATCH_MODE = _dispatch_mode()


def _always_another(tensor: Tensor) -> object:
    """Equal to nothing that was ever there: what is made of the tensor is made anew at each use."""
    return object()


# how often torch has changed a tensor in place
version: Callable[[Tensor], object] = (
    _always_another if getattr(Tensor, "_version", None) is None else attrgetter("_version")
)


def state_version(module: modules.Module) -> int:
    """The version of the module's state, which torch writes beside its tensors."""
    number: int = getattr(module, "_version", 1)
    return number


def _as_subclass(kind: type[Tensor], x: Tensor) -> Tensor:
    return x.as_subclass(kind)


# `x`, which shares its memory, as an object of another class of tensors
MAKE_SUBCLASS: Callable[[Any, Tensor], Any] = getattr(Tensor, "_make_subclass", _as_subclass)


# a tensor of another class that has a shape and a dtype, and no memory; None: such weights are read as plain numbers
_without: Any = getattr(getattr(torch, "_C", None), "DisableTorchFunctionSubclass", None)
MAKE_WRAPPER: Any = None if _without is None else getattr(Tensor, "_make_wrapper_subclass", None)


def without_torch_function() -> Any:
    """A context in which torch's functions take tensors of other classes as they are."""
    return nullcontext() if _without is None else _without()


def calls_are_watched() -> bool:
    """Whether somebody has hooks on the calls of all modules; yes, where that cannot be seen."""
    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    hooks = [getattr(modules, name, None) for name in names]
    return any(found is None or bool(found) for found in hooks)


def lerp_each(to: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """to += weight * (end - to) for each pair, in place."""
    at_once = getattr(torch, "_foreach_lerp_", None)
    if at_once is not None:
        at_once(list(to), list(ends), weight)
        return
    for one, end in zip(to, ends, strict=True):
        one.lerp_(end, weight)


_peek = getattr(getattr(getattr(torch, "_C", None), "_functorch", None), "peek_interpreter_stack", None)
_has_level = getattr(forward_ad, "_current_level", None) is not None
_one = torch.zeros(())


class SavingContext(Protocol):
    """What autograd functions use of their context, which torch declares without its attributes."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    has_bias: bool

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Untransformable(torch.autograd.Function):
    """Refused by torch under its function transforms, since it has no `setup_context`."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def _in_a_transform() -> bool:
    if _peek is not None:
        return _peek() is not None
    try:
        _Untransformable.apply(_one)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return True
    return False


def _in_a_dual_level() -> bool:
    if _has_level:
        return bool(getattr(forward_ad, "_current_level", 0) >= 0)
    try:
        forward_ad.make_dual(_one, _one)  # refused outside
    except RuntimeError:
        return False
    return True


def _transforming() -> bool:
    return torch.compiler.is_compiling() or _peek() is not None or getattr(forward_ad, "_current_level", 0) >= 0  # type: ignore[misc]


def _transforming_by_trial() -> bool:
    return torch.compiler.is_compiling() or _in_a_transform() or _in_a_dual_level()


# whether torch compiles, or runs inside vmap, grad, jvp and the like: a tensor may then be more than its numbers
transforming: Callable[[], bool] = _transforming if _peek is not None and _has_level else _transforming_by_trial


# what tells torch that a class holds tensors; without it, outputs are leaves to DDP's static graphs and to export
REGISTER_PYTREE: Callable[..., None] | None = getattr(
    getattr(torch.utils, "_pytree", None), "register_pytree_node", None
)

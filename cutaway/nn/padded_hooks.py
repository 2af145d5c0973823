"""Hooks that see what they would see of a padded batch, on modules that compute packed rows.

The engine takes padding out of a batch before the first block, so its layers read [rows, hidden]. A hook on a published
module is shown [batch, length, hidden], with zeros where there is padding, and what it gives in place of a value is
packed again. It sees the tensors that go in and come out, none of the engine's other arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import BackwardHook, RemovableHandle

from cutaway.nn.call_context import rows_of_call
from cutaway.nn.packed_batch import PackedBatch

Hook = Callable[..., Any]


class PaddedHooks(nn.Module):
    """A module whose hooks are shown padded tensors. `nn.Module.register_forward_hook(module, hook)` shows the rows."""

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """As torch's; the hook is shown the padded input."""
        shown = hook if _is_torchs(hook) else _before(hook, with_kwargs)
        return super().register_forward_pre_hook(shown, prepend=prepend, with_kwargs=with_kwargs)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """As torch's; the hook is shown the padded input and output."""
        shown = hook if _is_torchs(hook) else _after(hook, with_kwargs)
        return super().register_forward_hook(shown, prepend=prepend, with_kwargs=with_kwargs, always_call=always_call)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """As torch's; the hook is shown the padded gradients of what went in and came out."""
        if _is_torchs(hook):
            return super().register_full_backward_hook(hook, prepend)
        return _PaddedGradients(hook, after=True).attach(self)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """As torch's; the hook is shown the padded gradient of what came out."""
        if _is_torchs(hook):
            return super().register_full_backward_pre_hook(hook, prepend)
        return _PaddedGradients(hook, after=False).attach(self)


class _Both:
    """What takes two hooks off."""

    def __init__(self, *handles: RemovableHandle) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> _Both:
        return self

    def __exit__(self, *args: object) -> None:
        self.remove()


class _PaddedGradients:
    """A hook on gradients, which each call of the module gets with the rows that it had: gradients come later.

    Args:
        after: whether the hook runs after the module's own gradients, and is shown those of its inputs too.
    """

    def __init__(self, hook: Hook, *, after: bool) -> None:
        self.hook, self.after = hook, after
        self.calls = threading.local()

    def attach(self, module: nn.Module) -> RemovableHandle:
        """Hook the calls of a module; what is given back takes the hook off."""
        begins = nn.Module.register_forward_pre_hook(module, self._begins)
        ends = nn.Module.register_forward_hook(module, self._ends, prepend=True)
        return cast("RemovableHandle", _Both(begins, ends))

    def _begins(self, module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
        rows = rows_of_call()

        def shown(module: nn.Module, *gradients: tuple[object, ...]) -> object:
            answer = self.hook(module, *(tuple(_shown(g, rows) for g in side) for side in gradients))
            if answer is None:
                return None
            replaced = answer if isinstance(answer, tuple) else (answer,)
            return tuple(_taken(new, old, rows) for new, old in zip(replaced, gradients[0], strict=True))

        call = BackwardHook(module, *(([shown], []) if self.after else ([], [shown])))
        self.calls.current = call
        changed: tuple[object, ...] = call.setup_input_hook(args)
        return changed

    def _ends(self, module: nn.Module, args: tuple[object, ...], out: object) -> object:
        call, self.calls.current = self.calls.current, None
        return call.setup_output_hook(out)


def _is_torchs(hook: Hook) -> bool:
    """Whether torch itself hooks the module (FSDP), and shall see the call as it is."""
    owner = getattr(hook, "__self__", hook)
    return str(getattr(owner, "__module__", "")).startswith("torch.")


def _shown(value: object, rows: PackedBatch | None) -> object:
    """A tensor with one row for each packed token as [batch, length, ...]; all else as it is."""
    if rows is None or rows.index is None or not isinstance(value, Tensor) or value.shape[:1] != rows.index.shape:
        return value
    return rows.pad(value)


def _taken(value: object, like: object, rows: PackedBatch | None) -> object:
    """What a hook gave in place of `like`, in the layout of `like`."""
    if not isinstance(value, Tensor) or not isinstance(like, Tensor) or value.shape == like.shape or rows is None:
        return value
    return rows.pack(value) if value.shape[:2] == (rows.batch, rows.length) else value


def _arguments(args: tuple[object, ...], rows: PackedBatch | None) -> tuple[object, ...]:
    return tuple(_shown(arg, rows) for arg in args if isinstance(arg, Tensor))


def _named(kwargs: Mapping[str, object], rows: PackedBatch | None) -> dict[str, object]:
    return {name: _shown(value, rows) for name, value in kwargs.items() if isinstance(value, Tensor)}


def _before(hook: Hook, with_kwargs: bool) -> Hook:
    def run(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object] | None = None) -> object:
        rows = rows_of_call()
        inputs = _arguments(args, rows)
        named = {} if kwargs is None else _named(kwargs, rows)
        answer = hook(module, inputs, named) if with_kwargs else hook(module, inputs)
        if answer is None:
            return None
        if with_kwargs:
            answer, changed = answer
            before = kwargs or {}
            named = {name: _taken(changed.get(name), before[name], rows) for name in named}
        new = iter(answer if isinstance(answer, tuple) else (answer,))
        out = tuple(_taken(next(new), arg, rows) if isinstance(arg, Tensor) else arg for arg in args)
        return (out, {**(kwargs or {}), **named}) if with_kwargs else out

    return run


def _after(hook: Hook, with_kwargs: bool) -> Hook:
    def run(module: nn.Module, args: tuple[object, ...], *rest: object) -> object:
        rows, out = rows_of_call(), rest[-1]
        inputs, shown = _arguments(args, rows), _shown(out, rows)
        answer = (
            hook(module, inputs, _named(cast("Mapping[str, object]", rest[0]), rows), shown)
            if with_kwargs
            else hook(module, inputs, shown)
        )
        return None if answer is None else _taken(answer, out, rows)

    return run

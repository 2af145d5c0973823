"""Changing activations while the model runs, by address.

An `Edit` says what a value becomes, and where; `Edits` are those of one `with model.edit(...)`. Whatever follows from a
changed value is computed from it; everything else runs as without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.nn.activations.recorder import Recorder

Value = float | Tensor | Recorder | Callable[[Tensor], Tensor]
Places = int | slice | Sequence[int] | Tensor | None


@dataclass(frozen=True)
class Edit:
    """What the value at an address becomes, and at which part of it.

    Attributes:
        value: a number; a tensor that broadcasts to the chosen part; a function of the chosen part that returns one; or
            another run's recording (`model.record`), which gives what it saw at the same address and place. A recording
            of several passes is replayed pass by pass.
        rows: texts of the batch; None for all. positions: columns of the padded input (queries, for a pattern); they
            count on through generation, and negative ones count from the end of each pass. heads: of q, k, v, z,
            scores and pattern. Each is a number, a slice, a list or a tensor of numbers.
    """

    value: Value
    rows: Places = None
    positions: Places = None
    heads: Places = None


Change = Value | Edit | Sequence[Edit]


class Edits:
    """The changes of one `with model.edit(...)`: addresses, each with one edit or several."""

    def __init__(self, changes: Mapping[str, Change], resolve: Callable[[str], list[str]]) -> None:
        self.changes: dict[str, list[Edit]] = {}
        self.passes: dict[str, int] = {}  # how often each address was reached
        self.missed: dict[
            tuple[str, int], Edit | None
        ] = {}  # edits that were reached, but never at one of their positions
        for pattern, change in changes.items():
            listed: list[Any] = list(change) if isinstance(change, (list, tuple)) else [change]
            edits = [e if isinstance(e, Edit) else Edit(e) for e in listed]
            for edit in edits:
                if not isinstance(edit.value, (int, float, Tensor, Recorder)) and not callable(edit.value):
                    raise InputError(
                        f"the edit of {pattern!r} is a {type(edit.value).__name__}; give a number, a tensor, a "
                        "function or a recording, or an Edit of one of these."
                    )
            for address in resolve(pattern):
                self.changes.setdefault(address, []).extend(edits)

    def apply(self, address: str, value: Tensor, start: int) -> Tensor:
        """`value` of the padded batch after the edits; `start`: the column at which this pass begins."""
        turn = self.passes.get(address, 0)
        self.passes[address] = turn + 1
        for number, edit in enumerate(self.changes[address]):
            index = _index(address, value.shape, edit, start, value.device)
            if index is not None:
                value = _changed(address, value, edit, index, turn)
                self.missed[address, number] = None
            else:
                self.missed.setdefault((address, number), edit)
        return value

    def check(self) -> None:
        """InputError where an edit's positions lie beyond everything that ran."""
        for (address, _), edit in self.missed.items():
            if edit is not None:
                raise InputError(
                    f"positions={edit.positions!r} of the edit of {address!r} were not in any pass that ran."
                )


def _changed(address: str, value: Tensor, edit: Edit, index: tuple[Tensor, ...], turn: int) -> Tensor:
    part = value[index] if index else value
    new: Any
    if isinstance(edit.value, Recorder):
        seen = edit.value.at(address, turn).to(value.device)
        new = _fitted(address, seen, value.shape, "the recording")
        new = new[index] if index else new
    elif callable(edit.value) and not isinstance(edit.value, Tensor):
        new = edit.value(part.clone())  # a copy: the function may write into it
        if not isinstance(new, Tensor):
            raise InputError(f"the function for {address!r} must return a tensor; it returned {type(new).__name__}.")
    else:
        new = edit.value
    new = torch.as_tensor(new, device=value.device, dtype=value.dtype)
    new = _fitted(address, new, part.shape, "the edit")
    return value.index_put(index, new) if index else new.clone()


def _fitted(address: str, new: Tensor, shape: torch.Size, what: str) -> Tensor:
    try:
        return torch.broadcast_to(new, shape)
    except RuntimeError:
        raise InputError(
            f"{what} for {address!r} has shape {list(new.shape)}, but the place it should take is {list(shape)}."
        ) from None


def _axes(address: str, rank: int) -> tuple[int | None, int | None]:
    """The axes of positions and heads of a value."""
    part = address.rsplit(".", 1)[-1]
    if part in ("q", "k", "v", "z"):
        return 1, 2
    if part in ("scores", "pattern"):
        return 2, 1
    return (1 if rank > 2 else None), None


def _index(address: str, shape: torch.Size, edit: Edit, start: int, device: torch.device) -> tuple[Tensor, ...] | None:
    """The leading axes' indices, one open mesh; () for everything, None where this pass holds no such place."""
    positions, heads = _axes(address, len(shape))
    chosen: dict[int, Tensor] = {}
    asked = (("rows", 0, edit.rows), ("positions", positions, edit.positions), ("heads", heads, edit.heads))
    for name, axis, wanted in asked:
        if wanted is None:
            continue
        if axis is None:
            raise InputError(f"{address!r} has no {name}: its shape is {list(shape)}. Leave {name}= out.")
        first = start if name == "positions" else 0
        chosen[axis] = _places(address, name, wanted, shape[axis], first)
        if chosen[axis].numel() == 0:
            return None
    if not chosen:
        return ()
    last = max(chosen)
    mesh = []
    for axis in range(last + 1):
        places = chosen.get(axis, torch.arange(shape[axis])).to(device)
        mesh.append(places.view(*(-1 if a == axis else 1 for a in range(last + 1))))  # [.., n, ..]
    return tuple(mesh)


def _places(address: str, name: str, wanted: Places, size: int, start: int) -> Tensor:
    """The chosen of `size` places that begin at `start`, counted from 0 in this pass."""
    if isinstance(wanted, slice):
        return torch.tensor([at - start for at in range(start + size)[wanted] if at >= start], dtype=torch.int64)
    places = torch.as_tensor(wanted).reshape(-1)
    if places.dtype == torch.bool or places.is_floating_point():
        raise InputError(f"{name} of the edit of {address!r} must be whole numbers; they are {places.dtype}.")
    places = torch.where(places < 0, places + size, places - start)  # [n], in this pass
    if name != "positions" and bool(((places < 0) | (places >= size)).any()):
        raise InputError(f"{name}={wanted!r} of the edit of {address!r} must lie in 0..{size - 1}.")
    return places[(places >= 0) & (places < size)]

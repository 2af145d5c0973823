"""Adapters at work: what they hold for each layer, and which of them acts on which rows.

The base is never touched: a layer computes its own product, packed as ever, and an adapter's change is added to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.nn.call_context import (
    AdaptersOfACall,
    current,
    entered,
    evaluating,
    rows_of_call,
    take_adapters,
    take_rows,
)
from cutaway.nn.dropout import dropout
from cutaway.nn.lora_config import LoraConfig
from cutaway.nn.packed_batch import PackedBatch


class Lora(nn.Module):
    """The change of one linear layer: y = base(x) + scaling * B A x.

    With a magnitude m [out] it is DoRA: rows of W + scaling * B A are brought to length m, and the gradient does not
    follow the length that they had (Liu et al., 2024, section 4.3).

    Attributes:
        lora_A [rank, in]: shared by layers of ours that are published as one. lora_B [out, rank].
    """

    magnitude: nn.Parameter | None

    def __init__(self, a: nn.Parameter, b: nn.Parameter, magnitude: Tensor | None, config: LoraConfig, alpha: float):
        super().__init__()
        self.lora_A, self.lora_B = a, b
        self.register_parameter("magnitude", None if magnitude is None else nn.Parameter(magnitude))
        self.dropout, self.alpha = config.lora_dropout, alpha
        self.scaling = config.scaling(a.shape[0], alpha)

    def change(self) -> Tensor:
        """scaling * B A, [out, in]."""
        change: Tensor = self.scaling * (self.lora_B @ self.lora_A)
        return change

    def growth(self, weight: Tensor) -> Tensor:
        """m / |W + scaling * B A| for each row, [out]."""
        assert self.magnitude is not None
        with torch.no_grad():
            length: Tensor = (weight.to(self.lora_A.dtype) + self.change()).norm(dim=1)
        growth: Tensor = self.magnitude / length
        return growth

    def apply_to(self, out: Tensor, x: Tensor, layer: Any, columns: slice | None = None) -> Tensor:
        """What the layer gives with this adapter; `out`: what it gives for `x` [..., in] without.

        columns: `x` is only this part of the input, and `out` has no bias.
        """
        a = self.lora_A if columns is None else self.lora_A[:, columns]
        x = dropout(x.to(a.dtype), self.dropout, self.training and not evaluating())
        change = F.linear(F.linear(x, a), self.lora_B) * self.scaling
        if self.magnitude is not None:
            growth = self.growth(_weight(layer))
            product = out if layer.bias is None or columns is not None else out - layer.bias
            change = growth * change + (growth - 1) * product
        return out + change.to(out.dtype)

    @torch.no_grad()
    def merged(self, layer: Any) -> dict[str, Tensor]:
        """The weight with the change in it."""
        weight = _weight(layer)
        whole = weight.to(self.lora_A.dtype) + self.change()
        if self.magnitude is not None:
            whole = self.growth(weight)[:, None] * whole
        return {"weight": whole.to(weight.dtype)}


def _weight(layer: nn.Module) -> Tensor:
    """The weight [out, in], for who only reads it; of a part of a published one, that part."""
    matrix: Callable[[], Tensor] | None = getattr(layer, "matrix", None)
    return layer.weight if matrix is None else matrix()  # type: ignore[return-value]


class ReplacedLayer(nn.Module):
    """A layer of its own in the place of the base's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def apply_to(self, out: Tensor, x: Tensor, layer: nn.Module, columns: slice | None = None) -> Tensor:
        """As Lora.apply_to, which needs nothing of `out` here."""
        return self.layer(x) if columns is None else x @ self.layer.weight[:, columns].T  # type: ignore[index]

    @torch.no_grad()
    def merged(self, layer: object) -> dict[str, Tensor]:
        """The weights of the layer."""
        return {name: p.detach().clone() for name, p in self.layer.named_parameters()}


class Adapter(nn.Module):
    """What one adapter holds: {path of a layer in the model: Lora or ReplacedLayer}."""

    def __init__(self, config: LoraConfig, held: dict[str, Lora | ReplacedLayer], *, trains: bool) -> None:
        super().__init__()
        self.config, self.held, self.trains = config, held, trains
        for path, part in held.items():
            *above, last = path.split(".")
            owner: nn.Module = self
            for step in above:
                owner = owner._modules.setdefault(step, nn.Module())  # type: ignore[assignment]
            owner._modules[last] = part


class AdapterCall:
    """One call in which each row of the batch has its own adapter, or none.

    rows: the layout of the batch of the pass that is running; each pass has an `AdapterCall` of its own, so that the
    tasks and threads that share a context do not share the layout.
    """

    def __init__(self, choice: ActiveAdapter, names: tuple[str | None, ...], rows: PackedBatch | None = None) -> None:
        self.choice, self.names = choice, names
        self._rows = rows
        self._parts: dict[int, list[tuple[str, Tensor | None]]] = {}

    def over(self, rows: PackedBatch) -> AdapterCall:
        """The same call on a batch of this layout."""
        return AdapterCall(self.choice, self.names, rows)

    def parts(self, n: int) -> list[tuple[str, Tensor | None]]:
        """As ActiveAdapter.parts."""
        if len(set(self.names)) == 1:
            return [(name, None) for name in self.names[:1] if name is not None]
        if n not in self._parts:
            owners = self._owners(n)
            self._parts[n] = [
                (
                    name,
                    torch.cat(
                        [(owners == i).nonzero()[:, 0] for i, adapter in enumerate(self.names) if adapter == name]
                    ),
                )
                for name in dict.fromkeys(self.names)
                if name is not None
            ]
        return self._parts[n]

    def _owners(self, n: int) -> Tensor:
        """[n]: the text of each of n rows that a layer reads."""
        rows = self._rows
        assert rows is not None
        each = rows.batch // len(self.names)  # several texts of one row: the choices of multiple choice
        if not each:
            raise InputError(f"{len(self.names)} texts have adapters of their own, but {rows.batch} are run at once.")
        if rows.index is not None and n == len(rows.index):
            return rows.index // (rows.length * each)
        texts = torch.arange(rows.batch) // each
        if n == rows.batch:
            return texts
        if n == rows.batch * rows.length:
            return texts.repeat_interleave(rows.length)
        raise InputError("different adapters in one batch: a layer reads some of its tokens only. Run them apart.")


def set_call_rows(rows: PackedBatch) -> None:
    """Give the call that runs the layout of its batch, by which adapters and hooks find each text's rows."""
    take_rows(rows)
    call = current().adapters
    if call is not None:
        take_adapters(call.over(rows))


@contextmanager
def call_rows(rows: PackedBatch) -> Iterator[None]:
    """Inside, the rows that layers read are those of another text: what a decoder looks at."""
    call, before = current().adapters, rows_of_call()
    take_rows(rows)
    try:
        with adapter_call(None if call is None else call.over(rows)):
            yield
    finally:
        take_rows(before)


def adapter_call_of(choice: ActiveAdapter) -> AdaptersOfACall | None:
    """The call that runs, if it is one of the model that `choice` belongs to."""
    call = current().adapters
    return call if call is not None and call.choice is choice else None


@contextmanager
def adapter_call(call: AdaptersOfACall | None) -> Iterator[None]:
    """Inside, `call` says which adapters act in passes of this thread or task."""
    before = current().adapters
    take_adapters(call)
    try:
        yield
    finally:
        take_adapters(before)


def with_call_context(block: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same computation, also when it is done again after the call has ended, or by a thread of torch's."""
    context = current()

    def again(*args: object) -> Tensor:
        with entered(context):
            return block(*args)

    return again


class ActiveAdapter:
    """Which adapter of a model acts where a call does not say."""

    def __init__(self) -> None:
        self.active: str | None = None

    def parts(self, n: int) -> list[tuple[str, Tensor | None]]:
        """[(adapter, which of the n rows that a layer reads, None for all)]."""
        call = adapter_call_of(self)
        if call is not None:
            return call.parts(n)
        return [] if self.active is None else [(self.active, None)]


class AdapterSlot:
    """What the adapters of a model hold for one of its layers."""

    def __init__(self, choice: ActiveAdapter) -> None:
        self.choice = choice
        self.held: dict[str, Lora | ReplacedLayer] = {}

    def acts(self, n: int) -> bool:
        """Whether any adapter changes what this layer gives for n rows."""
        return any(name in self.held for name, _ in self.choice.parts(n))

    def apply_to(self, out: Tensor, x: Tensor, layer: nn.Module, columns: slice | None = None) -> Tensor:
        """What the layer gives with its adapters; as Lora.apply_to."""
        for name, rows in self.choice.parts(out.shape[0]):
            part = self.held.get(name)
            if part is None:
                continue
            if rows is None:
                out = part.apply_to(out, x, layer, columns)
            else:
                out = out.index_copy(0, rows, part.apply_to(out[rows], x[rows], layer, columns))
        return out

    def hook(self, layer: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        """The same for a layer that does not ask for it, as a forward hook."""
        return self.apply_to(out, given[0], layer)


class Adapters(nn.Module):
    """All adapters of one model.

    Attributes:
        choice: which of them acts. sites: {path of a layer: what is held for it}. thawed: the weights of the base that
            trained before. merged: {(path, name of a weight): the base's own} while an adapter is merged.
    """

    def __init__(self, thawed: list[nn.Parameter]) -> None:
        super().__init__()
        self.choice = ActiveAdapter()
        self.sites: dict[str, AdapterSlot] = {}
        self.hooks: dict[str, Any] = {}
        self.thawed = thawed
        self.merged: dict[tuple[str, str], nn.Parameter] = {}
        self.merged_name: str | None = None

    @property
    def held(self) -> dict[str, Adapter]:
        return self._modules  # type: ignore[return-value]


def layer_name(model: nn.Module, parameter: str) -> str:
    """The name of a model's parameter; that of an adapter without the part that names the adapter."""
    if isinstance(model._modules.get("adapters"), Adapters) and parameter.startswith("adapters."):
        return parameter.split(".", 2)[2]
    return parameter


def first_a(rank: int, width: int, like: Tensor) -> nn.Parameter:
    """A before training: uniform as a linear layer's weight (B is 0, so the adapter changes nothing yet)."""
    a = torch.empty(rank, width, dtype=training_dtype(like), device=like.device)
    return nn.Parameter(nn.init.kaiming_uniform_(a, a=math.sqrt(5)))


def training_dtype(base: Tensor) -> torch.dtype:
    """Adapters of half-precision weights are float32: their steps are small."""
    return torch.float32 if base.dtype in (torch.float16, torch.bfloat16) else base.dtype

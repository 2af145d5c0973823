"""Linear layers, packed for the processor on first use.

On CPUs our kernels (`cutaway.native`), or oneDNN where those cannot run, multiply by a weight that was laid out for
them once, with the activation or the residual add in the same pass; results differ from the plain product by rounding
only. The packed weight is a cache beside the parameter, which stays what it was: it is made anew as soon as the
parameter changes, moves, or is another one, and never copied, saved or pickled. The plain product is used where neither
is there, on other devices, and while a model trains.

`Linear` is a `LinearOp` and `PackedCache` a `LinearGroup` (`cutaway.nn.linear_op`); `linear_op` makes a `LinearOp` of
any other module that somebody puts in a layer's place.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway import native
from cutaway.config.architecture import Activation
from cutaway.errors import ConfigError
from cutaway.locks.fork_lock import ForkLock
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.call_context import evaluating
from cutaway.nn.cpu.block_panels import BlockPanels, laid_out, side_by_side
from cutaway.nn.cpu.block_weight import Blocks, BlockWeight, blocks_of, in_blocks
from cutaway.nn.cpu.int8 import DTYPES as INT8_DTYPES
from cutaway.nn.cpu.int8 import Int8Weight
from cutaway.nn.cpu.memory import evict, keep_freed_memory, release_freed_memory
from cutaway.nn.cpu.onednn_linear import learns, product
from cutaway.nn.cpu.ops import transformed
from cutaway.nn.cpu.packed_weight import PackedWeight, served
from cutaway.nn.cpu.torch_private import ONEDNN, SavingContext
from cutaway.nn.cpu.tracked_parameter import Seen, TrackedParameter
from cutaway.nn.linear_op import LinearOp
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.residual import ResidualAdd

if TYPE_CHECKING:
    from cutaway.nn.lora import AdapterSlot
    from cutaway.nn.published_layer import PublishedPart


# our activation -> oneDNN's name of it and its variant
_FUSED: dict[Activation, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "tanh": ("tanh", ""),
}


OPERATORS = ONEDNN
DTYPES = (torch.float32, torch.bfloat16) if OPERATORS is not None and OPERATORS.bf16 else (torch.float32,)
_PACKING = ForkLock()
MANY = 64  # rows from which on a thread takes a few rows through all that follows, instead of a part of the weight
CACHED = 8 << 20  # bytes of a weight up to which it comes fast enough for that, once for every few rows


class PackedCache:
    """The packed form of one layer, or of several that read the same input, side by side: a `LinearGroup`."""

    is_gate = False

    def __init__(self) -> None:
        self._seen: SeenLayers = []
        self._int8 = False
        self.weight: Tensor | Int8Weight | PackedWeight | None = None
        self.bias: Tensor | None = None

    def refresh(self, layers: Sequence[Linear]) -> PackedCache:
        """This, made anew if a weight or bias is no longer what it was."""
        seen = self._seen
        if not self.holds(layers):
            with _PACKING:  # by one thread; the others wait for what it makes
                # a second look at what the first found changed would compare other numbers of it
                if self._seen is seen or not self.holds(layers):
                    self._make(layers)
        return self

    @property
    def seen(self) -> SeenLayers:
        """What was packed; another object where it was packed anew."""
        return self._seen

    def forget(self) -> None:
        """Make the packed form anew at its next use."""
        self._seen = []

    def holds(self, layers: Sequence[Linear]) -> bool:
        """Whether weights and biases are, as far as can be told, what they were."""
        seen = self._seen
        if len(seen) != len(layers) or self._int8 != layers[0].int8:
            return False
        for layer, (weight, bias) in zip(layers, seen, strict=True):
            parameters = layer.own_parameters()
            if not weight.holds(parameters.get("weight")):
                return False
            if bias is not None:
                if not bias.holds(parameters.get("bias")):
                    return False
            elif "bias" not in parameters or parameters["bias"] is not None:
                return False
        return True

    def _make(self, layers: Sequence[Linear]) -> None:
        # first, so that what another thread or process writes meanwhile is found at the next use
        seen = [(_seen_weight(layer), _seen_bias(layer, len(layers) > 1)) for layer in layers]
        # as torch stretches a bias of one number
        weights = [(layer.tensor("bias"), layer.out_features) for layer in layers]
        biases = [bias.detach().expand(n) for bias, n in weights if bias is not None]
        bias = self._joined(biases) if biases else None
        if in_blocks(layers[0].held("weight")):
            self.weight = laid_out(blocks_of(layers), bias, self.is_gate)
        else:
            self.weight = self._packed(layers, bias)
            for layer in layers:
                evict(layer.held("weight"))
        self.bias, self._int8, self._seen = bias, layers[0].int8, seen
        if not isinstance(self.weight, BlockPanels):  # which are the file's own bytes, and were not copied
            release_freed_memory()
        keep_freed_memory()

    def _packed(self, layers: Sequence[Linear], bias: Tensor | None) -> Tensor | Int8Weight | PackedWeight:
        """The numbers of the layers as what multiplies by them reads them."""
        weight = self._joined([layer.matrix().detach() for layer in layers])
        if layers[0].int8:
            return Int8Weight(weight, bias, self.is_gate)
        if served(weight.dtype, weight.shape[1]):
            return PackedWeight(weight, bias, gated=self.is_gate)
        assert OPERATORS is not None
        reordered: Tensor = OPERATORS.reorder(weight.contiguous(), None)
        return reordered

    @staticmethod
    def _joined(parts: Sequence[Tensor]) -> Tensor:
        """Weights or biases of the layers as one."""
        return torch.cat(tuple(parts)) if len(parts) > 1 else parts[0]

    def can_fuse(self, layers: Sequence[nn.Module]) -> bool:
        """Whether such layers can lie side by side."""
        return not in_blocks(held(layers[0])) or side_by_side(blocks_of(layers))

    @property
    def panels(self) -> PackedWeight | None:
        """The weight as our kernels read it, where they do."""
        if isinstance(self.weight, Int8Weight):
            return self.weight.panels
        if isinstance(self.weight, BlockPanels):  # no chain has them
            return None
        return self.weight if isinstance(self.weight, PackedWeight) else None

    def product(self, x: Tensor, activation: Activation | None = None, residual: Tensor | None = None) -> Tensor:
        """activation(x W^T + b), or x W^T + b + residual."""
        if isinstance(self.weight, PackedWeight):
            return self.weight.product(x, activation, residual)
        if isinstance(self.weight, Int8Weight):
            plain = None if activation is None else ACTIVATION[activation]
            return self.weight.product(x, activation, residual, plain)
        assert OPERATORS is not None
        if residual is not None:
            return OPERATORS.linear_add(x, residual, self.weight, self.bias, "add")  # type: ignore[no-any-return]
        name, variant = ("none", "") if activation is None else _FUSED[activation]
        return OPERATORS.linear(x, self.weight, self.bias, name, [], variant)  # type: ignore[no-any-return]

    def products(self, layers: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
        """As LinearGroup.products."""
        if not fusable(x, *layers) or not alike(layers) or not self.can_fuse(layers):
            return each(layers, x)
        out = self.refresh(layers).product(x)
        parts = out.split([layer.out_features for layer in layers], -1)
        return [
            part if layer.site is None else with_adapters(layer, part, x)
            for layer, part in zip(layers, parts, strict=True)
        ]

    def gated(self, layers: Sequence[Any], x: Tensor, activation: Activation) -> Tensor:
        """As LinearGroup.gated."""
        gate, up = layers
        one_pass = fusable(x, gate, up) and alike(layers) and self.can_fuse(layers) and not adapted(x, gate, up)
        if one_pass and activation in fused_activations(gate):
            return self.refresh(layers).product(x, activation)
        if called(layers) is not None:
            first, second = each(layers, x)
            return ACTIVATION[activation](first) * second
        return linear_op(gate).activated(x, activation) * up(x)  # type: ignore[no-any-return]

    def fused_mlp(
        self, layers: Sequence[Any], down: Any, x: Tensor, activation: Activation, join: ResidualAdd
    ) -> Tensor | None:
        """As LinearGroup.fused_mlp: for many rows, and a weight that fits the processor's cache."""
        if x.numel() < MANY * x.shape[-1] or not fusable(x, *layers) or not fusable(x, down):
            return None
        if not self.can_fuse(layers) or adapted(x, *layers, down) or activation not in fused_activations(layers[0]):
            return None
        if not alike(layers) or not join.fits(x, down.out_features):
            return None
        first, second = self.refresh(layers).panels, down.packed.refresh((down,)).panels
        if first is None or second is None or first.bytes > CACHED:
            return None
        return join.product(first, x, second, activation)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedCache:
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), ())


class SeenBlocks:
    """Blocks, which never change: only others can take their place."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def holds(self, parameter: Tensor | None) -> bool:
        """Whether `parameter` lies in the same blocks."""
        return type(parameter) is BlockWeight and parameter.blocks is self._blocks


SeenLayers = list[tuple[Seen | SeenBlocks, Seen | None]]  # each layer's weight and bias


def _seen_weight(layer: Linear) -> Seen | SeenBlocks:
    weight: Tensor = layer.held("weight")
    return SeenBlocks(weight.blocks) if type(weight) is BlockWeight else Seen(weight)


def _seen_bias(layer: Linear, joined: bool) -> Seen | None:
    bias: Tensor | None = layer.held("bias")
    if bias is None:
        return None
    # a bias that lies as the kernels want it is read where it is
    as_it_is = bias.dtype == torch.float32 and bias.is_contiguous() and bias.shape == (layer.out_features,)
    joined = joined or layer.part is not None
    return Seen(bias, copied=joined or not as_it_is)


class PackedGate(PackedCache):
    """Two layers, a gate and what it lets through, whose product is activation(gate) times the other."""

    is_gate = True

    @staticmethod
    def _joined(parts: Sequence[Tensor]) -> Tensor:
        """16 outputs of the gate, then 16 of the other, and so on."""
        return torch.stack([x.unflatten(0, (-1, 16)) for x in parts], 1).flatten(0, 2)

    def can_fuse(self, layers: Sequence[nn.Module]) -> bool:
        """Whether our kernels serve them: nothing else multiplies in the same pass."""
        weight: Tensor = held(layers[0])  # type: ignore[assignment]
        if in_blocks(weight):
            return side_by_side(blocks_of(layers), True)
        dtype = torch.int8 if getattr(layers[0], "int8", False) else weight.dtype
        first: Linear = layers[0]  # type: ignore[assignment]
        return served(dtype, first.in_features) and first.out_features % 16 == 0


class _Product(torch.autograd.Function):
    """The packed product, or without it that of a weight in blocks, with the gradients of the plain one.

    Nothing dequantized is kept from the one to the other.
    """

    @staticmethod
    def forward(
        ctx: SavingContext, x: Tensor, weight: Tensor, bias: Tensor | None, packed: PackedCache | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.linear(x, weight, bias) if packed is None else packed.product(x)

    @staticmethod
    def backward(ctx: SavingContext, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # [rows, out]
        need = ctx.needs_input_grad
        return (
            gradient @ weight.to(gradient.dtype) if need[0] else None,  # autocast gives it in another
            rows.T @ x.flatten(0, -2) if need[1] else None,
            rows.sum(0) if ctx.has_bias and need[2] else None,
            None,
        )


def packed_of(module: nn.Module) -> PackedCache | None:
    """What a module keeps packed, its own weight or those of layers side by side; None where it packs nothing."""
    cache = vars(module).get("packed")
    return cache if isinstance(cache, PackedCache) else None


def fused_activations(layer: Linear) -> Container[str | None]:
    """The activations that come in one pass with the packed product of `layer`; the others go through torch."""
    if layer.int8 or served(layer.held("weight").dtype, layer.in_features):
        return native.ACTIVATION_NUMBERS
    return _FUSED


def hooked(module: nn.Module) -> bool:
    """Whether somebody watches this module's calls, which one fused pass would not make."""
    watched = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return bool(watched) or "forward" in module.__dict__  # a forward of somebody's own, as accelerate's


def _in_blocks(x: Tensor, layers: Sequence[nn.Module]) -> bool:
    """`packable` of layers whose weights lie in blocks; in training too, since those never change."""
    if native.LIBRARY is None or not x.is_cpu or x.dtype is not torch.float32 or x.numel() == 0:
        return False
    if torch.is_autocast_enabled("cpu") or transformed(x):
        return False
    return all(type(layer) is Linear and in_blocks(held(layer)) for layer in layers)


def packable(x: Tensor, *layers: nn.Module) -> bool:
    """Whether the packed product can serve this input and these layers."""
    first = layers[0]
    if type(first) is not Linear:
        return False
    if in_blocks(first.held("weight")):
        return _in_blocks(x, layers)
    int8 = first.int8
    if not x.is_cpu or x.numel() == 0:
        return False
    if int8:
        if x.dtype not in INT8_DTYPES:
            return False
    elif not served(x.dtype, x.shape[-1]) and (OPERATORS is None or x.dtype not in DTYPES):
        return False
    if torch.is_autocast_enabled("cpu") or transformed(x):
        return False
    for layer in layers:
        if type(layer) is not Linear or layer.int8 != int8 or layer.sharded:
            return False
        if layer.training and not evaluating():
            return False
        parameters = layer.own_parameters()
        weight, bias = parameters.get("weight"), parameters.get("bias", False)
        if weight is None or (type(weight) is not TrackedParameter and not _lasting(weight)) or weight.dtype != x.dtype:
            return False
        if bias is not None and type(bias) is not TrackedParameter and not _lasting(bias):
            return False
    return True


def _lasting(parameter: object) -> bool:
    """Whether this is a parameter that counts its changes: not what a parametrization or a mask just made."""
    return isinstance(parameter, nn.Parameter) and not parameter.is_inference() and not in_blocks(parameter)


def fusable(x: Tensor, *layers: nn.Module) -> bool:
    """Whether one pass may do the work of several calls: no gradient to follow, nobody watching."""
    if not packable(x, *layers):
        return False
    for layer in layers:
        if hooked(layer):
            return False
    return not torch.is_grad_enabled() or not (
        x.requires_grad or any(p.requires_grad for m in layers for p in _own_parameters(m))
    )


def held(layer: nn.Module) -> object:
    """The parameter that holds the layer's weight, whole or as a part of it; None or False where there is none."""
    return layer.held("weight") if isinstance(layer, Linear) else layer._parameters.get("weight")


def _own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    if isinstance(layer, Linear):
        return [p for p in (layer.held("weight"), layer.held("bias")) if p is not None]
    return list(layer.parameters())


def alike(layers: Sequence[Linear | nn.Module]) -> bool:
    """Whether all of the layers have a bias, or none."""
    first, *others = [layer.held("bias") is None for layer in layers]  # type: ignore[operator]
    return all(one is first for one in others)


def called(layers: Sequence[nn.Module]) -> PublishedPart | None:
    """What the layers are all parts of, if it must be called: somebody hooked it, or put another in its place."""
    first: PublishedPart | None = layers[0].__dict__.get("part")
    if first is None:
        return None
    parts: list[PublishedPart | None] = [layer.__dict__.get("part") for layer in layers]
    if first.is_plain or any(part is None or part.layer is not first.layer for part in parts):
        return None
    return first


def each(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """[layer(x) for layer in layers]; what they are parts of is called once, where it must be called."""
    whole = called(layers)
    if whole is None or any(hooked(layer) for layer in layers):
        return [layer(x) for layer in layers]
    out = whole.layer(x)
    return [with_adapters(layer, layer.part.of_outputs(out), x) for layer in layers]  # type: ignore[arg-type, union-attr, operator]


class Linear(PaddedHooks, nn.Linear):
    """x W^T + b: `nn.Linear`, fast; a `LinearOp`.

    Attributes:
        int8: whether evaluation on a CPU multiplies bytes (`cutaway.nn.cpu.int8`). The weight stays what it is:
            training, gradients and saving never see the bytes.
        sharded: whether the weight comes and goes in parts of it (FSDP): nothing that is made of it can be kept.
        site: what adapters hold for this layer (`cutaway.nn.lora`), or None.
        part: where its weight and bias are, if they are a part of published ones (`cutaway.nn.published_layer`).
    """

    int8 = False
    sharded = False
    site: AdapterSlot | None = None
    part: PublishedPart | None = None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.packed = PackedCache()

    def reset_parameters(self) -> None:
        """First weights, unless the layer is only laid out: drawing without memory costs torch seconds of imports."""
        if not self.weight.is_meta:
            super().reset_parameters()

    def held(self, leaf: str) -> Any:
        """The parameter that holds "weight" or "bias", ours or the published one that ours is a part of."""
        return self.own_parameters().get(leaf, False)

    def own_parameters(self) -> Mapping[str, nn.Parameter | None]:
        """The parameters that hold "weight" and "bias", as `held` gives one."""
        part = self.part
        return self._parameters if part is None else part.parameters()

    def tensor(self, leaf: str) -> Tensor | None:
        """Our weight or bias, for who only reads it."""
        if self.part is None:
            return getattr(self, leaf)  # type: ignore[no-any-return]
        return self.part.tensor(leaf)

    def matrix(self) -> Tensor:
        """Our weight [out, in], for who only reads it."""
        found = self.tensor("weight")
        assert found is not None
        return found

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        part = self.__dict__.get("part")
        if part is None or name not in ("weight", "bias"):
            return super().__getattr__(name)
        published = getattr(part.layer, name, None)
        if type(published) is TrackedParameter:
            published.data_accesses += 1  # what is handed out may be written to
        tensor = part.tensor(name)
        if tensor is not None and published is not None and published.is_leaf and published.grad is not None:
            tensor.grad = part.source.from_published(published.grad)  # what a parameter of its own would show
        return tensor  # type: ignore[no-any-return]

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("weight", "bias") and self.part is not None:
            self.part.separate()  # a weight of its own cannot be a part of another
        super().__setattr__(name, value)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        out = self._base(x)
        return out if self.site is None else self.site.apply_to(out, x, self)

    def _base(self, x: Tensor) -> Tensor:
        if self.part is not None and not self.part.is_plain:
            return self.part(x)
        if not packable(x, self):
            weight, bias = self.matrix(), self.tensor("bias")
            if in_blocks(self._parameters.get("weight")) and torch.is_grad_enabled() and x.requires_grad:
                if transformed(x):
                    raise ConfigError(
                        'torch.func has no gradients through blocks; load the model with dtype="float32".'
                    )
                return _Product.apply(x, weight, bias, None)  # type: ignore[no-any-return, no-untyped-call]
            if OPERATORS is not None and learns(x, weight) and not transformed(x):
                return product(x, weight, bias)
            return F.linear(x, weight, bias)
        packed = self.packed.refresh((self,))
        if torch.is_grad_enabled() and (x.requires_grad or self.held("weight").requires_grad):
            return _Product.apply(x, self.matrix(), self.tensor("bias"), packed)  # type: ignore[no-any-return, no-untyped-call]
        return packed.product(x)

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """As LinearOp.activated."""
        if fusable(x, self) and activation in fused_activations(self):
            packed = self.packed.refresh((self,))
            if not adapted(x, self):
                return packed.product(x, activation)
            return ACTIVATION[activation](with_adapters(self, packed.product(x), x))
        return ACTIVATION[activation](self(x))

    def add_residual(self, x: Tensor, join: ResidualAdd) -> Tensor:
        """As LinearOp.add_residual."""
        residual = join.residual
        if residual.shape[:-1] == x.shape[:-1] and residual.is_contiguous() and fusable(x, self):
            packed = self.packed.refresh((self,))
            if adapted(x, self):
                return join.normed(residual + with_adapters(self, packed.product(x), x))
            panels = packed.panels
            few = x.numel() < MANY * x.shape[-1]
            if panels is not None and not few and panels.bytes <= CACHED and join.fits(x, panels.n):
                return join.product(panels, x)
            return join.normed(packed.product(x, residual=residual))
        return join(self(x))

    def fuses(self, x: Tensor) -> bool:
        """As LinearOp.fuses."""
        return fusable(x, self)


class OtherLinear:
    """A `LinearOp` of any module: what follows its call is computed after it."""

    int8 = False
    packed = PackedCache()  # never filled: `fusable` says no to such a layer

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """As LinearOp.activated."""
        return ACTIVATION[activation](self.layer(x))

    def add_residual(self, x: Tensor, join: ResidualAdd) -> Tensor:
        """As LinearOp.add_residual."""
        return join(self.layer(x))

    def fuses(self, x: Tensor) -> bool:
        """As LinearOp.fuses."""
        return False


def linear_op(layer: nn.Module | LinearOp) -> LinearOp:
    """`layer` itself where it is one of ours, else what computes the same with its calls."""
    return OtherLinear(layer) if isinstance(layer, nn.Module) and not isinstance(layer, Linear) else layer


def adapted(x: Tensor, *layers: nn.Module) -> bool:
    """Whether an adapter changes what one of the layers gives; it does so after the product, before all else."""
    return any(layer.site is not None and layer.site.acts(x.shape[0]) for layer in layers)  # type: ignore[union-attr, operator]


def with_adapters(layer: Linear, out: Tensor, x: Tensor) -> Tensor:
    """What adapters make of `out`, the layer's product of `x`."""
    return out if layer.site is None else layer.site.apply_to(out, x, layer)


def matrix_of(layer: nn.Module) -> Tensor:
    """The weight [out, in] of a linear layer, for who only reads it."""
    return layer.matrix() if isinstance(layer, Linear) else layer.weight  # type: ignore[return-value]


def columns(layer: Linear, x: Tensor, part: slice) -> Tensor:
    """What `part` of a layer's input contributes: x [rows, n] -> [rows, out], without the bias."""
    out = x @ matrix_of(layer)[:, part].T
    site: AdapterSlot | None = getattr(layer, "site", None)
    return out if site is None else site.apply_to(out, x, layer, part)

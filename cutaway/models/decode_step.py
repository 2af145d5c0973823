"""A step of decoding: the same engine, with every question that has the same answer at each step asked once.

A module can be frozen when nobody watches it and nothing about it will change while a text is generated. It then needs
no calls through `nn.Module`, no look at hooks, weights or gradients, and its children are plain attributes. The
arithmetic is the module's own `forward`: a frozen block runs the lines that the open path runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway import native
from cutaway.models.backbone import Backbone, EncoderDecoder
from cutaway.nn.activations.lazy_values import ActivationStore
from cutaway.nn.activations.taps import Peeks, Taps
from cutaway.nn.attention import Context
from cutaway.nn.call_context import Scope, scopes_of
from cutaway.nn.cpu.torch_private import calls_are_watched
from cutaway.nn.cpu.tracked_parameter import TrackedParameter
from cutaway.nn.engine_modules import engine_modules
from cutaway.nn.frozen_linear import FrozenLinear, freeze_linear
from cutaway.nn.heads_norm import OwnHeadsNorm
from cutaway.nn.kernel_graph import KernelGraph, Turns
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear, PackedCache, hooked
from cutaway.nn.module_state import ModuleState
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.norm_mlp import Embedding, LayerNorm, RMSNorm, Sinusoids
from cutaway.nn.packed_batch import PackedBatch
from cutaway.nn.positions import RelativeBias
from cutaway.nn.stack import run_blocks, run_stack
from cutaway.nn.stack_inputs import Batch

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel
    from cutaway.nn.stack import Stack

# modules beside `NamedModule` whose forward reads nothing but their attributes
_PLAIN = (
    RMSNorm,
    OwnHeadsNorm,
    LayerNorm,
    Embedding,
    Sinusoids,
    RelativeBias,
    nn.LayerNorm,
    nn.Embedding,
    nn.Identity,
)
_NOTHING = Taps(())
_PEEKED = frozenset(("resid", "resid_mid", "resid_cross", "attn.q", "attn.z", "cross.q", "cross.z"))
_COMPARED = (nn.Parameter, TrackedParameter)
_MOST_BYTES = 32 << 20  # between the kernels of a step that stays for later calls
_SMALL = 1 << 16  # numbers of a parameter that are all compared
RECORDED = 2  # the step whose kernel calls are captured: by then all weights are packed


def watched(model: nn.Module) -> bool:
    """Whether somebody would notice that modules are not called: hooks, here or on all modules, or another forward."""
    if calls_are_watched():
        return True
    return any(hooked(m) or "forward" in m.__dict__ for _, m in engine_modules(model))


def freeze_for_decoding(module: nn.Module, products: list[FrozenLinear] | None = None) -> Any:
    """`module`, unwatched and in evaluation mode, as a plain callable object with the same weights.

    What is not the engine's own (an adapter that somebody put in a layer's place) stays as it is. `products` gets what
    stands in the place of linear layers.
    """
    products = [] if products is None else products
    if type(module) is Linear:
        frozen_layer = freeze_linear(module.packed, [module])
        if frozen_layer is None:
            return module
        products.append(frozen_layer)
        return frozen_layer
    if type(module) is nn.ModuleList:
        return [freeze_for_decoding(child, products) for child in module]
    if not isinstance(module, NamedModule) and type(module) not in _PLAIN:
        return module
    kind: Any = type(module)
    frozen: Any = object.__new__(_frozen_kind(kind))
    # weights and children become plain attributes, which Python finds without nn.Module.__getattr__
    attributes = frozen.__dict__
    attributes.update(module.__dict__)
    attributes.update(module._parameters)
    attributes.update(module._buffers)
    if isinstance(module, RelativeBias):
        attributes["is_frozen"] = True
    children = {name: child for name, child in module._modules.items() if child is not None}
    attributes.update({name: freeze_for_decoding(child, products) for name, child in children.items()})
    if isinstance(attributes.get("packed"), PackedCache):
        layers = [getattr(module, name) for name in module.side_by_side]  # type: ignore[union-attr]
        side_by_side = freeze_linear(module.packed, layers)  # type: ignore[arg-type]
        if side_by_side is not None:
            attributes["packed"] = side_by_side
            products.append(side_by_side)
    return frozen


@functools.cache
def _frozen_kind(kind: type) -> type:
    """A subclass of `kind` whose call is its `forward`.

    The call of an nn.Module looks for hooks and tracing, and only then calls `forward`. Python looks up `__call__` on
    the class and never on the object, so skipping that takes a class: one for each kind of module, made once.
    """
    return type(f"Frozen{kind.__name__}", (kind,), {"__call__": kind.forward})  # type: ignore[attr-defined]


class FrozenStack:
    """A stack that was frozen, and how it was then, so that a later call of the model can go on with it.

    It is kept by the stack itself, so it must not hold it: a model that is let go of is gone at once.

    Attributes:
        stack: what `freeze_for_decoding` made of it. graph: a step that was captured, None until one was. taps: those
            that it was captured with. shown: {(layer, part): where each step leaves it}, of those that peek.
    """

    def __init__(self, module: NamedModule) -> None:
        # all before anything is made of it
        self._kind, self._attributes, self._children = type(module), _attributes(module), dict(module._modules)
        self._states = [ModuleState(child) for child in self._children.values() if child is not None]
        modules = [module, *(inner for state in self._states for inner in state.modules)]
        self._parameters = [
            (inner._parameters, name, p, *_address_and_numbers(p))
            for inner in modules
            for name, p in inner._parameters.items()
            if p is not None
        ]
        self._buffers = [
            (inner._buffers, name, x, x.data_ptr())
            for inner in modules
            for name, x in inner._buffers.items()
            if x is not None
        ]
        self._products: list[FrozenLinear] = []
        self._seen: list[tuple[FrozenLinear, object]] = []
        self._library = native.LIBRARY
        self.stack = freeze_for_decoding(module, self._products)
        self.stack.__dict__.pop("kept_steps", None)
        self.graph: KernelGraph | None = None
        self.taps: Taps = _NOTHING
        self.shown: dict[tuple[int, str], Tensor] = {}

    def note_products(self) -> None:
        """Before a step is captured: which packed weights there are."""
        self._seen = [(product, product.packed.seen) for product in self._products if product.refreshed]

    @property
    def can_stay(self) -> bool:
        """Whether all that a captured step computes follows from what `holds` compares."""
        is_plain = f"{self._kind.__module__}.".startswith("cutaway.") and "forward" not in self._attributes
        known = len(self._seen) == sum(product.refreshed for product in self._products)
        return is_plain and known and all(state.is_plain for state in self._states)

    def holds(self, module: NamedModule) -> bool:
        """Whether `module` and its weights are, as far as can be told, what they were: by the checks of the forward.

        A packed weight is looked at by `PackedCache.holds`; all small parameters are compared number by number, and a
        table of tokens is read where it is.
        """
        if type(module) is not self._kind or self._library is not native.LIBRARY:
            return False
        try:
            if _attributes(module) != self._attributes or module._modules != self._children:
                return False
        except (RuntimeError, ValueError):  # an array in the place of another one, which are not simply equal or not
            return False
        if not all(state.holds() for state in self._states):
            return False
        for product, seen in self._seen:
            packed = product.packed
            if packed.seen is not seen:
                return False
            if not packed.holds(product.layers):
                packed.forget()  # the next look would compare other numbers of it, and find nothing
                return False
        for parameters, name, p, address, numbers in self._parameters:
            if parameters.get(name) is not p or (address is not None and p.data_ptr() != address):
                return False
            if numbers is not None and not torch.equal(p.detach(), numbers):
                return False
        return all(buffers.get(name) is x and x.data_ptr() == address for buffers, name, x, address in self._buffers)


def _address_and_numbers(p: nn.Parameter) -> tuple[int | None, Tensor | None]:
    """Where a parameter lies, and a copy of a small one; None for what is no plain parameter on the processor."""
    if type(p) not in _COMPARED or not p.is_cpu:
        return None, None
    return p.data_ptr(), p.detach().clone() if p.numel() <= _SMALL else None


def _attributes(module: nn.Module) -> dict[str, object]:
    """A stack's own attributes, but for what it keeps of earlier calls."""
    return {name: value for name, value in vars(module).items() if name != "kept_steps"}


def frozen_stack(module: NamedModule) -> FrozenStack:
    """The stack, frozen: as an earlier call left it, where nothing has changed since, or anew."""
    kept = module.kept_steps.acquire()
    if isinstance(kept, FrozenStack) and kept.graph is not None and kept.holds(module) and kept.graph.wake():
        return kept
    return FrozenStack(module)


class DecodeStepper:
    """The next logits of texts whose earlier tokens a cache holds, while nothing is recorded.

    Weights, hooks and modules are looked at when it is made, and not again.
    """

    def __init__(self, model: GenerativeModel) -> None:
        base = model.base
        self.model, self.base = model, base
        self.module: NamedModule = base if base.architecture.decoder is None else base.decoder
        self.frozen = frozen_stack(self.module)
        self.stack, self.graph = self.frozen.stack, self.frozen.graph
        self.is_new_call = self.graph is not None  # the graph is of another call, and was not used in this one
        self.tries = 0  # steps that went through the blocks' own forward
        self.rows: PackedBatch | None = None
        self.memory_rows: PackedBatch | None = None
        self.memory_mask: Tensor | None = None
        self.taps = self.frozen.taps

    def release(self) -> None:
        """Leave what was captured to the next call of the model; this stepper makes no more steps."""
        frozen = self.frozen
        frozen.graph, frozen.taps, self.graph = self.graph, self.taps, None
        if frozen.graph is None or frozen.graph.bytes > _MOST_BYTES:
            return
        if not frozen.can_stay:
            return
        frozen.graph.rest()
        self.module.kept_steps.release(frozen)

    def peek(self, places: Iterable[tuple[int, str]]) -> Mapping[tuple[int, str], Tensor]:
        """{(layer, part): value} at these places after each step that follows, as (3, "resid") or (0, "attn.q").

        Nothing is copied, so that steps take no longer: the values are the engine's own, and those of the last step.
        Asked for before the first step.
        """
        self._leave(frozenset(places))
        if not isinstance(self.taps, Peeks):
            self.taps = Peeks(())
        return self.taps.seen

    def _leave(self, places: frozenset[tuple[int, str]]) -> None:
        """See that each step leaves these; one of an earlier call that leaves more does."""
        if places and not (isinstance(self.taps, Peeks) and places <= self.taps.peeked):
            self.taps, self.graph, self.tries = Peeks(places), None, 0

    @property
    def is_unobserved(self) -> bool:
        """Whether nothing is recorded or edited at the moment."""
        return not scopes_of(self.base)

    @property
    def reads_shared(self) -> bool:
        """Whether the next step takes a cache whose rows beams share (`Cache.share`)."""
        return self.graph is not None and self.is_unobserved

    @property
    def shows_all(self) -> bool:
        """Whether a step shows all that is recorded at the moment, and nothing is edited."""
        scopes = scopes_of(self.base)
        if any(scope.recorder is None or scope.edits is not None or scope.vectors is not None for scope in scopes):
            return False
        return all(self._place(address) is not None for address in self._wanted(scopes))

    def _wanted(self, scopes: Sequence[Scope]) -> list[str]:
        """The addresses that are recorded and that a step reaches."""
        addresses = {address for scope in scopes if scope.recorder is not None for address in scope.recorder.wanted}
        return sorted(address for address in addresses if not address.startswith("encoder."))

    def _place(self, address: str) -> tuple[int, str] | None:
        """(layer, part) of an address; None for one at which a step cannot be peeked."""
        layer, _, part = address.removeprefix("decoder.").removeprefix("blocks.").partition(".")
        return (int(layer), part) if layer.isdecimal() and part in _PEEKED else None

    def _show(self, scopes: Sequence[Scope], batch: int, n: int) -> None:
        """Hand what the step left to the recorders."""
        values = ActivationStore()
        for address in self._wanted(scopes):
            place = self._place(address)
            assert place is not None and isinstance(self.taps, Peeks)
            value = self.taps.seen[place]
            if not place[1].startswith("resid"):  # [rows, heads, head_size], a row a token
                value = value.unflatten(0, (-1, n))
            values[address] = value[:batch].clone()  # a captured step may be of more texts
        for scope in scopes:
            if scope.recorder is not None:
                scope.recorder.begin(values.part(scope.recorder.wanted), None)

    def __call__(
        self, ids: Tensor, cache: Cache, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [batch, n, vocabulary] of the new tokens ids [batch, n], which the cache takes in.

        memory: [batch, source length, hidden], what the encoder said, with its mask [batch, source length] or None.
        """
        batch, n = ids.shape
        scopes = scopes_of(self.base)
        if scopes:
            wanted = map(self._place, self._wanted(scopes))
            self._leave(frozenset(place for place in wanted if place is not None))
        if self.rows is None or (self.rows.batch, self.rows.length) != (batch, n):
            self.rows = PackedBatch(batch, n, None)
            self.memory_rows = None
        if memory is not None and (self.memory_rows is None or memory_mask is not self.memory_mask):
            self.memory_rows, self.memory_mask = PackedBatch(batch, memory.shape[1], memory_mask), memory_mask
        inputs = Batch(self.rows, ids, None, None, None, cache)
        x = run_stack(self.stack, inputs, self.taps, memory, self.memory_rows, self._through)  # [batch, n, hidden]
        if scopes:
            self._show(scopes, batch, n)
        return self.model.logits(x)

    def _through(self, stack: Stack, x: Tensor, context: Context, taps: Taps) -> Tensor:
        """`run_blocks`, from the second time on as one call where the kernels do all of it."""
        cache, batch = context.cache, x.shape[0]
        assert cache is not None
        if x.shape[1] != 1 or cache.empty or native.LIBRARY is None:
            return run_blocks(stack, x, context, taps)
        if self.graph is not None and self.is_new_call and not self.graph.fits(cache, context.memory_rows):
            self.graph = None
        self.is_new_call = False
        if self.graph is not None and batch <= self.graph.batch:
            if isinstance(taps, Peeks):
                taps.seen.update(self.frozen.shown)  # another step may have gone through the blocks meanwhile
            return self.graph.replay(x, context.turns, cache, context.memory_rows)
        self.tries += 1
        if self.graph is None and self.tries != RECORDED:
            return run_blocks(stack, x, context, taps)
        graph = KernelGraph(x, context.turns)
        self.frozen.note_products()
        cache.first_visible()  # computed by torch, and kept

        def blocks(x: Tensor, turns: Turns) -> Tensor:
            return run_blocks(stack, x, replace(context, turns=turns), taps)

        x, is_complete = graph.capture(blocks, cache)
        self.graph = graph if is_complete else None
        self.frozen.shown = dict(taps.seen) if isinstance(taps, Peeks) else {}
        return x


def make_stepper(model: GenerativeModel) -> DecodeStepper | None:
    """A stepper for `model` (a causal or encoder-decoder language model), or None where each step needs its forward.

    The heads call it where `forward` is their own (`model.decode_stepper()`).
    """
    base = model.base
    if type(base).forward not in (Backbone.forward, EncoderDecoder.forward) or base.training or torch.is_grad_enabled():
        return None
    if torch.is_autocast_enabled(model.device.type) or not isinstance(model, nn.Module) or watched(model):
        return None
    return DecodeStepper(model)

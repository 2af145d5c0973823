"""The blocks of a stack as one call, for a short text or a few of them.

Between two kernels of a short text stands as much Python as the kernels take. But from one text to the next the same
kernels read the same weights: only the rows are others, and how many there are. So the kernel calls of one pass are
captured as the engine's own forward makes them, and later passes replay them, on any number of rows up to a bound.

A replay is the forward that would have run, or it does not happen: before each, modules and weights are compared with
what was captured, by the checks of the forward itself (`ModuleState`, `PackedCache.holds`). Where anything is recorded
or edited, followed by gradients, or no kernel, the blocks run as ever.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cutaway import native
from cutaway.config.architecture import Rotary
from cutaway.nn.activations.taps import Taps
from cutaway.nn.attention import Context
from cutaway.nn.call_context import evaluating
from cutaway.nn.cpu.ops import DTYPES, at, capturing
from cutaway.nn.cpu.packed_weight import PackedWeight
from cutaway.nn.cpu.torch_private import calls_are_watched, transforming
from cutaway.nn.cpu.tracked_parameter import Seen
from cutaway.nn.kernel_graph import AllocationWatcher, replay
from cutaway.nn.linear import MANY, Linear, PackedCache, SeenBlocks, SeenLayers, packed_of
from cutaway.nn.module_state import ModuleState
from cutaway.nn.named_modules import NamedModule

MOST = 256  # rows; with more of them, what is saved is a small part, and what lies between the kernels is large
STEP = 32  # memory between the kernels is taken for so many rows more at a time
KEPT = 8  # captured passes of one stack: one for each kind of pass, and for each thread that runs at the same time
LONGEST_WAIT = 256  # passes at most until a capture that failed is tried again
LASTING = 16  # replays after which a captured pass was worth its while
_ALIGNED = 64  # bytes

# what each kernel reads beside its weights; all write `out`
_READS: dict[type[native.Op], tuple[str, ...]] = {
    native.Product: ("x", "residual"),
    native.Chain: ("x", "residual"),
    native.Norm: ("x",),
    native.Rope: ("x", "cos", "sin"),
    native.Attention: ("q", "k", "v"),
}
# a kind of pass: whether its rows are few, their dtype, whether the call evaluates
Kind = tuple[bool, torch.dtype, bool]
Blocks = Callable[[NamedModule, Tensor, Context, Taps], Tensor]


class _NotAGraph(Exception):
    """A kernel was called with memory that a replay would not know."""


class _Span:
    """Memory that was taken between two kernels: when it is used, and its offset among the others.

    Attributes:
        start: its address while it was captured; size: its bytes, `each` for a row.
        first, last: the calls that use it. offset: where it begins, in bytes of one row.
    """

    def __init__(self, start: int, size: int, rows: int) -> None:
        self.start, self.size, self.each = start, size, size // rows
        self.first, self.last, self.offset = -1, -1, 0


class _Use(NamedTuple):
    """A field of a call that is an address inside memory between kernels."""

    op: native.Op
    field: str
    span: _Span
    offset: int


class _Norm(NamedTuple):
    """A parameter that a norm reads where it lies."""

    parameters: dict[str, nn.Parameter | None]
    name: str
    parameter: nn.Parameter
    address: int
    dtype: torch.dtype
    shape: torch.Size

    def holds(self) -> bool:
        """Whether it is the same one, and lies as it lay."""
        p = self.parameters.get(self.name)
        if p is None or p is not self.parameter or p.data_ptr() != self.address or not p.is_contiguous():
            return False
        if p.dtype is not self.dtype or p.shape != self.shape:
            return False
        return p.storage_offset() * p.itemsize + p.nbytes <= p.untyped_storage().nbytes()


class BlockGraph:
    """The kernels that the rows of one pass went through, from the first block to the last."""

    def __init__(
        self,
        stack: NamedModule,
        state: ModuleState,
        x: Tensor,
        context: Context,
        calls: Sequence[Any],
        memory: list[Tensor],
        out: Tensor,
    ) -> None:
        """state: of the stack's blocks, from before; x [..., hidden]: what the first block read; out: what the last one
        left; calls and memory: all in between.

        Raises:
            _NotAGraph: a call that no replay could make.
        """
        self.state, self.spec, self.numbers = state, stack.spec, stack.numbers
        self.library, self.dtype, self.replays = native.LIBRARY, x.dtype, 0
        self._rows = rows = x.numel() // x.shape[-1]
        self._ops: list[native.Op] = [op for op, _ in calls]
        self._each: list[int] = []  # rows of each call, of one row of x
        self._x_at: list[tuple[native.Op, str]] = []
        self._out_at: list[tuple[native.Op, str]] = []
        self._turns_at: list[tuple[native.Op, str, Rotary, int]] = []
        self._attention: list[Any] = []
        self._uses: list[_Use] = []
        if out.shape != x.shape or out.dtype is not x.dtype or not out.is_contiguous():
            raise _NotAGraph
        x_at, out_at = at(x, x.dtype, x.shape), at(out, x.dtype, x.shape)
        turns = {
            at(one, one.dtype, one.shape, one.dim()): (rotary, i)
            for rotary, pair in context.turns.items()
            for i, one in enumerate(pair)
        }
        spans = sorted((at(y, y.dtype, y.shape, y.dim()), y.nbytes) for y in memory if y.nbytes)
        self._spans = [_Span(start, size, rows) for start, size in spans]
        starts = [span.start for span in self._spans]
        for number, op in enumerate(self._ops):
            if type(op) not in _READS or op.rows % rows:
                raise _NotAGraph
            self._each.append(op.rows // rows)
            if isinstance(op, native.Attention):
                self._attention.append(op)
            for field in (*_READS[type(op)], "out"):
                address = getattr(op, field)
                if address is None:
                    continue
                if address == x_at:
                    self._x_at.append((op, field))
                elif address in turns:
                    self._turns_at.append((op, field, *turns[address]))
                else:
                    at_span = bisect_right(starts, address) - 1
                    span = self._spans[at_span] if at_span >= 0 else None
                    if span is None or address - span.start >= span.each or span.size % rows:
                        raise _NotAGraph
                    if address == out_at:
                        self._out_at.append((op, field))
                    elif span.start == out_at:
                        raise _NotAGraph
                    else:
                        span.first = number if span.first < 0 else span.first
                        span.last = number
                        self._uses.append(_Use(op, field, span, address - span.start))
        if not self._out_at or not self._x_at:
            raise _NotAGraph
        self._know_weights(calls)
        self._bytes = _placed(self._spans)
        self._capacity = 0
        self._starts, self._lengths = ((ctypes.c_int64 * MOST)() for _ in range(2))
        for op in self._attention:
            op.starts, op.lengths = ctypes.addressof(self._starts), ctypes.addressof(self._lengths)
        self._addresses = (ctypes.c_void_p * len(self._ops))(*(ctypes.addressof(op) for op in self._ops))

    def _know_weights(self, calls: Sequence[Any]) -> None:
        """Find where in the modules the weights of all calls are kept."""
        packed: dict[int, tuple[PackedCache, SeenLayers, Sequence[Linear]]] = {}
        norms: dict[int, tuple[dict[str, nn.Parameter | None], str]] = {}
        for module in self.state.modules:
            cache = packed_of(module)
            if cache is not None:
                names: Sequence[str] | None = getattr(module, "side_by_side", None)
                layers = [module] if names is None else [module._modules[name] for name in names]
                seen = cache.seen  # before the panels, which another thread may make anew
                if cache.panels is not None and all(isinstance(layer, Linear) for layer in layers):
                    packed[id(cache.panels)] = cache, seen, layers  # type: ignore[assignment]
            norms.update({id(p): (module._parameters, name) for name, p in module._parameters.items() if p is not None})
        self._norms: list[_Norm] = []
        self._inner: list[native.Op] = []  # norms that are the last step of a product

        def know_norm(op: native.Op) -> None:
            for parameter, address in zip(op.kept, (op.weight, op.bias), strict=True):
                if (parameter is None) != (address is None) or (parameter is not None and id(parameter) not in norms):
                    raise _NotAGraph
                if parameter is not None:
                    where = norms[id(parameter)]
                    self._norms.append(_Norm(*where, parameter, address, parameter.dtype, parameter.shape))

        used: dict[int, PackedWeight] = {}
        for op, kept in calls:
            if isinstance(op, native.Norm):
                know_norm(op)
            if not isinstance(op, native.Product):
                continue
            weight, down, norm = kept
            for one, address in ((weight, op.weight), (down, op.down)):
                if (one is None) != (address is None) or (one is not None and id(one) not in packed):
                    raise _NotAGraph
                if one is not None:
                    used[id(one)] = one
            if norm is not None:
                know_norm(norm)
                self._inner.append(norm)
        self._caches = [(packed[key][0], packed[key][1]) for key in used]
        # each parameter that was packed, found where `PackedCache.holds` finds it; all else of it is in `state`
        self._packed: list[tuple[Seen | SeenBlocks | None, Callable[[str], nn.Parameter | None], str, PackedCache]] = []
        for key in used:
            for layer, both in zip(packed[key][2], packed[key][1], strict=True):
                parameters = layer.own_parameters()
                if parameters.keys() < {"weight", "bias"}:
                    raise _NotAGraph
                names = ("weight", "bias")
                cache = packed[key][0]
                self._packed += [(one, parameters.get, name, cache) for one, name in zip(both, names, strict=True)]
        self._weights = [weakref.ref(one) for one in used.values()]  # what is packed anew shall not be here twice

    def is_of(self, stack: NamedModule) -> bool:
        """Whether the stack is built as it was."""
        built = stack.spec is self.spec and stack.numbers == self.numbers
        return built and stack._modules.get("blocks") is self.state.root

    def weights(self) -> list[PackedWeight | None] | None:
        """What the kernels will read, to be held while they do; None where something is not what was captured."""
        if not self.state.holds():
            return None
        weights = [weight() for weight in self._weights]
        for cache, seen in self._caches:
            if cache.seen is not seen:
                return None
        for kept, get, name, cache in self._packed:
            now = get(name)
            if now is not None if kept is None else not kept.holds(now):
                cache.forget()  # the blocks' own look would compare other numbers of it, and find nothing
                return None
        if None in weights or self.library is not native.LIBRARY:
            return None
        return weights if all(norm.holds() for norm in self._norms) else None

    def replay(self, x: Tensor, context: Context) -> Tensor:
        """As the blocks: x [..., hidden] -> as x. Only while `weights` are held, and by one thread at a time."""
        self.replays += 1
        rows = x.numel() // x.shape[-1]
        if rows > self._capacity:
            self._take_memory(rows)
        if rows != self._rows:
            self._rows = rows
            for op, each in zip(self._ops, self._each, strict=True):
                op.rows = rows * each
        out = torch.empty(x.shape, dtype=x.dtype)
        x_at = at(x, self.dtype, x.shape)
        for op, field in self._x_at:
            setattr(op, field, x_at)
        for op, field in self._out_at:
            setattr(op, field, out.data_ptr())
        kept = []
        for op, field, rotary, i in self._turns_at:
            turn = context.turns[rotary][i].contiguous()
            setattr(op, field, at(turn, self.dtype, (*x.shape[:-1], 1, op.rotated)))
            kept.append(turn)
        texts = context.rows.starts_and_lengths()
        for i, (start, length) in enumerate(texts):
            self._starts[i], self._lengths[i] = start, length
        for op in self._attention:
            op.texts = len(texts)
        if replay(self._addresses, torch.get_num_threads()):
            raise MemoryError(f"No memory for {rows} rows.")
        return out

    def _take_memory(self, rows: int) -> None:
        """Have room between the kernels for so many rows."""
        self._capacity = -(-rows // STEP) * STEP
        self._room = room = torch.empty(self._bytes * self._capacity, dtype=torch.uint8)
        start = at(room, torch.uint8, room.shape)
        for op, field, span, offset in self._uses:
            setattr(op, field, start + span.offset * self._capacity + offset)


def _placed(spans: list[_Span]) -> int:
    """Give each span an offset that no other has at the same time; returns the bytes of a row that all take."""
    used = sorted((span for span in spans if span.first >= 0), key=lambda span: span.first)
    most = 0
    alive: list[_Span] = []
    for span in used:
        alive = [other for other in alive if other.last >= span.first]
        offset = 0
        for other in sorted(alive, key=lambda other: other.offset):
            if offset + span.each <= other.offset:
                break
            offset = max(offset, -(-(other.offset + other.each) // _ALIGNED) * _ALIGNED)
        span.offset = offset
        alive.append(span)
        most = max(most, offset + span.each)
    return -(-most // _ALIGNED) * _ALIGNED


@dataclass
class _Wait:
    """left: passes until the next capture is tried; again: how many there were before."""

    left: int = 1
    again: int = 1


class BlockGraphs:
    """The captured passes of one stack: no state of the model, and never copied."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: ModuleState | None = None
        self._idle: list[tuple[Kind, BlockGraph]] = []  # the one that was used last at the end
        self._busy = 0
        self._waits: dict[Kind, _Wait] = {}

    def run(self, stack: NamedModule, x: Tensor, context: Context, taps: Taps, blocks: Blocks) -> Tensor:
        """What `blocks`, the pass through the stack's blocks, makes of x: by a replay where that is the same."""
        kind = _kind_of(x, context, taps)
        if kind is None:
            return blocks(stack, x, context, taps)
        graph = self._take(kind)
        if graph is not None:
            try:
                weights = graph.weights() if graph.is_of(stack) else None
                if weights is not None:
                    return graph.replay(x, context)
            finally:
                self._give_back(kind, graph)
            self._forget(kind, graph)
        elif self._is_due(kind) and x.numel() > x.shape[-1]:  # of one row, strides say nothing
            return self._capture(kind, stack, x, context, taps, blocks)
        return blocks(stack, x, context, taps)

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._state, self._idle, self._waits = None, [], {}

    def _take(self, kind: Kind) -> BlockGraph | None:
        with self._lock:
            for i in range(len(self._idle) - 1, -1, -1):
                if self._idle[i][0] == kind:
                    self._busy += 1
                    return self._idle.pop(i)[1]
        return None

    def _give_back(self, kind: Kind, graph: BlockGraph) -> None:
        with self._lock:
            self._busy -= 1
            if graph.state is self._state:
                self._idle.append((kind, graph))
                del self._idle[:-KEPT]

    def _forget(self, kind: Kind, graph: BlockGraph) -> None:
        """Something has changed: what was captured is of no use."""
        with self._lock:
            if graph.state is self._state:
                self._state, self._idle = None, []
            wait = self._waits[kind]
            wait.again = 1 if graph.replays >= LASTING else min(2 * wait.again, LONGEST_WAIT)
            wait.left = wait.again

    def _is_due(self, kind: Kind) -> bool:
        """Whether this pass is one to capture: not the first one, which packs the weights."""
        with self._lock:
            wait = self._waits.setdefault(kind, _Wait())
            if wait.left:
                wait.left -= 1
                return False
            return self._busy + len(self._idle) < KEPT

    def _capture(
        self, kind: Kind, stack: NamedModule, x: Tensor, context: Context, taps: Taps, blocks: Blocks
    ) -> Tensor:
        """What `blocks` makes of x, noted for later passes where these can do the same."""
        state = self._state
        if state is None or state.root is not stack._modules.get("blocks") or not state.holds():
            state = ModuleState(stack.blocks)
        graph = None
        if state.is_plain:
            context.rows.spans()  # computed by torch, and kept
            capturing.calls = []
            try:
                with AllocationWatcher() as watcher:
                    out = blocks(stack, x, context, taps)
            finally:
                calls, capturing.calls = capturing.calls, None
            if calls and not watcher.computed:
                with suppress(_NotAGraph):
                    graph = BlockGraph(stack, state, x, context, calls, watcher.memory, out)
        else:
            out = blocks(stack, x, context, taps)
        with self._lock:
            wait = self._waits.setdefault(kind, _Wait())
            if graph is None:
                wait.again = wait.left = min(2 * wait.again, LONGEST_WAIT)
                return out
            if self._state is not state:
                self._state, self._idle = state, []
            self._idle.append((kind, graph))
            del self._idle[:-KEPT]
        return out

    def __deepcopy__(self, memo: dict[int, object]) -> BlockGraphs:
        return BlockGraphs()

    def __reduce__(self) -> tuple[type[BlockGraphs], tuple[()]]:
        return BlockGraphs, ()


def _kind_of(x: Tensor, context: Context, taps: Taps) -> Kind | None:
    """What kind of pass this is; None where the blocks must run."""
    rows = context.rows
    if x.numel() > MOST * x.shape[-1] or torch.is_grad_enabled() or native.LIBRARY is None or not taps.is_idle:
        return None
    if type(x) is not Tensor or not x.is_cpu or x.dtype not in DTYPES or not x.is_contiguous():
        return None
    # what no kernel computes, and passes that depend on earlier ones
    if context.cache is not None or context.memory is not None or context.bias is not None:
        return None
    if context.bias_positions is not None or context.distances is not None or rows.key_mask is not None:
        return None
    if rows.n_filler or (any(context.windows) and rows.holes):
        return None
    if capturing.calls is not None or calls_are_watched() or torch.is_autocast_enabled("cpu") or transforming():
        return None
    return x.numel() < MANY * x.shape[-1], x.dtype, evaluating()

"""The kernel calls of one decode step, captured once and replayed in one call.

From one step to the next, the same kernels read and write the same places; only the numbers there differ, and the
column of the cache that the new tokens take. So the calls of one step are captured as they are made, with the memory
that lies between them, and later steps replay them: no Python between two layers, and one team of threads for all of
them. What is captured is the engine's own forward; where something in it is not a kernel (torch's operators, an
adapter), the graph is not used.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway import native
from cutaway.config.architecture import Rotary
from cutaway.nn.cpu.ops import at, capturing
from cutaway.nn.cpu.packed_weight import PackedWeight
from cutaway.nn.cpu.torch_private import DISPATCH_MODE
from cutaway.nn.kv_cache import Cache
from cutaway.nn.packed_batch import PackedBatch

Turns = dict[Rotary, tuple[Tensor, Tensor]]
_REPLAY: Any = None if native.LIBRARY is None else native.LIBRARY.cw_replay
_KINDS = (native.Product, native.Norm, native.Rope, native.Put, native.Step)

# operators that compute nothing: another look at the same memory
_VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        *("alias", "as_strided", "detach", "expand", "flatten", "permute", "reshape", "select", "slice", "split"),
        *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view", "_unsafe_view"),
        "_reshape_alias",
    )
)


class _Blind:
    """In the place of torch's mode where it is missing: nothing is watched, and no graph is ever complete."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_Mode: Any = _Blind if DISPATCH_MODE is None else DISPATCH_MODE


class AllocationWatcher(_Mode):  # type: ignore[misc]
    """Keeps the memory that is taken while it watches, and notes whether torch computed anything."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[Tensor] = []
        self.computed = DISPATCH_MODE is None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]  # without the overload's
        if name == "aten::empty":
            self.memory.append(out)
        elif name not in _VIEWS:
            self.computed = True
        return out


def replay(ops: ctypes.Array[ctypes.c_void_p], threads: int) -> bool:
    """Run the kernels at these addresses one after another; whether memory was short."""
    return bool(_REPLAY(ops, len(ops), threads))


class KernelGraph:
    """The kernels that one new token of each text went through, from the first block to the last."""

    def __init__(self, x: Tensor, turns: Turns) -> None:
        """x: [batch, 1, hidden], what enters the first block; turns: cosines and sines for its rows."""
        self.batch = x.shape[0]
        self.x, self.turns = x.clone(), {rotary: (cos.clone(), sin.clone()) for rotary, (cos, sin) in turns.items()}
        self._calls: list[tuple[native.Op, int]] = []  # with the rows of one text
        self._at_cache: list[tuple[Any, int]] = []  # with the layer
        self._at_source: list[tuple[Any, int]] = []  # cross attention, with the layer
        self._target: tuple[Any, ...] = ()
        self._target_memory: tuple[Any, ...] = ()
        self._sources: tuple[Any, ...] = (None, None, 0)  # what cross attention reads, and its memory
        self._kind: tuple[Any, ...] = ()  # of the cache

    def capture(self, blocks: Callable[[Tensor, Turns], Tensor], cache: Cache) -> tuple[Tensor, bool]:
        """What `blocks` makes of the inputs, [batch, 1, hidden], and whether the graph holds all that it took."""
        capturing.calls = []
        try:
            with AllocationWatcher() as watcher:
                out = blocks(self.x, self.turns)
        finally:
            calls, capturing.calls = capturing.calls, None
        self._memory = watcher.memory
        self._kept: Sequence[tuple[native.Op, Sequence[Any]]] = calls
        self.out = out
        buffer = cache.buffer
        assert buffer is not None
        self._kind = _kind(buffer)
        layer = 2 * buffer.stride(0) * buffer.element_size()
        sources = {at(keys, keys.dtype, keys.shape, 2): i for i, (keys, _) in cache.sources.items()}
        for op, _ in calls:
            self._calls.append((op, op.rows // self.batch))
            if isinstance(op, native.Step) and op.end:
                self._at_source.append((op, sources[op.keys]))
            elif isinstance(op, (native.Put, native.Step)):
                self._at_cache.append((op, (op.keys - buffer.data_ptr()) // layer))
        self._ops = (ctypes.c_void_p * len(calls))(*(ctypes.addressof(op) for op, _ in calls))
        all_rows_known = all(isinstance(op, _KINDS) and op.rows % self.batch == 0 for op, _ in calls)
        return out, all_rows_known and bool(calls) and not watcher.computed

    @property
    def bytes(self) -> int:
        """The memory that lies between the kernels."""
        return sum(x.nbytes for x in self._memory)

    def rest(self) -> None:
        """Hold no cache and no weight, until `wake`: nobody replays it meanwhile."""
        self._target, self._target_memory, self._sources = (), (), (None, None, 0)
        self._kept = [
            (op, [weakref.ref(one) if isinstance(one, PackedWeight) else one for one in kept])
            for op, kept in self._kept
        ]

    def wake(self) -> bool:
        """Hold the weights again; False where one of them is no more."""
        self._kept = [(op, [one() if isinstance(one, weakref.ref) else one for one in kept]) for op, kept in self._kept]
        # what a norm and a product do not have is no weight that is gone
        return all(kept[0] is not None for op, kept in self._kept if isinstance(op, native.Product))

    def fits(self, cache: Cache, memory_rows: PackedBatch | None) -> bool:
        """Whether these are of the kind that it was captured with, which within one call they stay."""
        held = cache.buffer_and_origins[0]
        if held is None or _kind(held) != self._kind or cache.scattered:
            return False
        return not self._at_source or (memory_rows is not None and memory_rows.visible() is not None)

    def replay(self, x: Tensor, turns: Turns, cache: Cache, memory_rows: PackedBatch | None = None) -> Tensor:
        """The same on another x and turns, for as many texts or fewer; valid until the next call."""
        batch = x.shape[0]
        self._follow(batch, cache)
        if self._at_source:
            assert memory_rows is not None
            self._follow_sources(batch, cache, memory_rows)
        _copy(self.x, x)
        for rotary, pair in turns.items():
            for ours, theirs in zip(self.turns[rotary], pair, strict=True):
                _copy(ours, theirs)
        if replay(self._ops, torch.get_num_threads()):
            raise MemoryError(f"No memory for a step of {batch} texts.")
        return self.out if batch == self.batch else self.out[:batch]

    def _follow(self, batch: int, cache: Cache) -> None:
        """Point the calls at the cache's memory as it is now: it grows, and texts leave it."""
        (buffer, origins), first_visible = cache.buffer_and_origins, cache.first_visible()
        assert buffer is not None
        start, first = buffer.data_ptr(), None if first_visible is None else first_visible.data_ptr()
        origin = None if origins is None else at(origins, torch.int64, (batch, buffer.shape[3]))
        target = (batch, start, buffer.stride(), first, origin, cache.end_at)
        if target == self._target and self._target_memory[2] is origins:
            return
        at(buffer, buffer.dtype, buffer.shape, 4, True)
        if first_visible is not None:
            at(first_visible, torch.int64, (batch,))
        if _kind(buffer) != self._kind or buffer.shape[1] < batch:
            raise RuntimeError(f"a step of {batch} texts was recorded with another cache than {list(buffer.shape)}")
        self._target, self._target_memory = target, (buffer, first_visible, origins, cache)
        for op, each in self._calls:
            op.rows = batch * each
        half, text, head, *_ = buffer.stride()
        half *= buffer.element_size()
        for op, layer in self._at_cache:
            op.keys, op.values = start + 2 * layer * half, start + (2 * layer + 1) * half
            op.text, op.head, op.columns = text, head, cache.end_at
            if isinstance(op, native.Step):
                op.first_visible, op.origin, op.origin_row = first, origin, buffer.shape[3]

    def _follow_sources(self, batch: int, cache: Cache, memory_rows: PackedBatch) -> None:
        """Point cross attention at the sources of the texts as they are now: beams share them, and texts leave."""
        visible, memory = memory_rows.visible(), cache.source_rows
        assert visible is not None  # as when the step was captured
        if visible is self._sources[0] and memory is self._sources[1] and batch == self._sources[2]:
            return
        first, end, length = visible
        places = at(first, torch.int64, (batch,)), at(end, torch.int64, (batch,)), at(length, torch.int64, (1,))
        memory_at = None if memory is None else at(memory, torch.int64, (batch,))
        for op, layer in self._at_source:
            keys, values = cache.sources[layer]
            shape = (len(keys), op.kv_heads, memory_rows.length, op.size)
            if memory is None and len(keys) < batch:
                raise RuntimeError(f"{batch} texts cannot read the sources of {len(keys)}")
            op.keys, op.values = (at(x, keys.dtype, shape, 2, True) for x in (keys, values))
            op.text, op.head = keys.stride()[:2]
            (op.first_visible, op.end, op.columns), op.memory = places, memory_at
        self._sources = visible, memory, batch, list(cache.sources.values())


class KeptSteps:
    """What was captured for the steps of earlier calls: no state of the model, and never copied."""

    MOST = 2  # for as many calls at the same time, since each has its own

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[object] = []

    def acquire(self) -> object | None:
        """One that nobody uses, which is the caller's from now on; None where there is none."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def release(self, step: object) -> None:
        """Keep one for a later call."""
        with self._lock:
            self._idle = [*self._idle, step][-self.MOST :]

    def __deepcopy__(self, memo: dict[int, object]) -> KeptSteps:
        return KeptSteps()

    def __reduce__(self) -> tuple[type[KeptSteps], tuple[()]]:
        return KeptSteps, ()


def _kind(buffer: Tensor) -> tuple[Any, ...]:
    """What a cache's buffer must go on to be: the kernels were told its numbers, and each token's lie side by side."""
    layers, _, heads, _, size = buffer.shape
    return (buffer.dtype, layers, heads, size, buffer.stride()[3:] == (size, 1))


def _copy(to: Tensor, values: Tensor) -> None:
    """Numbers into memory that no operator needs to know of."""
    values = values.contiguous()
    to = to if len(values) == len(to) else to[: len(values)]
    source = at(values, to.dtype, to.shape)
    ctypes.memmove(to.data_ptr(), source, values.numel() * values.itemsize)

"""A weight that stays in blocks of few bits, its file's or our own, and shows its numbers to whoever reads it.

`BlockWeight` is a float32 matrix to everything that looks at it; its memory is the file's. The linear layers multiply
by the blocks themselves (`cutaway.nn.cpu.block_panels`), a table of tokens reads the rows that are asked for, and every
other operator gets the matrix dequantized, for as long as it runs. It cannot be written to or trained.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import torch
from torch import Tensor, nn

from cutaway import native
from cutaway.checkpoint.gguf_blocks import StoredBlocks
from cutaway.errors import ConfigError
from cutaway.nn.cpu.int8 import Int8Rows
from cutaway.nn.cpu.int8_tiles import Int8Tiles
from cutaway.nn.cpu.ops import at
from cutaway.nn.cpu.torch_private import MAKE_WRAPPER, without_torch_function

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIXED = (
    "this weight lies in blocks of few bits and cannot be changed or trained. Train an adapter on it (add_adapter), or "
    'load the model with dtype="float32", which makes numbers of its own.'
)
Blocks = StoredBlocks | Int8Tiles | Int8Rows
# properties that are other tensors of the same numbers; all others say how it lies
_READ = ("T", "mT", "H", "mH", "real")
_SHAPES = frozenset(
    ("size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "is_contiguous", "storage_offset",
     "__len__", "is_floating_point", "is_complex", "is_signed", "get_device", "__hash__", "is_inference", "has_names",
     "is_conj", "is_neg", "is_same_size")
)  # fmt: skip


class BlockWeight(Tensor):
    """A matrix [n, k] in blocks; its numbers are float32.

    Attributes:
        blocks: where they lie, and how.
    """

    blocks: Blocks

    @staticmethod
    def __new__(cls, blocks: Blocks) -> BlockWeight:
        self: BlockWeight = MAKE_WRAPPER(cls, (blocks.n, blocks.k), dtype=torch.float32, requires_grad=False)
        self.blocks = blocks
        return self

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()

    def dequantize(self, rows: Tensor | None = None) -> Tensor:
        """The numbers, [n, k], or of some rows [m] by their numbers, [m, k]; float32.

        IndexError where a row is not there.
        """
        blocks = self.blocks
        wanted = torch.arange(blocks.n) if rows is None else rows.to("cpu", torch.int64).contiguous()
        library: Any = native.LIBRARY
        if library is None or isinstance(blocks, Int8Rows):
            if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < blocks.n:
                raise IndexError("index out of range in self")
            return blocks.dequantized(wanted)
        out = torch.empty(len(wanted), blocks.k)
        part = native_part(blocks)
        place, count = at(wanted, torch.int64, wanted.shape), len(wanted)
        to, threads = out.data_ptr(), torch.get_num_threads()
        if library.cw_block_rows(ctypes.addressof(part), place, count, blocks.k, to, threads):
            raise IndexError("index out of range in self")
        return out

    @classmethod
    def __torch_function__(cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        """What torch computes with such a weight: of its numbers, where `func` looks at any."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name not in _READ:
                return _as_it_is(func, args, kwargs)
        first: Any = args[0] if args else None
        if name in _SHAPES:
            return _as_it_is(func, args, kwargs)
        if name.startswith("new_") or name.endswith("_like"):
            return func(torch.zeros(()).expand(first.shape), *args[1:], **kwargs)
        if name == "copy_" and isinstance(first, cls) and first.same_numbers(args[1]):  # as load_state_dict does
            return first
        if (_changes(name) and (_holds(first) or _holds(kwargs.get("tensor")))) or _holds(kwargs.get("out")):
            raise ConfigError(FIXED)
        if name == "embedding" and isinstance(args[1], cls):  # F.embedding(ids, weight, ...)
            return args[1].dequantize(first.flatten()).view(*first.shape, args[1].blocks.k)
        if isinstance(first, cls):
            chosen = args[1] if name == "__getitem__" else None
            if isinstance(chosen, (int, slice)) or (isinstance(chosen, Tensor) and chosen.dtype == torch.int64):
                wanted = torch.arange(first.blocks.n)[chosen]
                return first.dequantize(wanted.flatten()).view(*wanted.shape, first.blocks.k)
            if name == "index_select" and args[1] == 0:
                return first.dequantize(args[2])
        return func(*_plain(args), **{key: _plain(value) for key, value in kwargs.items()})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """The same for what torch computes by itself, below its functions (which is why it is seldom called)."""
        if func.name().partition(".")[0] in ("aten::detach", "aten::alias"):
            return cls(args[0].blocks)
        return func(*_plain(args), **{key: _plain(value) for key, value in (kwargs or {}).items()})

    def detach(self) -> BlockWeight:
        """The same blocks."""
        return BlockWeight(self.blocks)

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """The same, where it is float32 on the processor that is asked for; else its numbers."""
        probe = torch.empty(0).to(*args, **kwargs)
        if probe.dtype == torch.float32 and probe.is_cpu and not kwargs.get("copy"):
            return self
        return self.dequantize().to(*args, **kwargs)

    def float(self, *args: object, **kwargs: object) -> Tensor:
        """The same."""
        return self

    def cpu(self, *args: object, **kwargs: object) -> Tensor:
        """The same."""
        return self

    # -- what looks at memory that is not there ----------------------------------------------------------------------

    def contiguous(self, *args: object, **kwargs: object) -> Tensor:
        """The numbers, dequantized: who asks for this reads the memory."""
        return self.dequantize()

    def numpy(self, *args: object, **kwargs: object) -> NDArray[Any]:
        """The numbers as an array."""
        return self.dequantize().numpy()

    def tolist(self) -> list[list[Any]]:
        """The numbers as lists."""
        return self.dequantize().tolist()

    def data_ptr(self) -> int:
        """Where the blocks lie."""
        return self.blocks.data.data_ptr()

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes of the blocks."""
        return self.blocks.nbytes

    @property
    def data(self) -> Tensor:
        """The same blocks; set, it makes a plain tensor of this one, as a module's `bfloat16()` and `to()` do."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, BlockWeight) or value.blocks is not self.blocks:
            torch.utils.swap_tensors(self, _as_parameter(value) if isinstance(self, nn.Parameter) else value)

    @property
    def requires_grad(self) -> bool:
        """False."""
        return False

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> BlockWeight:
        """ConfigError for True."""
        if requires_grad:
            raise ConfigError(FIXED)
        return self

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"{self.dequantize()!r}, in blocks of {self.blocks.name}"

    def same_numbers(self, other: object) -> bool:
        """Whether `other` has the same numbers."""
        if isinstance(other, BlockWeight) and other.blocks is self.blocks:
            return True
        return isinstance(other, Tensor) and other.shape == self.shape and torch.equal(self, other)

    def __deepcopy__(self, memo: dict[int, Any]) -> BlockWeight:
        """Another parameter on the same blocks, which never change."""
        copied = type(self)(self.blocks)
        memo[id(self)] = copied
        return cast(BlockWeight, _as_parameter(copied)) if isinstance(self, nn.Parameter) else copied

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """A parameter, which is pickled with its model, is so as its blocks; a tensor of a state dict as its numbers,
        which torch.load reads without trusting the file.
        """
        if isinstance(self, nn.Parameter):
            return _parameter_of, (self.blocks,)
        return self.dequantize().__reduce_ex__(protocol)  # type: ignore[no-any-return]


def _parameter_of(blocks: Blocks) -> nn.Parameter:
    return _as_parameter(BlockWeight(blocks))


def _as_parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _holds(x: object) -> bool:
    return any(map(_holds, x)) if isinstance(x, (list, tuple)) else isinstance(x, BlockWeight)


def _changes(name: str) -> bool:
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
    return name.endswith("_")


def _as_it_is(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    with without_torch_function():
        return func(*args, **kwargs)


def _plain(x: Any) -> Any:
    if isinstance(x, BlockWeight):
        return x.dequantize()
    return type(x)(map(_plain, x)) if isinstance(x, (list, tuple)) else x


def in_blocks(parameter: object) -> bool:
    """Whether a layer's parameter is such a weight."""
    return type(parameter) is BlockWeight


def blocks_of(layers: Sequence[Any]) -> list[Blocks]:
    """Where the weights of layers lie, all of them in blocks, of the same inputs."""
    return [layer._parameters["weight"].blocks for layer in layers]


def native_part(blocks: StoredBlocks | Int8Tiles) -> native.Part:
    """The blocks as the kernels read them: their classes have looked at what they take for granted."""
    where = at(blocks.data, torch.uint8, tuple(blocks.data.shape), 1, True)
    if isinstance(blocks, Int8Tiles):
        return native.Part(where, blocks.n, blocks.data.stride(0), 0, native.INT8_TILES)
    return native.Part(where, blocks.n, blocks.data.stride(0), blocks.half, blocks.kind)

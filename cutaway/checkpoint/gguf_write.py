"""Writing GGUF: a checkpoint's tensors under ggml's names, one after another, and a config's fields as metadata.

The way back of `checkpoint/gguf.py`: what the converters change, such as the order of rows in Llama's query and key
matrices, is changed here. Names, fields and recipes are llama.cpp's (gguf-py/gguf/constants.py, tools/quantize).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cutaway.checkpoint.block_quantize import TYPES, quantize
from cutaway.checkpoint.gguf_blocks import BLOCKS
from cutaway.checkpoint.gguf_names import DIALECTS, Dialect, layer_of
from cutaway.errors import CheckpointError, ConfigError, InputError, MissingExtraError, nearest
from cutaway.jsonfile import write_aside

if TYPE_CHECKING:
    import numpy as np
    import torch

# a family that ggml reads as another one: its numbers are the same
_READ_AS = {"mistral": "llama"}
_COARSER = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # for rows that are no whole blocks of 256, as llama.cpp's
_FILE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16,
    "q5_k_m": 17, "q6_k": 18, "bf16": 32,
}  # fmt: skip
FORMATS = tuple(sorted(_FILE_TYPES))


class Tensors(Protocol):
    """What is written: tensors by published name."""

    def names(self) -> list[str]:
        """Their names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one, without reading it."""

    def read(self, name: str) -> torch.Tensor:
        """One of them."""


@dataclass(frozen=True)
class Heads:
    """Query and key/value heads, of which the order of rows depends."""

    query: int
    key: int


def dialect_for(model_type: str) -> str:
    """The `general.architecture` under which a family is written; ConfigError for one that GGUF has no form of here."""
    wanted = _READ_AS.get(model_type, model_type)
    for name, dialect in DIALECTS.items():
        if dialect.model_type == wanted:
            return name
    known = sorted({*(d.model_type for d in DIALECTS.values()), *_READ_AS})
    raise ConfigError(
        f"model_type is {model_type!r}; GGUF is written of {', '.join(known)}.{nearest(model_type, known)}"
    )


def check_format(name: str) -> str:
    """The format in small letters; InputError for an unknown one."""
    if not isinstance(name, str) or name.lower() not in _FILE_TYPES:
        raise InputError(f"quantize is {name!r}; known are {', '.join(FORMATS)}.")
    return name.lower()


def tensor_type(form: str, layer: str, block: int, n_blocks: int, width: int) -> str:
    """The type of a matrix in a file of this format.

    The recipes with M give value and second feed-forward matrices of the first and last eighth of the blocks, and of
    every third between them, 6 bits instead of 4 or 5; the output has 6 bits in each format of fewer.
    """
    name, _, variant = form.upper().partition("_K")
    found = f"{name}_K" if "_K" in form.upper() else form.upper()
    if layer == "output" and found.startswith(("Q4_", "Q5_")):
        found = "Q6_K"
    elif variant == "_M" and layer in ("attn_v", "ffn_down", "ffn_down_exps"):
        eighth = n_blocks // 8
        if block < eighth or block >= 7 * eighth or (block - eighth) % 3 == 2:
            found = "Q6_K"
    if width % BLOCKS[TYPES[found]][0]:
        found = _COARSER.get(found, "F16")
    if width % BLOCKS[TYPES[found]][0]:
        found = "F16"
    return found


class PublishedTensors:
    """The tensors of a model in ggml's names and order of rows."""

    def __init__(self, tensors: Tensors, dialect: Dialect, heads: Heads, tied: bool) -> None:
        self._tensors, self._dialect, self._heads = tensors, dialect, heads
        tops = {published: stored for stored, published in dialect.top.items()}
        names = [name.rpartition(".")[0] for name in tensors.names()]
        there = (
            stored
            for stored, named in dialect.instead.items()
            if any(name.endswith(f".{named[stored]}") for name in names)
        )
        layers = {published: stored for stored, published in dialect.names_in(there).items()}
        self._experts: dict[str, dict[int, str]] = {}  # ggml's name -> {expert: the published one}
        before, after = dialect.blocks.split("{i}")
        pattern = re.compile(re.escape(before) + r"(\d{1,5})" + re.escape(after) + r"(.+)\.(weight|bias)")
        self.stored: dict[str, str] = {}  # ggml's name -> the published one
        self.n_blocks = 0
        for name in tensors.names():
            layer, _, leaf = name.rpartition(".")
            if layer in tops and leaf in ("weight", "bias"):
                if tied and name == dialect.output:
                    continue
                self.stored[f"{tops[layer]}.{leaf}"] = name
            elif (found := pattern.fullmatch(name)) is not None and found[2] in layers:
                self.stored[f"blk.{found[1]}.{layers[found[2]]}.{found[3]}"] = name
                self.n_blocks = max(self.n_blocks, int(found[1]) + 1)
            elif found is not None and (e := re.search(r"\.experts\.(\d{1,4})\.", found[2])) is not None:
                together = layers.get(found[2].replace(e[0], ".experts.{e}."))
                if together is None:
                    raise CheckpointError(f"The tensor {name[:80]!r} has no place in GGUF of {dialect.model_type}.")
                stored = f"blk.{found[1]}.{together}.{found[3]}"
                self.stored.setdefault(stored, name)
                self._experts.setdefault(stored, {})[int(e[1])] = name
                self.n_blocks = max(self.n_blocks, int(found[1]) + 1)
            elif not name.endswith((".inv_freq", ".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")):
                raise CheckpointError(f"The tensor {name[:80]!r} has no place in GGUF of {dialect.model_type}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def shape(self, stored: str) -> tuple[int, ...]:
        """The shape as it is written, each output a row."""
        shape = tuple(self._tensors.shape(self.stored[stored]))
        if stored in self._experts:
            return (len(self._experts[stored]), *shape)
        return shape[::-1] if len(shape) == 2 and layer_of(stored) in self._dialect.turned else shape

    def read(self, stored: str) -> torch.Tensor:
        """The numbers as they are written, float32."""
        import torch

        if stored in self._experts:
            of_each = self._experts[stored]
            return torch.stack([self._tensors.read(of_each[e]).detach().to(torch.float32) for e in sorted(of_each)])
        tensor = self._tensors.read(self.stored[stored]).detach().to(torch.float32)
        layer, dialect = layer_of(stored), self._dialect
        if dialect.norm_offset and layer.endswith("_norm"):
            tensor = tensor + dialect.norm_offset
        if layer in dialect.turned and tensor.dim() == 2:
            tensor = tensor.T.contiguous()
        shape = tensor.shape
        if layer == dialect.per_head:
            groups = self._heads.key if dialect.grouped else self._heads.query
            of_group = self._heads.query // groups  # heads of queries
            size = shape[0] // groups // (of_group + 2)
            by_group = tensor.reshape(groups, shape[0] // groups, -1)  # [groups, rows, in]: each group's q, k, v
            parts = by_group.split([of_group * size, size, size], 1)
            return torch.cat([part.reshape(-1, by_group.shape[2]) for part in parts]).reshape(
                shape
            )  # all q, all k, all v
        if layer in dialect.rotated:
            heads = self._heads.key if layer == "attn_k" else self._heads.query
            halves = tensor.reshape(heads, 2, shape[0] // heads // 2, -1)  # [heads, 2, d/2, in]: first, second halves
            return halves.transpose(1, 2).reshape(shape)  # [heads * d, in]: neighbours, which GGUF rotates
        return tensor


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, object],
    tensors: PublishedTensors,
    form: str,
    extra: Mapping[str, torch.Tensor],
) -> None:
    """Write the file, whole or not at all; a tensor is read, quantized and written before the next one.

    Args:
        metadata: keys with the architecture's name before them, and tokenizer keys.
        form: one of `FORMATS`, for matrices; vectors and `extra` are float32.

    Raises:
        MissingExtraError: the package `gguf` is missing.
        CheckpointError: a matrix holds numbers that the format cannot.
    """
    try:
        from gguf import GGUFWriter
        from gguf.constants import GGMLQuantizationType
    except ImportError as e:
        raise MissingExtraError("Writing GGUF needs the package `gguf`: pip install 'cutaway[gguf]'.") from e
    types = {name: _type_of(tensors, name, form) for name in tensors}

    def write(aside: Path) -> None:
        writer = GGUFWriter(aside, architecture)
        writer.add_file_type(_FILE_TYPES[form])
        if form not in ("f32", "f16", "bf16"):
            writer.add_quantization_version(2)
        for key, value in metadata.items():
            _add(writer, key, value)
        for name, kind in types.items():
            _declare(writer, name, tensors.shape(name), kind, GGMLQuantizationType)
        for name, tensor in extra.items():
            _declare(writer, name, tuple(tensor.shape), "F32", GGMLQuantizationType)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, kind in types.items():
            writer.write_tensor_data(_bytes_of(tensors.read(name), kind))
        for tensor in extra.values():
            writer.write_tensor_data(_bytes_of(tensor, "F32"))
        writer.close()

    write_aside(path, write)


def _type_of(tensors: PublishedTensors, name: str, form: str) -> str:
    shape, layer = tensors.shape(name), layer_of(name)
    if len(shape) < 2 or layer.endswith("_norm") or layer in ("position_embd", "ffn_gate_inp"):
        return "F32"
    if layer == "token_embd" and "output.weight" not in tensors.stored:
        layer = "output"  # one matrix is both
    found = re.match(r"blk\.(\d+)\.", name)
    return tensor_type(form, layer, int(found[1]) if found else 0, tensors.n_blocks, shape[-1])


def _declare(writer: object, name: str, shape: tuple[int, ...], kind: str, types: object) -> None:
    import numpy as np

    per_block, size = BLOCKS[TYPES[kind]]
    n_bytes = math.prod(shape) // per_block * size
    raw = None if kind in ("F32", "F16") else types[kind]  # type: ignore[index]
    if raw is None:
        dtype = np.dtype(np.float32 if kind == "F32" else np.float16)
        writer.add_tensor_info(name, shape, dtype, n_bytes)  # type: ignore[attr-defined]
    else:
        rows = (*shape[:-1], shape[-1] // per_block * size)
        writer.add_tensor_info(name, rows, np.dtype(np.uint8), n_bytes, raw_dtype=raw)  # type: ignore[attr-defined]


def _bytes_of(tensor: torch.Tensor, kind: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The numbers as numpy in the file's form."""
    import numpy as np
    import torch

    if kind == "F32":
        return np.ascontiguousarray(tensor.to(torch.float32).numpy())
    if kind == "F16":
        half = tensor.to(torch.float16)
        if not bool(torch.isfinite(half).all()):
            raise CheckpointError("A matrix with NaN, infinity or numbers of 65,504 and more cannot be stored as F16.")
        return np.ascontiguousarray(half.numpy())
    flat = tensor.reshape(-1, tensor.shape[-1])  # [rows, k]
    return quantize(flat, kind).data.numpy()


def _add(writer: object, key: str, value: object) -> None:
    """A metadata value by its Python type."""
    methods = {str: "add_string", bool: "add_bool", int: "add_uint32", float: "add_float32"}
    if isinstance(value, list):
        writer.add_array(key, value)  # type: ignore[attr-defined]
    else:
        getattr(writer, methods[type(value)])(key, value)

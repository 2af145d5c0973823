"""GGUF: one file with configuration, tokenizer and (quantized) weights, read in the terms of config.json.

Tensors get their published names, are dequantized through the `gguf` package when they are read, and are float32. What
the converters changed, such as the order of rows in Llama's query and key matrices, is put back.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cutaway.checkpoint.field_checks import shown_value
from cutaway.checkpoint.field_table import FieldTable, only
from cutaway.checkpoint.gguf_blocks import BLOCKS, StoredBlocks, dequantized_rows, type_name
from cutaway.checkpoint.gguf_header import Header, Stored, read_header
from cutaway.checkpoint.gguf_names import DIALECTS, Dialect, layer_of
from cutaway.errors import CheckpointError, nearest

if TYPE_CHECKING:
    import numpy as np
    import torch

# no weights of the model: the scalings of Llama 3 and LongRoPE, one factor per frequency
_ROTARY_FACTORS = "rope_freqs.weight"
_LONG_FACTORS = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
_NO_WEIGHTS = {_ROTARY_FACTORS, *_LONG_FACTORS.values()}
_TOKENS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding", "unk_token_id": "unknown"}


_ROPE = (
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
)  # fmt: skip
_SCALES = ("logit_scale", "residual_scale", "embedding_scale", "attention.output_scale", "attention.temperature_scale")


def metadata_table(dialect: Dialect) -> FieldTable:
    """What each metadata key of a family does, without the family's name before it (`general.` keys are notes)."""
    groups = {"attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window"}
    used = {
        *dialect.fields.values(),
        *dialect.optional.values(),
        "attention.head_count",
        *((groups | {*_ROPE}) if dialect.groups else ()),
    }
    harmless = {
        "vocab_size": "the table of tokens says it",
        "tensor_data_layout": "the tensors say it",
        "rope.scaling.finetuned": "a note on how the model was trained",
        "decoder_start_token_id": "there is no encoder",
    }
    if not dialect.groups:  # each head has its own keys, and positions are learned
        same = "it is what the heads already say"
        harmless |= dict.fromkeys(("attention.head_count_kv", "attention.key_length", "attention.value_length"), same)
        harmless["rope.dimension_count"] = "no positions are rotary"
        unread = {"context_length", "feed_forward_length"} - used
        harmless |= dict.fromkeys(unread, "the family has no such bound, or the tensors say it")
    refused = {
        **dict.fromkeys(_SCALES, only(None, 0.0, 1.0)),
        **dict.fromkeys(
            (
                "expert_count", "expert_used_count", "expert_shared_count", "leading_dense_block_count",
                "attention.max_alibi_bias", "attention.clamp_kqv", "attn_logit_softcapping", "final_logit_softcapping",
                "attention.shared_kv_layers", "nextn_predict_layers", "rope.scaling.yarn_log_multiplier",
                "swiglu_clamp_exp", "attention.sliding_window_pattern", "rope.dimension_sections",
            ),
            only(None, 0, 0.0, False),
        ),
        "expert_weights_norm": only(None, bool(dialect.fixed.get("norm_topk_prob"))),
        "expert_weights_scale": only(None, 0.0, 1.0),
        "expert_gating_func": only(None, 0, 1),  # 1 is a softmax over all experts
        "attention.causal": only(None, True),
        "attention.scale": only(None, 0.0),
        "rope.scaling.alpha": only(None, 0.0, 1.0),
        "rope.scaling.yarn_ext_factor": only(None, -1.0, 1.0),
        "rope.scaling.yarn_attn_factor": only(None, 1.0),
        "rope.scaling.yarn_beta_fast": only(None, 32.0),
        "rope.scaling.yarn_beta_slow": only(None, 1.0),
        **({} if "use_parallel_residual" in used else {"use_parallel_residual": only(None, False)}),
    }  # fmt: skip
    refused = {name: allowed for name, allowed in refused.items() if name not in used}
    return FieldTable("GGUF metadata", frozenset(used), harmless, refused)


class GGUF(NamedTuple):
    """A read file: config.json's fields, the tensors by published name, and the raw tokenizer.* metadata."""

    config: dict[str, Any]
    tensors: GGUFTensors
    tokenizer: dict[str, Any]


def read_gguf(path: str | os.PathLike[str]) -> GGUF:
    """Read the header of a GGUF file; tensors are read when they are asked for.

    CheckpointError for a family that is not known or a damaged file.
    """
    path = Path(path)
    return described(path, read_header(path), GGUFTensors)


def described(path: Path, header: Header, tensors_class: type[GGUFTensors]) -> GGUF:
    """What a header says, with `tensors_class` for the tensors; errors are those of `read_gguf`."""
    family = header.metadata.get("general.architecture")
    if not isinstance(family, str) or family not in DIALECTS:
        raise CheckpointError(
            f"{path}: general.architecture is {str(family)[:40]!r}; cutaway reads GGUF of {', '.join(DIALECTS)}."
        )
    _check_metadata(path, header, family)
    heads, kv_heads = _heads(path, header, family)
    tensors = tensors_class(path, header, DIALECTS[family], heads, kv_heads)
    tokenizer = {key: value for key, value in header.metadata.items() if key.startswith("tokenizer.")}
    return GGUF(_config(path, header, family, kv_heads, tensors), tensors, tokenizer)


def _check_metadata(path: Path, header: Header, family: str) -> None:
    front = f"{family}."
    own = {key.removeprefix(front): value for key, value in header.metadata.items() if key.startswith(front)}
    metadata_table(DIALECTS[family]).check(own, CheckpointError, f"{path}: metadata of {family}")
    if (parts := header.metadata.get("split.count")) not in (None, 0, 1):
        raise CheckpointError(
            f"{path}: split.count is {shown_value(parts)}: this is a part of a model; join the parts "
            "(gguf-split --merge)."
        )


def _heads(path: Path, header: Header, family: str) -> tuple[int, int]:
    heads = header.metadata.get(f"{family}.attention.head_count")
    kv_heads = header.metadata.get(f"{family}.attention.head_count_kv", heads)
    for name, value in (("head_count", heads), ("head_count_kv", kv_heads)):
        if not isinstance(value, int) or not 1 <= value <= 4096:
            raise CheckpointError(
                f"{path}: {family}.attention.{name} is {str(value)[:40]}; give a number from 1 to 4,096."
            )
    return int(heads or 0), int(kv_heads or 0)


def _config(path: Path, header: Header, family: str, kv_heads: int, tensors: GGUFTensors) -> dict[str, Any]:
    metadata, dialect = header.metadata, DIALECTS[family]
    config: dict[str, Any] = {"architectures": [dialect.model], "model_type": dialect.model_type, **dialect.fixed}
    for name, key in dialect.fields.items():
        if f"{family}.{key}" not in metadata:
            raise CheckpointError(f"{path} has no {family}.{key} in its metadata, which {name} is read from.")
        config[name] = metadata[f"{family}.{key}"]
    for name, key in dialect.optional.items():
        if f"{family}.{key}" in metadata:
            config[name] = metadata[f"{family}.{key}"]
    names = set(tensors.names())
    config["vocab_size"] = tensors.shape(dialect.tokens)[0]
    config["tie_word_embeddings"] = dialect.output not in names
    for name, layer in dialect.biases.items():
        config[name] = f"{dialect.blocks.format(i=0)}{layer}.bias" in names
    for name, layer in dialect.layers.items():
        config[name] = f"{dialect.blocks.format(i=0)}{layer}.weight" in names
    for name, key in _TOKENS.items():
        if f"tokenizer.ggml.{key}_token_id" in metadata:
            config[name] = metadata[f"tokenizer.ggml.{key}_token_id"]
    if dialect.groups:
        config["num_key_value_heads"] = kv_heads
        _rotary(path, header, family, config, tensors)
    config |= dialect.derived(config)
    named = {dialect.renamed.get(name, name): value for name, value in config.items()}
    return {name: value for name, value in named.items() if name}


def _rotary(path: Path, header: Header, family: str, config: dict[str, Any], tensors: GGUFTensors) -> None:
    """Sizes of heads, rotary positions and windows."""
    metadata, partial = header.metadata, DIALECTS[family].partial
    width = config["hidden_size"] if isinstance(config["hidden_size"], int) else 0
    size = metadata.get(f"{family}.attention.key_length", width // config["num_attention_heads"])
    rotated = metadata.get(f"{family}.rope.dimension_count", size)
    values = metadata.get(f"{family}.attention.value_length", size)
    if values != size or (rotated != size and not (partial and isinstance(rotated, int) and 0 < rotated < size)):
        raise CheckpointError(f"{path}: heads of {size} with {rotated} rotated dimensions or other values: not built.")
    config["head_dim"] = size
    if partial:
        config["partial_rotary_factor"] = (
            rotated / size if isinstance(size, int) and size and isinstance(rotated, int) else 1.0
        )
    config["rope_theta"] = metadata.get(f"{family}.rope.freq_base", DIALECTS[family].theta)
    config["rope_scaling"] = _scaling(path, header, family, config, tensors)
    if window := metadata.get(f"{family}.attention.sliding_window"):
        config["sliding_window"] = window


def _scaling(
    path: Path, header: Header, family: str, config: dict[str, Any], tensors: GGUFTensors
) -> dict[str, Any] | None:
    metadata = header.metadata
    original = metadata.get(f"{family}.rope.scaling.original_context_length")
    if _ROTARY_FACTORS in header.tensors:
        factors = tensors.stored(_ROTARY_FACTORS).ravel().tolist()
        return _llama3(path, factors, config["rope_theta"])
    if all(name in header.tensors for name in _LONG_FACTORS.values()):
        found = {name: tensors.stored(stored).ravel().tolist() for name, stored in _LONG_FACTORS.items()}
        given = {
            "original_max_position_embeddings": original,
            "attention_factor": metadata.get(f"{family}.rope.scaling.attn_factor"),
        }
        return {"rope_type": "longrope", **found, **{k: v for k, v in given.items() if v}}
    kind = metadata.get(f"{family}.rope.scaling.type", "none")
    factor = metadata.get(f"{family}.rope.scaling.factor")
    if kind == "none" or factor in (None, 0.0, 1.0):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        scaling = {"rope_type": "yarn", "factor": factor}
        return scaling | ({"original_max_position_embeddings": original} if original else {})
    raise CheckpointError(f"{path}: {family}.rope.scaling.type is {str(kind)[:40]!r}; known are none, linear and yarn.")


def _llama3(path: Path, factors: list[float], theta: object) -> dict[str, Any]:
    """The "llama3" scaling whose factors these are.

    Llama 3 divides the frequency of wavelength w by f, where 1/f = (1 - s)/F + s and s = (L/w - 1)/(h - 1), kept in
    [0, 1], for the original length L, the factor F and the high-frequency factor h (the low one is 1: another choice
    gives the same functions). s is linear in 1/w, so two frequencies between the ends give L and h; all must agree.
    """
    half = len(factors)
    if not isinstance(theta, float) or not 1 < theta < 1e12 or not all(0.999 < f < 1e6 for f in factors):
        raise CheckpointError(f"{path}: {_ROTARY_FACTORS} holds {factors[:4]} ..., which are no rotary factors.")
    frequencies = [theta ** (-i / half) / (2 * math.pi) for i in range(half)]  # 1/w
    largest = max(factors)
    if largest < 1.001:
        return {"rope_type": "default"}
    smooth = [(1 / f - 1 / largest) / (1 - 1 / largest) for f in factors]
    between = [(v, s) for v, s in zip(frequencies, smooth, strict=True) if 1e-3 < s < 1 - 1e-3]
    first = next(v for v, s in zip(frequencies, smooth, strict=True) if s < 1e-3)
    tries = [(4.0, (3 * s + 1) / v) for v, s in between] or [(4.0, 1 / first)]  # h is 4 in every published model
    if len(between) >= 2:
        (v1, s1), (v2, s2) = between[0], between[-1]
        slope = (s1 - s2) / (v1 - v2)
        offset = slope * v1 - s1  # s = slope / w - offset = (L/w - 1) / (h - 1)
        if offset > 0:
            tries.append((1 + 1 / offset, slope / offset))
    for high, length in tries:
        original = round(length)
        fitted = [min(max((original * v - 1) / (high - 1), 0.0), 1.0) for v in frequencies]
        if all(abs(a - b) < 1e-3 for a, b in zip(fitted, smooth, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": largest,
                "low_freq_factor": 1.0,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    raise CheckpointError(f"{path}: {_ROTARY_FACTORS} is no scaling of Llama 3's kind, the only one that is read.")


class GGUFTensors:
    """The weights by their published names; each is dequantized to float32 when it is read."""

    metadata: Mapping[str, str] = {}

    def __init__(self, path: Path, header: Header, dialect: Dialect, heads: int, kv_heads: int) -> None:
        self.path = path
        self._header, self._dialect, self._heads = header, dialect, heads
        self._names: dict[str, str] = {}
        self._rotated: dict[str, int] = {}  # the matrices whose rows are in GGUF's order -> heads
        self._groups = kv_heads if dialect.grouped else heads
        self._experts: dict[str, int] = {}  # matrices that lie with others in one tensor -> which of them
        self._block = dialect.names_in(layer_of(stored) for stored in header.tensors)
        self._file: Any = None
        for stored in header.tensors:
            if stored in _NO_WEIGHTS:
                continue
            name = self._name(stored)
            layer = layer_of(stored)
            if "{e}" in name:
                self._take_experts(name, stored)
                continue
            self._names[name] = stored
            if layer in dialect.rotated or layer == dialect.per_head:
                count = kv_heads if layer == "attn_k" else heads
                rows, unit = header.tensors[stored].shape[0], 2 * count
                if layer == dialect.per_head:
                    unit = heads + 2 * self._groups
                if rows % unit or heads % self._groups:
                    raise CheckpointError(f"{path}: {stored!r} has {rows} rows for {count} heads.")
                if layer in dialect.rotated:
                    self._rotated[name] = count
        if dialect.tokens not in self._names:
            raise CheckpointError(f"{path} has no token_embd.weight: it is no whole model.")

    def _take_experts(self, name: str, stored: str) -> None:
        """Note each expert's matrix of a tensor [experts, out, in]."""
        shape = self._header.tensors[stored].shape
        if len(shape) != 3 or shape[0] > 4096:
            raise CheckpointError(
                f"{self.path}: {stored!r} has shape {list(shape)}; up to 4,096 experts [experts, out, in] are known."
            )
        for e in range(shape[0]):
            self._names[name.replace("{e}", str(e))] = stored
            self._experts[name.replace("{e}", str(e))] = e

    def _name(self, stored: str) -> str:
        dialect = self._dialect
        outside = re.fullmatch(r"(\w+)\.(weight|bias)", stored)
        if outside is not None and outside[1] in dialect.top:
            return f"{dialect.top[outside[1]]}.{outside[2]}"
        found = re.fullmatch(r"blk\.(\d{1,5})\.(\w+)\.(weight|bias)", stored)
        if found is None or found[2] not in self._block:
            raise CheckpointError(
                f"{self.path}: the tensor {stored[:80]!r} is no part of "
                f"{'such' if 'ffn_gate_inp' in self._block else 'a dense'} {dialect.model_type} model."
            )
        return f"{dialect.blocks.format(i=found[1])}{self._block[found[2]]}.{found[3]}"

    def names(self) -> list[str]:
        """The published names, in the file's order."""
        return list(self._names)

    def _stored(self, name: str) -> Stored:
        if name not in self._names:
            raise CheckpointError(f"{self.path} has no tensor {name!r}.{nearest(name, self._names)}")
        entry = self._header.tensors[self._names[name]]
        if name not in self._experts:
            return entry
        size, e = (entry.end - entry.begin) // entry.shape[0], self._experts[name]
        return replace(entry, shape=entry.shape[1:], begin=entry.begin + e * size, end=entry.begin + (e + 1) * size)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        stored = self._stored(name).shape
        return stored[::-1] if layer_of(self._names[name]) in self._dialect.turned else stored

    def dtype(self, name: str) -> torch.dtype:
        """float32, which `read` gives."""
        import torch

        self._stored(name)
        return torch.float32

    def read(self, name: str) -> torch.Tensor:
        """The tensor in float32, as it was published."""
        import torch

        tensor = torch.from_numpy(self._values(self._names[name], self._stored(name)))
        layer = layer_of(self._names[name])
        if self._dialect.norm_offset and layer.endswith("_norm"):
            tensor = tensor - self._dialect.norm_offset
        if layer in self._dialect.turned and tensor.dim() == 2:
            tensor = tensor.T.contiguous()
        shape = tensor.shape
        if layer == self._dialect.per_head:
            n, groups = self._heads, self._groups
            size = shape[0] // (n + 2 * groups)
            parts = tensor.reshape(shape[0], -1).split([n * size, groups * size, groups * size])  # q, k, v
            by_group = [part.reshape(groups, -1, part.shape[1]) for part in parts]  # each [groups, rows, in]
            return torch.cat(by_group, 1).reshape(shape)  # [groups * rows, in]: each group's q, k, v
        heads = self._rotated.get(name)
        if heads is None:
            return tensor
        pairs = tensor.reshape(heads, shape[0] // heads // 2, 2, -1)  # [heads, d/2, 2, in]: GGUF rotates neighbours
        return pairs.transpose(1, 2).reshape(shape)  # [heads * d, in]: first halves, then second halves

    def blocks(self, name: str) -> StoredBlocks | None:
        """A matrix as it lies in the file, each output a row; None for what is none, or of a type that is not read."""
        import torch

        entry = self._stored(name)
        if len(entry.shape) != 2 or entry.kind not in BLOCKS:
            return None
        layer, kind = layer_of(self._names[name]), type_name(entry.kind)
        if layer in self._dialect.top and layer not in ("token_embd", "output"):  # positions
            return None
        if layer.endswith("_norm"):
            return None
        heads, (n, k) = self._rotated.get(name, 0), entry.shape
        data = torch.from_numpy(self._bytes(entry)).view(n, -1)
        return StoredBlocks(data, entry.kind, kind, k, n // heads // 2 if heads else 0, mapped=True)

    def dequantized_types(self) -> list[str]:
        """The types of matrices that `blocks` cannot give."""
        kinds = {t.kind for name in self._names.values() if len((t := self._header.tensors[name]).shape) > 1}
        return sorted(map(type_name, kinds - set(BLOCKS)))

    def _bytes(self, entry: Stored) -> np.ndarray[Any, np.dtype[np.uint8]]:
        import numpy as np

        if self._file is None:
            self._file = np.memmap(self.path, np.uint8, mode="c")  # private pages: writing never changes the file
        found: np.ndarray[Any, np.dtype[np.uint8]] = self._file[entry.begin : entry.end].view(np.ndarray)
        return found

    def stored(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A tensor under its GGUF name, dequantized, with its rows as stored."""
        return self._values(name, self._header.tensors[name])

    def _values(self, name: str, entry: Stored) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The numbers of a tensor, or of a part of it."""
        import numpy as np

        data = self._bytes(entry)
        if entry.kind == 0:  # F32, which stays the file's
            values = data.view(np.float32)
        else:
            rows = math.prod(entry.shape[:-1])
            try:
                values = dequantized_rows(data.reshape(rows, -1), entry.kind)  # [rows, row bytes] -> [rows, row]
            except NotImplementedError as e:
                raise CheckpointError(
                    f"{self.path}: {name!r} is quantized as {type_name(entry.kind)}, which gguf cannot undo."
                ) from e
        return np.ascontiguousarray(values, np.float32).reshape(entry.shape)

    def close(self) -> None:
        """Close the file; tensors that were read stay valid."""
        self._file = None

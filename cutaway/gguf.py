"""GGUF: one file with configuration, tokenizer and (quantized) weights, read in the terms of config.json.

Tensors get their published names, are dequantized through the `gguf` package when they are read, and are float32. The
rows of Llama's query and key matrices, which GGUF stores in the order of its own rotary embedding, are put back.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cutaway.errors import CheckpointError, nearest
from cutaway.gguf_header import Header, Stored, read_header

if TYPE_CHECKING:
    import numpy as np
    import torch

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROTARY_FACTORS = "rope_freqs.weight"  # no weight of the model: Llama 3's scaling, one factor per frequency
_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_TOKENS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding", "unk_token_id": "unknown"}


class GGUF(NamedTuple):
    """A read file: config.json's fields, the tensors by published name, and the raw tokenizer.* metadata."""

    config: dict[str, Any]
    tensors: GGUFTensors
    tokenizer: dict[str, Any]


def read_gguf(path: str | os.PathLike[str]) -> GGUF:
    """Read the header of a GGUF file of the Llama family; tensors are read when they are asked for.

    CheckpointError for another family or a damaged file, MissingExtraError without the package `gguf`.
    """
    path = Path(path)
    header = read_header(path)
    family = header.metadata.get("general.architecture")
    if family != "llama":
        raise CheckpointError(f"{path}: general.architecture is {str(family)[:40]!r}; cutaway reads GGUF of 'llama'.")
    heads, kv_heads = _heads(path, header)
    tensors = GGUFTensors(path, header, heads, kv_heads)
    tokenizer = {key: value for key, value in header.metadata.items() if key.startswith("tokenizer.")}
    return GGUF(_config(path, header, heads, kv_heads, tensors), tensors, tokenizer)


def _heads(path: Path, header: Header) -> tuple[int, int]:
    heads = header.metadata.get("llama.attention.head_count")
    kv_heads = header.metadata.get("llama.attention.head_count_kv", heads)
    for name, value in (("head_count", heads), ("head_count_kv", kv_heads)):
        if not isinstance(value, int) or not 1 <= value <= 4096:
            raise CheckpointError(
                f"{path}: llama.attention.{name} is {str(value)[:40]}; give a number from 1 to 4,096."
            )
    return int(heads or 0), int(kv_heads or 0)


def _config(path: Path, header: Header, heads: int, kv_heads: int, tensors: GGUFTensors) -> dict[str, Any]:
    metadata = header.metadata
    config: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "model_type": "llama"}
    for field, key in _FIELDS.items():
        if f"llama.{key}" not in metadata:
            raise CheckpointError(f"{path} has no llama.{key} in its metadata, which {field} is read from.")
        config[field] = metadata[f"llama.{key}"]
    config["num_key_value_heads"] = kv_heads
    width = config["hidden_size"] if isinstance(config["hidden_size"], int) else 0
    config["head_dim"] = metadata.get("llama.attention.key_length", width // heads)
    rotated = metadata.get("llama.rope.dimension_count", config["head_dim"])
    if rotated != config["head_dim"] or metadata.get("llama.attention.value_length", rotated) != rotated:
        raise CheckpointError(
            f"{path}: heads of {config['head_dim']} with {rotated} rotated dimensions or other values are not built."
        )
    config["vocab_size"] = tensors.shape("model.embed_tokens.weight")[0]
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors.names()
    config["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in tensors.names()
    config["mlp_bias"] = "model.layers.0.mlp.up_proj.bias" in tensors.names()
    for field, key in _TOKENS.items():
        if f"tokenizer.ggml.{key}_token_id" in metadata:
            config[field] = metadata[f"tokenizer.ggml.{key}_token_id"]
    config["rope_theta"] = metadata.get("llama.rope.freq_base", 10000.0)
    config["rope_scaling"] = _scaling(path, header, config, tensors)
    return config


def _scaling(path: Path, header: Header, config: dict[str, Any], tensors: GGUFTensors) -> dict[str, Any] | None:
    metadata = header.metadata
    if _ROTARY_FACTORS in header.tensors:
        factors = tensors.stored(_ROTARY_FACTORS).ravel().tolist()
        return _llama3(path, factors, config["rope_theta"])
    kind = metadata.get("llama.rope.scaling.type", "none")
    factor = metadata.get("llama.rope.scaling.factor")
    if kind == "none" or factor in (None, 0.0, 1.0):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        scaling = {"rope_type": "yarn", "factor": factor}
        original = metadata.get("llama.rope.scaling.original_context_length")
        return scaling | ({"original_max_position_embeddings": original} if original else {})
    raise CheckpointError(f"{path}: llama.rope.scaling.type is {str(kind)[:40]!r}; known are none, linear and yarn.")


def _llama3(path: Path, factors: list[float], theta: Any) -> dict[str, Any]:
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

    def __init__(self, path: Path, header: Header, heads: int, kv_heads: int) -> None:
        self.path = path
        self._header = header
        self._names: dict[str, str] = {}
        self._rotated: dict[str, int] = {}  # the matrices whose rows are in GGUF's order -> heads
        self._file: Any = None
        for stored in header.tensors:
            if stored == _ROTARY_FACTORS:
                continue
            name = _TOP.get(stored) or self._block_name(stored)
            self._names[name] = stored
            if ".q_proj." in name or ".k_proj." in name:
                self._rotated[name] = heads if ".q_proj." in name else kv_heads
                rows = header.tensors[stored].shape[0]
                if rows % (2 * self._rotated[name]):
                    raise CheckpointError(f"{path}: {stored!r} has {rows} rows for {self._rotated[name]} heads.")
        if "model.embed_tokens.weight" not in self._names:
            raise CheckpointError(f"{path} has no token_embd.weight: it is no whole model.")

    def _block_name(self, stored: str) -> str:
        found = re.fullmatch(r"blk\.(\d{1,5})\.(\w+)\.(weight|bias)", stored)
        if found is None or found[2] not in _BLOCK:
            raise CheckpointError(f"{self.path}: the tensor {stored[:80]!r} is no part of a dense Llama model.")
        return f"model.layers.{found[1]}.{_BLOCK[found[2]]}.{found[3]}"

    def names(self) -> list[str]:
        """The published names, in the file's order."""
        return list(self._names)

    def _stored(self, name: str) -> Stored:
        if name not in self._names:
            raise CheckpointError(f"{self.path} has no tensor {name!r}.{nearest(name, self._names)}")
        return self._header.tensors[self._names[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._stored(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """float32, which `read` gives."""
        import torch

        self._stored(name)
        return torch.float32

    def read(self, name: str) -> torch.Tensor:
        """The tensor in float32, its rows in the published order."""
        import torch

        self._stored(name)
        tensor = torch.from_numpy(self.stored(self._names[name]))
        heads = self._rotated.get(name)
        if heads is None:
            return tensor
        shape = tensor.shape
        pairs = tensor.reshape(heads, shape[0] // heads // 2, 2, -1)  # [heads, d/2, 2, in]: GGUF rotates neighbours
        return pairs.transpose(1, 2).reshape(shape)  # [heads * d, in]: first halves, then second halves

    def stored(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A tensor under its GGUF name, dequantized, with its rows as stored."""
        import numpy as np
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        entry = self._header.tensors[name]
        if self._file is None:
            self._file = np.memmap(self.path, np.uint8, mode="c")  # private pages: writing never changes the file
        kind = GGMLQuantizationType(entry.kind)
        data = self._file[entry.begin : entry.end].view(np.ndarray)
        if kind == GGMLQuantizationType.F32:
            values = data.view(np.float32)
        else:
            rows = math.prod(entry.shape[:-1])
            try:
                values = dequantize(data.reshape(rows, -1), kind)  # [rows, row bytes] -> [rows, row]
            except NotImplementedError as e:
                raise CheckpointError(
                    f"{self.path}: {name!r} is quantized as {kind.name}, which gguf cannot undo."
                ) from e
        return np.ascontiguousarray(values, np.float32).reshape(entry.shape)

    def close(self) -> None:
        """Close the file; tensors that were read stay valid."""
        self._file = None

"""A config's fields as GGUF metadata, with the rotary factors that are stored as tensors.

The way back of what `checkpoint/gguf.py` reads; keys are those of llama.cpp (gguf-py/gguf/constants.py).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cutaway.checkpoint.gguf_names import DIALECTS
from cutaway.config.architecture import Architecture, Rotary, RotaryScaling
from cutaway.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from cutaway.config.config import PretrainedConfig


def metadata_of(
    family: str, config: PretrainedConfig, architecture: Architecture
) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """Metadata by key, and tensors that are no weights by name.

    Raises:
        ConfigError: a field of the config has no place in GGUF of this family.
    """
    dialect, stack = DIALECTS[family], architecture.stack
    metadata: dict[str, object] = {}
    for name, key in dialect.fields.items():
        value = getattr(config, name, None)
        metadata[f"{family}.{key}"] = stack.feed_forward.size if value is None and "feed_forward" in key else value
    for name, key in dialect.optional.items():
        metadata[f"{family}.{key}"] = getattr(config, name, None)
    if not dialect.groups:  # programs want these of every family
        metadata.setdefault(f"{family}.context_length", getattr(config, "seq_length", None) or 2048)
        metadata.setdefault(f"{family}.feed_forward_length", stack.feed_forward.size)
    metadata[f"{family}.attention.head_count"] = stack.attention.n_heads
    extra: dict[str, torch.Tensor] = {}
    if dialect.groups:
        size = stack.attention.head_size
        metadata[f"{family}.attention.head_count_kv"] = stack.attention.n_kv_heads
        metadata[f"{family}.attention.key_length"] = metadata[f"{family}.attention.value_length"] = size
        if window := getattr(config, "sliding_window", None):
            metadata[f"{family}.attention.sliding_window"] = window
        if isinstance(stack.positions, Rotary):
            metadata[f"{family}.rope.dimension_count"] = stack.positions.size
            metadata[f"{family}.rope.freq_base"] = float(stack.positions.theta)
            if stack.positions.scaling is not None:
                more, extra = _scaling(family, stack.positions, stack.positions.scaling)
                metadata |= more
            near = {turns for turns in stack.layer_positions if turns not in (None, stack.positions)}
            for turns in near:
                metadata[f"{family}.rope.freq_base_swa"] = _window_base(family, turns)
    return {key: value for key, value in metadata.items() if value is not None}, extra


def _window_base(family: str, turns: Rotary | None) -> float:
    """The base of the positions that layers with a window have."""
    if turns is None or turns.scaling is not None:
        raise ConfigError(f"Stretched rotary positions in layers with a window have no form in GGUF of {family}.")
    return float(turns.theta)


def _scaling(family: str, rotary: Rotary, scaling: RotaryScaling) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """A stretched rotary embedding as llama.cpp keeps it: metadata, and factors by which frequencies are divided."""
    import torch

    front = f"{family}.rope.scaling."
    if scaling.kind == "linear":
        return {f"{front}type": "linear", f"{front}factor": float(scaling.factor)}, {}
    if scaling.kind == "yarn":
        return {
            f"{front}type": "yarn",
            f"{front}factor": float(scaling.factor),
            f"{front}original_context_length": scaling.original_length,
        }, {}
    if scaling.kind == "longrope":
        tensors = {
            "rope_factors_long.weight": torch.tensor(scaling.long_factors),
            "rope_factors_short.weight": torch.tensor(scaling.short_factors),
        }
        return {
            f"{front}original_context_length": scaling.original_length,
            f"{front}attn_factor": float(scaling.attention_factor or 1.0),
        }, tensors
    if scaling.kind == "llama3":
        return {}, {"rope_freqs.weight": torch.tensor(llama3_factors(rotary, scaling))}
    raise ConfigError(f"Rotary positions of the kind {scaling.kind!r} have no form in GGUF.")


def llama3_factors(rotary: Rotary, scaling: RotaryScaling) -> list[float]:
    """What each frequency is divided by: 1 for short waves, the factor for long ones, and between them

    1 / ((1 - s) / factor + s), where s = (L / wavelength - low) / (high - low), of the original length L
    (Llama 3's `apply_scaling`, Meta, 2024).
    """
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    half = rotary.size // 2
    waves = [2 * math.pi * rotary.theta ** (i / half) for i in range(half)]
    shares = [min(max((scaling.original_length / wave - low) / (high - low), 0.0), 1.0) for wave in waves]
    return [1 / ((1 - s) / scaling.factor + s) for s in shares]

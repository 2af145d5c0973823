"""The published spellings of rotary positions: `rope_parameters`, or `rope_theta` with `rope_scaling`."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from cutaway.checkpoint.field_checks import Bounds, shown_value
from cutaway.config.architecture import Rotary, RotaryScaling
from cutaway.errors import ConfigError
from cutaway.families.rope_table import check_beside, rope_table, theta_of

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

logger = logging.getLogger("cutaway")

_KINDS = {"linear", "dynamic", "llama3", "yarn", "longrope"}


class _Fields(Bounds):
    """A nested table of a config, checked like the config itself."""

    def __init__(self, fields: dict[str, Any], defaults: dict[str, Any]) -> None:
        self._fields = {**defaults, **{k: v for k, v in fields.items() if v is not None}}

    def _required(self, name: str) -> object:
        if name not in self._fields:
            raise ConfigError(f"The rotary parameters have no field {name!r}. It is needed to build the model.")
        return self._fields[name]

    def default(self, name: str, value: float) -> None:
        """Set a field that is not given."""
        self._fields.setdefault(name, value)


def rotary(
    config: PretrainedConfig,
    head_size: int,
    kind_of_layer: str = "",
    base: float = 10_000.0,
    *,
    unscaled: bool = False,
) -> Rotary:
    """The rotary positions that a config asks for.

    Args:
        kind_of_layer: the entry of `rope_parameters` that is read, where each kind of layer has its own.
        base: the theta of a config that gives none. unscaled: `rope_scaling` says nothing of this kind of layer.

    Raises:
        ConfigError: an unknown kind of scaling, or a number out of bounds.
    """
    longest = config.integer("max_position_embeddings", 1, 100_000_000)
    raw = rope_table(config, kind_of_layer, unscaled=unscaled)
    for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        check_beside(config, name, raw.get(name))
    theta = theta_of(config, raw, base)
    kind = raw.get("rope_type", raw.get("type", "default"))
    fields = _Fields(
        raw,
        {
            "rope_theta": theta,
            "rope_type": kind,
            "partial_rotary_factor": getattr(config, "partial_rotary_factor", None) or 1.0,
            "original_max_position_embeddings": getattr(config, "original_max_position_embeddings", None) or longest,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 0.0,
            "mscale_all_dim": 0.0,
            "truncate": True,
        },
    )
    theta = fields.number("rope_theta", 1.0, 1e12)
    size = int(head_size * fields.number("partial_rotary_factor", 0.01, 1.0))
    if size % 2 or not size:
        raise ConfigError(
            f"Rotary positions turn {size} numbers of each head, which must be even and not 0; change head_dim or "
            "partial_rotary_factor."
        )
    if kind in (None, "default"):
        return Rotary(theta, size, longest)
    fields.choice("rope_type", _KINDS)
    # the formulas divide by the logarithms of both
    original = fields.integer("original_max_position_embeddings", 2, 100_000_000)
    fields.number("rope_theta", 1.001, 1e12)
    if kind == "dynamic":
        if size < 4:
            raise ConfigError(f"dynamic rotary positions need 4 numbers of each head, not {size}; change head_dim.")
        if raw.get("original_max_position_embeddings") not in (None, longest):
            logger.warning(
                "original_max_position_embeddings is %s, which has no effect on dynamic rotary positions (nor has it "
                "upstream): they are stretched from max_position_embeddings, %s.",
                shown_value(raw["original_max_position_embeddings"]), longest,
            )  # fmt: skip
        original = longest
    if kind == "longrope":
        fields.default("factor", max(1.0, longest / original))
    low = fields.number("low_freq_factor", 1e-6, 1e6) if kind == "llama3" else 0.0
    high = fields.number("high_freq_factor", 1e-6, 1e6) if kind == "llama3" else 0.0
    if kind == "llama3" and low >= high:
        raise ConfigError(f"high_freq_factor is {high}; it must be more than low_freq_factor, {low}.")
    factor, given = fields.number("factor", 1.0, 1e4), raw.get("attention_factor") is not None
    attention_factor = fields.number("attention_factor", 1e-6, 1e6) if given else None
    if kind == "longrope" and attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original))
    scaling = RotaryScaling(
        kind,
        factor=factor,
        original_length=original,
        low_freq_factor=low,
        high_freq_factor=high,
        beta_fast=fields.number("beta_fast", 1e-6, 1e6),
        beta_slow=fields.number("beta_slow", 1e-6, 1e6),
        truncate=fields.flag("truncate"),
        attention_factor=attention_factor,
        mscale=fields.number("mscale", 0.0, 1e6),
        mscale_all_dim=fields.number("mscale_all_dim", 0.0, 1e6),
        short_factors=_factors(raw, "short_factor", size) if kind == "longrope" else (),
        long_factors=_factors(raw, "long_factor", size) if kind == "longrope" else (),
    )
    # it is for longer texts that frequencies are stretched; dynamic NTK does so for any length
    stretched = max(longest, int(scaling.factor * original))
    return Rotary(theta, size, None if kind == "dynamic" else stretched, scaling)


def _factors(raw: dict[str, Any], name: str, size: int) -> tuple[float, ...]:
    value = raw.get(name)
    if not isinstance(value, list) or len(value) != size // 2 or not all(_is_factor(v) for v in value):
        raise ConfigError(
            f"{name} is {shown_value(value)}; it must be a list of {size // 2} numbers above 0, one for each rotary "
            "frequency."
        )
    return tuple(float(v) for v in value)


def _is_factor(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 1e-6 <= value <= 1e6

"""The published spellings of rotary positions: `rope_parameters`, or `rope_theta` with `rope_scaling`."""

from __future__ import annotations

from typing import Any

from cutaway.architecture import Rotary, RotaryScaling
from cutaway.bounds import Bounds
from cutaway.errors import ConfigError

_KINDS = {"linear", "dynamic", "llama3", "yarn", "longrope"}


class _Fields(Bounds):
    """A nested table of a config, checked like the config itself."""

    def __init__(self, fields: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.__dict__.update({**defaults, **{k: v for k, v in fields.items() if v is not None}})

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the rotary parameters have no field {name!r}.")


def rotary(config: Any, head_size: int) -> Rotary:
    """The rotary positions that a config asks for.

    Raises:
        ConfigError: an unknown kind of scaling, or a number out of bounds.
    """
    longest = config.integer("max_position_embeddings", 1, 100_000_000)
    raw = getattr(config, "rope_parameters", None)
    if raw is None:
        raw = getattr(config, "rope_scaling", None) or {}
    if not isinstance(raw, dict):
        raise ConfigError(f"rope_parameters is {raw!r}; it must be a table such as {{'rope_type': 'default'}}.")
    theta = getattr(config, "rope_theta", None) if raw.get("rope_theta") is None else raw["rope_theta"]
    kind = raw.get("rope_type", raw.get("type", "default"))
    fields = _Fields(
        raw,
        {
            "rope_theta": 10000.0 if theta is None else theta,
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
    base = fields.number("rope_theta", 1.0, 1e12)
    size = int(head_size * fields.number("partial_rotary_factor", 0.01, 1.0))
    if size % 2:
        raise ConfigError(f"rotary positions turn {size} numbers of each head, which must be even; change head_dim.")
    if kind in (None, "default"):
        return Rotary(base, size, longest)
    fields.choice("rope_type", _KINDS)
    original = fields.integer("original_max_position_embeddings", 1, 100_000_000)
    if kind == "longrope" and "factor" not in raw:
        fields.__dict__["factor"] = longest / original
    given = raw.get("attention_factor") is not None
    scaling = RotaryScaling(
        kind,
        factor=fields.number("factor", 1.0, 1e4),
        original_length=original,
        low_freq_factor=fields.number("low_freq_factor", 1e-6, 1e6) if kind == "llama3" else 0.0,
        high_freq_factor=fields.number("high_freq_factor", 1e-6, 1e6) if kind == "llama3" else 0.0,
        beta_fast=fields.number("beta_fast", 1e-6, 1e6),
        beta_slow=fields.number("beta_slow", 1e-6, 1e6),
        truncate=fields.flag("truncate"),
        attention_factor=fields.number("attention_factor", 1e-6, 1e6) if given else None,
        mscale=fields.number("mscale", 0.0, 1e6),
        mscale_all_dim=fields.number("mscale_all_dim", 0.0, 1e6),
        short_factors=_factors(raw, "short_factor", size) if kind == "longrope" else (),
        long_factors=_factors(raw, "long_factor", size) if kind == "longrope" else (),
    )
    return Rotary(base, size, longest, scaling)


def _factors(raw: dict[str, Any], name: str, size: int) -> tuple[float, ...]:
    value = raw.get(name)
    if not isinstance(value, list) or len(value) != size // 2 or not all(isinstance(v, (int, float)) for v in value):
        raise ConfigError(f"{name} must be a list of {size // 2} numbers, one for each rotary frequency.")
    return tuple(float(v) for v in value)

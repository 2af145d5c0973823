"""The table of rotary parameters, which configs have under two names and partly beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cutaway.checkpoint.field_checks import shown_value
from cutaway.errors import ConfigError
from cutaway.families.layer_types import TYPES

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig


def _kind(table: dict[str, Any]) -> Any:
    return table.get("rope_type", table.get("type")) or "default"


def rope_table(config: PretrainedConfig, kind_of_layer: str, *, unscaled: bool = False) -> dict[str, Any]:
    """The table of rotary parameters, from both of its published names.

    `rope_scaling` may stand beside a `rope_parameters` that says nothing of scaling (set on a config that was read from
    a file, for one), or say the same. A contradiction is an error: neither is ignored. `unscaled`: it says nothing of
    this kind of layer.
    """
    new, old = config.stated("rope_parameters") or {}, {} if unscaled else config.stated("rope_scaling") or {}
    for name, value in (("rope_parameters", new), ("rope_scaling", old)):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} is {shown_value(value)}; it must be a table such as {{'rope_type': 'default'}}.")
    if kind_of_layer and new:
        own = new.get(kind_of_layer) or {}
        name = f"rope_parameters[{kind_of_layer!r}]"
        if not isinstance(own, dict):
            raise ConfigError(f"{name} is {shown_value(own)}; it must be a table such as {{'rope_type': 'default'}}.")
        if strange := sorted(map(str, new.keys() - set(TYPES))):
            raise ConfigError(
                f"rope_parameters has {shown_value(strange[0])}; this family has an entry for each kind of layer, of "
                f"{[*TYPES]}, and each holds its own table."
            )
        new = own
    if not new or not old:
        return dict(new or old)
    scaled = _kind(new) != "default"
    for key in ("rope_type", *sorted(map(str, old.keys() & new.keys() - {"rope_type", "type"}))):
        a, b = (_kind(new), _kind(old)) if key == "rope_type" else (new[key], old[key])
        if a != b and None not in (a, b) and (scaled or key != "rope_type"):
            raise ConfigError(
                f"rope_scaling says {key} = {shown_value(b)} and rope_parameters, beside it, {shown_value(a)}; give it "
                "once, or set the other to None."
            )
    merged = {k: v for k, v in new.items() if k not in ("rope_type", "type")}
    return merged | {k: v for k, v in old.items() if v is not None}


def theta_of(config: PretrainedConfig, table: dict[str, Any], base: float) -> object:
    """The base of the frequencies: the table's, the config's own, or the family's `base`."""
    inner = table.get("rope_theta")
    theta = config.stated("rope_theta") if inner is None else inner
    return base if theta is None else theta


def share_of(config: PretrainedConfig, table: dict[str, Any], share: float | None) -> object:
    """The part of a head that is turned: the table's, the config's own, or the family's `share`."""
    inner = table.get("partial_rotary_factor")
    return config.stated("partial_rotary_factor", share) if inner is None else inner


def derived_rope(base: float = 10_000.0, share: float | None = None) -> dict[str, Callable[[PretrainedConfig], object]]:
    """`rope_parameters`, `rope_scaling` and `rope_theta` of a config that says them in another way, or not at all.

    Args:
        base: the family's theta. share: its `partial_rotary_factor`, where the table names one.
    """

    def table(config: PretrainedConfig) -> object:
        given = rope_table(config, "")
        said = {k: v for k, v in given.items() if k != "type"}
        said |= {"rope_theta": theta_of(config, given, base), "rope_type": _kind(given)}
        part = config.stated("partial_rotary_factor", share)
        return said if part is None else {"partial_rotary_factor": part, **said}

    return {
        "rope_parameters": table,
        "rope_scaling": lambda config: config.rope_parameters,
        "rope_theta": lambda config: theta_of(config, rope_table(config, ""), base),
    }


def derived_ropes(
    bases: Mapping[str, tuple[str, float]], unscaled: tuple[str, ...] = ()
) -> dict[str, Callable[[PretrainedConfig], object]]:
    """As `derived_rope`, where each kind of layer has a table of its own.

    Args:
        bases: {kind of layer: (the field that holds its theta, the family's theta)}.
        unscaled: the kinds of which `rope_scaling` says nothing.
    """

    def tables(config: PretrainedConfig) -> object:
        given = rope_table(config, "")
        found = {}
        for kind, (field, base) in bases.items():
            own = {} if kind in unscaled else {k: v for k, v in given.items() if k != "type"}
            theta = config.stated(field, base) if own.get("rope_theta") is None else own["rope_theta"]
            found[kind] = {**own, "rope_type": _kind(own and given), "rope_theta": theta}
        return found

    return {"rope_parameters": tables, "rope_scaling": lambda config: config.rope_parameters}


def check_beside(config: PretrainedConfig, name: str, inner: object) -> None:
    """ConfigError where a field of the config says otherwise than the table's own; a family's default says nothing."""
    outer = config.stated(name)
    if inner is None or outer is None or outer == inner:
        return
    published = type(config).attribute_map.get(name, name)
    if outer != type(config).defaults.get(published):
        raise ConfigError(
            f"{published} is {shown_value(outer)}, but the table of rotary parameters says {name} = "
            f"{shown_value(inner)}; give it once, or set {published} to None."
        )

"""The number of layers in a config, after a list of blocks was cut or grown."""

from __future__ import annotations

import logging
from copy import deepcopy

from cutaway.config.architecture import Architecture
from cutaway.config.architecture import Stack as StackSpec
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError
from cutaway.models.family import Family

log = logging.getLogger("cutaway")


# published fields that may say how many layers there are, and what of a stack is said for each layer
DEPTH_FIELDS = (
    "num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers", "num_decoder_layers", "decoder_layers",
)  # fmt: skip


LAYER_FIELDS = ("n_layers", "windows", "layer_positions", "layer_scales")


def note_depth(family: Family, config: PretrainedConfig, built: Architecture) -> None:
    """Where a list of blocks was cut or grown, set the config's number of layers, or say that it is to be set.

    It is set where one published field says how many there are, and the config then describes the blocks that are
    left: with layers of several kinds (sliding windows) it may not.
    """
    sides = (("stack", "blocks"), ("decoder", "blocks of the decoder"))
    for side, what in sides:
        here = getattr(family.architecture(config), side)
        there = getattr(built, side)
        if here is None or there is None or there.n_layers == here.n_layers:
            continue
        field = _depth_field(family, config, side, here.n_layers, there)
        if field is None:
            log.warning(
                "the model has %d %s, and its config says %d: set that number (num_hidden_layers, in some "
                "families num_layers, n_layer or n_layers) before what is saved is loaded again.",
                there.n_layers, what, here.n_layers,
            )  # fmt: skip
        else:
            setattr(config, field, there.n_layers)
            log.warning(
                "the model has %d %s, and its config says %d: its %s is %d from now on, and in what is saved.",
                there.n_layers, what, here.n_layers, field, there.n_layers,
            )  # fmt: skip


def _depth_field(family: Family, config: PretrainedConfig, side: str, n_layers: int, built: StackSpec) -> str | None:
    """The one field of the config that says `n_layers`, and describes `built` once it says its depth instead."""
    other = "decoder" if side == "stack" else "stack"
    before = getattr(family.architecture(config), other)
    fields = []
    for field in DEPTH_FIELDS:
        if vars(config).get(field) != n_layers:
            continue
        changed = deepcopy(config)
        try:
            setattr(changed, field, built.n_layers)
            planned = family.architecture(changed)
        except ConfigError:
            continue  # another field says something of each layer
        now = getattr(planned, side)
        alike = all(getattr(now, name) == getattr(built, name) for name in LAYER_FIELDS)
        if alike and getattr(planned, other) == before:
            fields.append(field)
    return fields[0] if len(fields) == 1 else None

"""The vector of a text that a head reads in place of the family's own: pooled from its tokens' states.

A classifier whose encoder was trained as one of sentences reads the vector that the sentences are compared by.
config.json says so in a field of every family, `"text_vector": {"pooling": "mean", "normalize": true}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.checkpoint.field_checks import shown_value
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError, nearest

POOLINGS = ("mean", "cls", "lasttoken", "max")
FIELD = "text_vector"


@dataclass(frozen=True)
class TextVector:
    """How the states of a text's tokens become one vector.

    Attributes:
        pooling: "mean" or "max" of the real tokens, "cls" for the first of them, "lasttoken" for the last.
        normalize: whether its length is then made 1.
    """

    pooling: str
    normalize: bool = False

    def __call__(self, hidden: Tensor, real: Tensor | None) -> Tensor:
        """States [batch, length, hidden], real tokens [batch, length] (None: all) -> vectors [batch, hidden]."""
        vector = pooled(
            hidden, torch.ones(hidden.shape[:2], device=hidden.device) if real is None else real, self.pooling
        )
        return torch.nn.functional.normalize(vector, dim=-1) if self.normalize else vector


def pooled(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """States [rows, longest, hidden] of texts padded as `mask` [rows, longest] says -> vectors [rows, hidden].

    Raises ConfigError for a way of pooling that is not one of `POOLINGS`.
    """
    real = mask.bool()[..., None]  # [rows, longest, 1]
    if how == "mean":
        return (hidden * real).sum(1) / real.sum(1)
    if how == "max":
        return hidden.masked_fill(~real, -torch.inf).amax(1)
    rows = torch.arange(len(hidden), device=hidden.device)
    steps = torch.arange(mask.shape[1], device=mask.device) * mask  # [rows, longest]
    if how == "cls":
        return hidden[rows, mask.long().argmax(1)]
    if how == "lasttoken":
        return hidden[rows, steps.argmax(1)]
    raise ConfigError(f"pooling is {how!r}; vectors are made with {', '.join(POOLINGS)}.")


def text_vector(config: PretrainedConfig) -> TextVector | None:
    """What the config says of the vector that a head on a text reads; None where the family's own head says it.

    Raises:
        ConfigError: the field holds something else than a pooling and whether the vector's length is made 1.
    """
    said = getattr(config, FIELD, None)
    if said is None:
        return None
    if not isinstance(said, Mapping) or set(said) - {"pooling", "normalize"}:
        raise ConfigError(
            f"{FIELD} is {shown_value(said)}; give {{'pooling': 'mean', 'normalize': true}}, or leave it out."
        )
    pooling, normalize = said.get("pooling"), said.get("normalize", False)
    if pooling not in POOLINGS:
        near = nearest(pooling, POOLINGS, few=0) if isinstance(pooling, str) else ""
        raise ConfigError(f"{FIELD}.pooling is {shown_value(pooling)}; give one of {', '.join(POOLINGS)}.{near}")
    if not isinstance(normalize, bool):
        raise ConfigError(f"{FIELD}.normalize is {shown_value(normalize)}; give true or false.")
    return TextVector(pooling, normalize)

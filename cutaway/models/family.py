"""A family: what a `model_type` means, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import Architecture
from cutaway.config.config_fields import check_fields
from cutaway.nn.weight_map import Table

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig


@dataclass(frozen=True)
class Family:
    """One declaration in `cutaway/families/`.

    Attributes:
        to_architecture: the published config -> Architecture; an unknown value raises ConfigError.
        weights: our layer names -> published layer names, inside the base model; a function where they depend on the
            architecture.
        prefix: what published checkpoints with a head put before the base model's names ("bert"; "" for none).
    """

    to_architecture: Callable[[Any], Architecture]
    weights: Table | Callable[[Architecture], Table]
    prefix: str

    def architecture(self, config: PretrainedConfig) -> Architecture:
        """The architecture of a config whose every field is used or harmless; ConfigError names one that is not."""
        check_fields(config)
        return self.to_architecture(config)

    def table(self, architecture: Architecture) -> Table:
        """The names of this architecture's layers."""
        return self.weights(architecture) if callable(self.weights) else self.weights

"""The published spelling of which layers see everything and which only a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cutaway.checkpoint.field_checks import shown_value
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError


class OptionalWindow(PretrainedConfig):
    """A config whose `sliding_window` is None unless `use_sliding_window` is True, whatever it was given."""

    def _apply(self, fields: Mapping[str, object]) -> None:
        super()._apply(fields)
        if not self.use_sliding_window:
            self.sliding_window = None


TYPES = ("full_attention", "sliding_attention")


def layer_types(config: PretrainedConfig, slides: Callable[[int], bool]) -> list[str]:
    """One of TYPES for each layer: `layer_types` where it is given, else sliding in the layers that slide.

    Raises:
        ConfigError: another type, or a list that is not as long as the stack is deep.
    """
    n = config.integer("num_hidden_layers", 1, 1000)
    types = config.stated("layer_types")
    if types is None:
        types = ["sliding_attention" if slides(i) else "full_attention" for i in range(n)]
    if not isinstance(types, list) or len(types) != n or not {*map(str, types)} <= {*TYPES}:
        raise ConfigError(f"layer_types is {shown_value(types)}; it must name one of {[*TYPES]} for each layer.")
    return types

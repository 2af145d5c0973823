"""The blocks of a stack, which users may cut, put in another order or add to, and the plan that follows them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cutaway.config.architecture import Stack as Spec
from cutaway.errors import ConfigError
from cutaway.nn.named_modules import NamedModule

_NUMBER: Callable[[object], int] = operator.attrgetter("number")


def follow_blocks(stack: NamedModule) -> bool:
    """Let the plan of a stack follow its list of blocks, which may have been cut, put in another order or grown.

    Each block keeps what it was built with. Whether the plan changed.

    Raises:
        ConfigError: no block is left, or layers share one (ALBERT), so that the list does not say how many there are.
    """
    blocks = stack._modules["blocks"]._modules.values()  # type: ignore[union-attr]
    try:
        numbers = tuple(map(_NUMBER, blocks))
    except AttributeError:  # one that is not the library's own
        numbers = tuple(getattr(block, "number", i) for i, block in enumerate(blocks))
    if numbers == stack.numbers:
        return False
    built: Spec = stack.built
    if built.block_of or not numbers:
        raise ConfigError(
            f"the model has {len(numbers)} blocks, and was built with {built.n_blocks} for {built.n_layers} layers. "
            "Set num_hidden_layers in the config and load or build the model from it."
        )

    def of_each(layers: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(layers[n] for n in numbers) if layers else ()

    stack.spec = replace(
        stack.spec,
        n_layers=len(numbers),
        windows=of_each(built.windows),
        layer_positions=of_each(built.layer_positions),
        layer_scales=of_each(built.layer_scales),
    )
    stack.numbers = numbers
    return True

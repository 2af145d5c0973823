"""Noise on the vectors of tokens in training (NEFTune: Jain et al., 2023, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.nn.call_context import evaluating

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class Embedding(Protocol):
    """A model that says where its tokens become vectors."""

    def get_input_embeddings(self) -> nn.Module: ...


def activate_neftune(model: Embedding, neftune_noise_alpha: float) -> RemovableHandle:
    """Let the vectors [batch, length, width] of the model's tokens get noise while it trains.

    The noise is uniform in ±alpha / sqrt(length * width). In evaluation there is none.

    Returns:
        What takes the noise away again: `.remove()`.
    """

    def noisy(module: nn.Module, args: tuple[object, ...], out: Tensor) -> Tensor:
        if not module.training or evaluating():
            return out
        most = neftune_noise_alpha / (out.shape[-2] * out.shape[-1]) ** 0.5
        return out + torch.empty_like(out).uniform_(-most, most)

    return model.get_input_embeddings().register_forward_hook(noisy)


def deactivate_neftune(model: Embedding, hook_handle: RemovableHandle) -> None:
    """Take the noise of `activate_neftune` away."""
    hook_handle.remove()


@contextmanager
def noise(model: object, alpha: float | None) -> Iterator[None]:
    """Inside, the model trains with such noise; without `alpha` as ever.

    Raises:
        ConfigError: the model has no table of tokens.
    """
    if alpha is None:
        yield
        return
    if not hasattr(model, "get_input_embeddings"):
        raise ConfigError(
            f"neftune_noise_alpha adds noise to the vectors of tokens, and {type(model).__name__} has no "
            "get_input_embeddings() to find them."
        )
    handle = activate_neftune(model, alpha)
    try:
        yield
    finally:
        handle.remove()

"""`fp16_full_eval` and `bf16_full_eval`: an evaluation on weights of 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


@contextmanager
def weights_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, the weights of `model` are of `dtype` (None: as they are); afterwards they are the ones they were."""
    if dtype is None:
        yield
        return
    kept = [(tensor, tensor.data) for tensor in chain(model.parameters(), model.buffers())]
    model.to(dtype)
    try:
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data

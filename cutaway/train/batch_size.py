"""`auto_find_batch_size`: a training is begun again with smaller batches until its memory suffices."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cutaway.train.callback import Callbacks

T = TypeVar("T")
log = logging.getLogger("cutaway")

NO_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate memory", "cuDNN error")


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(s in str(error) for s in NO_MEMORY)


def smaller(size: int) -> int:
    """The size that is tried next: a tenth less."""
    return int(size * 0.9)


def release_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Beginning:
    """What a training begins with, so that it can begin again: weights, an optimizer that was given, callbacks.

    The weights are copied to the CPU's memory; where `model` is None they are made anew by each training.
    """

    def __init__(
        self,
        model: nn.Module | None,
        optimizer: Optimizer | None,
        schedule: LRScheduler | None,
        callbacks: Callbacks,
    ) -> None:
        self._model, self._callbacks = model, callbacks
        self._given = [one for one in (optimizer, schedule) if one is not None]
        tensors = {} if model is None else model.state_dict(keep_vars=True)
        self._weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._states = [copy.deepcopy(one.state_dict()) for one in self._given]
        self._counts = copy.deepcopy(callbacks.state_dict())

    def restore(self) -> None:
        """Put everything back as it was."""
        if self._model is not None:
            self._model.zero_grad(set_to_none=True)
            self._model.load_state_dict(self._weights)
        for one, state in zip(self._given, self._states, strict=True):
            one.load_state_dict(copy.deepcopy(state))
        self._callbacks.load_state_dict(copy.deepcopy(self._counts))


def train_that_fits(train: Callable[[int], T], size: int, beginning: Beginning, resumes: Callable[[], bool]) -> T:
    """`train(batch_size)`, from `size` downwards until the memory suffices.

    Args:
        beginning: to go back to between two tries.
        resumes: whether the training that failed went on from a checkpoint, whose batches cannot be others.

    Raises:
        torch.OutOfMemoryError: not even batches of one row fit (MemoryError where that was the error); the error of the
            last try is its cause.
    """
    while True:
        try:
            return train(size)
        except Exception as error:
            if not lacks_memory(error) or resumes():
                raise
            if smaller(size) < 1:
                kind = MemoryError if isinstance(error, MemoryError) else torch.OutOfMemoryError
                raise kind(
                    "auto_find_batch_size tried batches down to 1 row, and not even those fit into the memory: shorten "
                    "the texts (max_length of the tokenizer), set gradient_checkpointing=True, or train a LoRA adapter "
                    "in place of all weights."
                ) from error
        # outside of `except`, whose traceback holds the tensors of the step that failed
        size = smaller(size)
        beginning.restore()
        release_memory()
        log.warning("the memory does not suffice; the training begins again with batches of %d rows.", size)

"""What overridden hooks ask of `trainer.accelerator`: the backward pass, and what several processes know together."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.train.accelerator_config import AcceleratorConfig
from cutaway.train.distributed import bare

if TYPE_CHECKING:
    from cutaway.train.session import TrainingSession


class Accelerator:
    """The part of accelerate's Accelerator that makes sense for a training of this library."""

    def __init__(self, session: TrainingSession) -> None:
        self._session = session

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Add the gradients of a loss; nothing where no weight follows from it.

        The mean over processes, which is what gradients become, is to be the whole: so a process's share counts as
        often as there are processes, and that of a batch which is another's counts nothing.
        """
        scale = self._session.backward_scale
        loss = loss if scale == 1.0 else loss * scale
        if loss.requires_grad:
            loss.backward(**kwargs)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._session.device

    @property
    def num_processes(self) -> int:
        """How many processes train together."""
        return self._session.ranks.size

    @property
    def process_index(self) -> int:
        """The number of this one."""
        return self._session.ranks.rank

    @property
    def local_process_index(self) -> int:
        """Its number on this machine."""
        return self._session.ranks.local

    @property
    def is_main_process(self) -> bool:
        """Whether it is the one that writes."""
        return self._session.ranks.first

    @property
    def is_local_main_process(self) -> bool:
        """Whether it is the first of this machine."""
        return self._session.ranks.local == 0

    @property
    def sync_gradients(self) -> bool:
        """Whether this part is the last of its update."""
        return self._session.last_part

    @property
    def gradient_accumulation_steps(self) -> int:
        """Of how many batches an update is made."""
        return int(self._session.args.gradient_accumulation_steps)

    @property
    def _config(self) -> AcceleratorConfig:
        given = self._session.args.accelerator_config
        return AcceleratorConfig() if given is None else AcceleratorConfig.read(given)

    @property
    def split_batches(self) -> bool:
        """Whether a batch of the loader is the whole of all processes; see `AcceleratorConfig`."""
        return self._config.split_batches

    @property
    def dispatch_batches(self) -> bool | None:
        """Whether one process reads for all; see `AcceleratorConfig`."""
        return self._config.dispatch_batches

    @property
    def even_batches(self) -> bool:
        """Whether all processes have as many batches; see `AcceleratorConfig`."""
        return self._config.even_batches

    @property
    def use_seedable_sampler(self) -> bool:
        """What `AcceleratorConfig` says; the order follows from the seed and the epoch all the same."""
        return self._config.use_seedable_sampler

    def unwrap_model(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """The model itself."""
        return bare(model)

    def prepare(self, *things: Any, **kwargs: Any) -> Any:
        """The same things: Trainer itself shares out what a loader gives, and joins the models."""
        return things[0] if len(things) == 1 else things

    prepare_model = prepare_data_loader = prepare_optimizer = prepare_scheduler = prepare

    def gather(self, value: Any) -> Any:
        """Everyone's tensor, one after another along the first dimension."""
        parts = self._session.ranks.gather(value)
        if not isinstance(value, Tensor) or len(parts) == 1:
            return value if len(parts) == 1 else parts
        return torch.cat([part.to(value.device).reshape(-1, *part.shape[1:]) for part in parts])

    gather_for_metrics = gather

    def reduce(self, value: Any, reduction: str = "sum") -> Any:
        """The sum or the mean of everyone's tensor."""
        parts = self._session.ranks.gather(value)
        found = sum(part.to(value.device) for part in parts)
        return found / len(parts) if reduction == "mean" else found

    def wait_for_everyone(self) -> None:
        """Go on when all are here."""
        self._session.ranks.sum([0.0])

    def clip_grad_norm_(self, parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
        """As torch's."""
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that the arguments name."""
        return self._session.precision()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print, by the first process alone."""
        if self.is_local_main_process:
            print(*args, **kwargs)  # noqa: T201 - printing is what it is for

    def end_training(self) -> None:
        """Nothing is left open."""

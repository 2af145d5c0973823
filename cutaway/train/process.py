"""What a script asks its arguments about this process: its device, its number, whether it is the one that writes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class ParallelMode(StrEnum):
    """How many devices train."""

    NOT_PARALLEL = "not_parallel"
    NOT_DISTRIBUTED = "not_distributed"
    DISTRIBUTED = "distributed"


def _told(name: str, usual: int) -> int:
    """A number that torchrun has put into the environment."""
    try:
        return int(os.environ.get(name, usual))
    except ValueError:
        return usual


class ProcessFacts:
    """The part of `TrainingArguments` that is no setting; what `torchrun` says of this process, and of the machine."""

    use_cpu: bool
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    log_level: str
    log_level_replica: str

    @property
    def device(self) -> torch.device:
        """The torch.device that this process trains on."""
        import torch

        if torch.cuda.is_available() and not self.use_cpu:
            return torch.device("cuda", self.local_process_index)
        return torch.device("cpu")

    @property
    def n_gpu(self) -> int:
        """How many GPUs this process has: one, or none."""
        return int(self.device.type == "cuda")

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return _told("WORLD_SIZE", 1)

    @property
    def process_index(self) -> int:
        """The number of this process among all."""
        return _told("RANK", 0)

    @property
    def local_process_index(self) -> int:
        """The number of this process on its machine."""
        return _told("LOCAL_RANK", 0)

    @property
    def parallel_mode(self) -> ParallelMode:
        """How many devices train."""
        return ParallelMode.DISTRIBUTED if self.world_size > 1 else ParallelMode.NOT_PARALLEL

    @property
    def should_log(self) -> bool:
        """Whether this process says what happens: the first does."""
        return self.process_index == 0

    @property
    def should_save(self) -> bool:
        """Whether this process writes: the first does."""
        return self.process_index == 0

    @property
    def train_batch_size(self) -> int:
        """Rows of a training batch of this process."""
        return self.per_device_train_batch_size * max(1, self.n_gpu)

    @property
    def eval_batch_size(self) -> int:
        """Rows of an evaluation batch of this process."""
        return self.per_device_eval_batch_size * max(1, self.n_gpu)

    @property
    def place_model_on_device(self) -> bool:
        """Whether Trainer moves the model to `device`: it does."""
        return True

    def get_process_log_level(self) -> int:
        """The level of Python's logging for this process: `log_level`, of the others `log_level_replica`."""
        name = self.log_level if self.should_log else self.log_level_replica
        usual = logging.WARNING
        return usual if name in ("passive", "detail") else int(getattr(logging, name.upper(), usual))

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """How many steps the rate rises."""
        found: int = self.warmup(num_training_steps)  # type: ignore[attr-defined]
        return found

    @contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Inside, the first process goes before the others, which then find what it has made.

        Args:
            local: the first of each machine, instead of the first of all.
            desc: what is done; for upstream's log.
        """
        import torch

        several = self.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized()
        first = (self.local_process_index if local else self.process_index) == 0
        if several and not first:
            torch.distributed.barrier()
        try:
            yield
        finally:
            if several and first:
                torch.distributed.barrier()

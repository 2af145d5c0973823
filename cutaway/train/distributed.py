"""The processes that train one model together: which of them this is, and what they do as one.

`torchrun` starts them and says how many they are; without it there is one, for which nothing here costs anything. What
concerns the course of the training (counts of labels, requests to stop) goes from processor to processor by gloo;
gradients and weights go by NCCL where there are GPUs.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, CutawayError
from cutaway.train import sharding

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup as TorchProcessGroup

T = TypeVar("T")
_PATIENCE = timedelta(seconds=60)  # for those that come late to the end


class ProcessGroup:
    """The processes of one training.

    Attributes:
        rank: the number of this one; the first, 0, is the one that writes. size: how many there are.
        local: its number on this machine, which is that of its GPU.
        sharded: whether each holds only a part of the weights.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, host: TorchProcessGroup | None = None) -> None:
        self.rank, self.size, self.local, self._host = rank, size, local, host
        self.sharded = False
        self._whole: dict[str, Tensor] | None = None

    @classmethod
    def here(cls, cuda: bool, timeout: float) -> ProcessGroup:
        """Those that the environment tells of (RANK, WORLD_SIZE), or this process alone.

        Args:
            cuda: whether on GPUs. timeout: seconds after which one that waits for another gives up.

        Raises:
            ConfigError: there are more of them on this machine than GPUs.
        """
        if told_size() == 1:
            return cls()
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        local = int(os.environ.get("LOCAL_RANK", 0))
        if cuda and local >= torch.cuda.device_count():
            raise ConfigError(
                f"rank {os.environ['RANK']} is number {local} on this machine, which has {torch.cuda.device_count()} "
                "GPUs; start as many processes as there are GPUs, or set use_cpu=True."
            )
        if cuda:
            torch.cuda.set_device(local)
        limit = timedelta(seconds=timeout)
        if not dist.is_initialized():
            store, rank, size = next(rendezvous("env://"))
            # torchrun's store outlives a restart, and with it the addresses of processes that are gone
            attempt = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            kind = "nccl" if cuda else "gloo"
            dist.init_process_group(kind, store=attempt, rank=rank, world_size=size, timeout=limit)
            atexit.register(_leave)
        host = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=limit)
        if dist.get_rank():  # what the library has to say is said once
            logging.getLogger("cutaway").setLevel(logging.ERROR)
        return cls(dist.get_rank(), dist.get_world_size(), local, host)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A seed of its own for each but the first, so that they do not drop out alike."""
        return (seed + 1_000_003 * self.rank) % 2**32

    # -- what all know -------------------------------------------------------------------------------------------------

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of everyone's values, place by place."""
        return self._reduced(values, "SUM")

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest of everyone's values, place by place."""
        return self._reduced(values, "MAX")

    def _reduced(self, values: Sequence[float], how: str) -> list[float]:
        if self.size == 1:
            return list(values)
        import torch.distributed as dist

        held = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(held, getattr(dist.ReduceOp, how), group=self._host)
        return held.tolist()

    def gather(self, value: T) -> list[T]:
        """Everyone's value, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._host)
        return found

    def broadcast(self, value: T) -> T:
        """The value of the first."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        held = [value]
        dist.broadcast_object_list(held, 0, group=self._host)
        return held[0]

    def on_first_rank(self, work: Callable[[], T]) -> T:
        """What `work` gives, done by the first while the others wait; if it fails, it fails for all.

        Raises:
            CutawayError: with the first one's error, elsewhere than there.
        """
        if self.size == 1:
            return work()
        error: BaseException | None = None
        result: Any = None
        if self.first:
            try:
                result = work()
            except BaseException as e:
                error = e
        result, said = self.broadcast((result, None if error is None else f"{type(error).__name__}: {error}"))
        if error is not None:
            raise error
        if said is not None:
            raise CutawayError(f"rank 0 failed: {said}")
        return result  # type: ignore[no-any-return]

    # -- the model -----------------------------------------------------------------------------------------------------

    def shard(self, model: nn.Module, device: torch.device) -> None:
        """Leave each rank a part of each weight (FSDP2, `fully_shard`); the model and its optimizer take less room."""
        if self.size > 1:
            sharding.shard(model, device)
            self.sharded = True

    def joint(self, model: nn.Module, loss: Tensor, unused: bool | None) -> nn.Module:
        """The model as training calls it: after backward, gradients are the means over all ranks.

        Args:
            loss: of a first batch. unused: whether there are weights that a loss does not depend on, which torch's
                DistributedDataParallel wants to know; None where this one tells it.
        """
        if unused is None:
            trained = {id(p) for p in model.parameters() if p.requires_grad}
            unused = self.max([len(trained - leaves(loss))])[0] > 0
        place = [loss.device] if loss.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=place, find_unused_parameters=unused)

    @contextmanager
    def turn(self, joint: nn.Module, last: bool) -> Iterator[None]:
        """Around one part of an update: unless it is the `last`, gradients stay here and add up."""
        if self.size == 1:
            yield
            return
        silent: AbstractContextManager[Any] = nullcontext()
        if not last and isinstance(joint, nn.parallel.DistributedDataParallel):
            silent = joint.no_sync()
        with warnings.catch_warnings(), silent:
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # nobody writes to it
            yield

    @contextmanager
    def gathered(self, model: nn.Module) -> Iterator[dict[str, Tensor] | None]:
        """Inside, the first may save alone: {name: weight} there, {} elsewhere; None where weights are not sharded.

        All enter it; who does so again inside gets the same.
        """
        if not self.sharded or self._whole is not None:
            yield self._whole
            return
        self._whole = sharding.whole_weights(model)
        try:
            yield self._whole
        finally:
            self._whole = None

    def whole(self, value: Any) -> Any:
        """`value` with the sharded tensors in it put together, on the first rank; None stands for them elsewhere."""
        return sharding.whole(value, keep=self.first) if self.sharded else value


def told_size() -> int:
    """How many processes the environment tells of."""
    return max(1, int(os.environ.get("WORLD_SIZE", 1))) if "RANK" in os.environ else 1


def told_first() -> bool:
    """Whether the environment makes this the first of them, or the only one."""
    return told_size() == 1 or int(os.environ["RANK"]) == 0


def restarted() -> bool:
    """Whether `torchrun --max-restarts` has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def refuse_several() -> None:
    """ConfigError where several processes would each make a search of their own."""
    if told_size() > 1:
        raise ConfigError(
            f"a search of settings is made by one process, and here are {told_size()}: start it without torchrun, then "
            "train with the settings that it finds by as many processes as you like."
        )


def bare(model: object) -> Any:
    """The model itself, where `joint` has wrapped it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def leaves(loss: Tensor) -> set[int]:
    """The ids of the weights that a loss has gradients for."""
    todo: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [one for one, _ in node.next_functions]
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


def _leave() -> None:
    """At the end of a process: wait for the others, drop what hangs on the group, leave it.

    A process that fails does not wait: the others may never come.
    """
    import torch.distributed as dist

    if not dist.is_initialized() or getattr(sys, "last_value", None) is not None:
        return
    with suppress(RuntimeError):
        if dist.get_backend() == "gloo":
            dist.monitored_barrier(timeout=_PATIENCE)
        else:
            dist.barrier()
    gc.collect()
    dist.destroy_process_group()

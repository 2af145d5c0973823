"""A running training: everything that loop, evaluator, uploads and searches share, and the hooks that they call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import Callbacks
from cutaway.train.distributed import ProcessGroup
from cutaway.train.objective import LabelCounts, Objective
from cutaway.train.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from torch.utils.data import DataLoader

    from cutaway.train.batches import RankBatch

# what is tried: optuna's trial, settings by name, or None outside a search
Trial: TypeAlias = "optuna.Trial | dict[str, Any] | None"
T = TypeVar("T")


class TrainingHooks(Protocol):
    """What a training calls, by upstream's names and with its arguments; `Trainer` is one such set of hooks."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """(the batches of the next update, how many labelled places they hold)."""

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One part of an update, with its backward pass; its share of the loss."""

    def first_loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The loss of a first batch, whose graph tells which weights are used."""

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Set the session's optimizer and schedule."""

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Keep and tell what is logged."""

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Write the model."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """What a batch costs."""

    def store_flos(self) -> None:
        """Add it to the state."""

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None: ...
    def _wrap_model(
        self, model: nn.Module, training: bool = True, dataloader: DataLoader[Any] | None = None
    ) -> nn.Module: ...
    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None: ...
    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None: ...
    def _get_learning_rate(self) -> float: ...
    def _maybe_log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        model: nn.Module,
        trial: Trial,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        start_time: float,
        learning_rate: float | None = None,
    ) -> None: ...
    def _evaluate(
        self, trial: Trial, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]: ...
    def _determine_best_metric(self, metrics: dict[str, float], trial: Trial) -> bool: ...
    def _save_checkpoint(self, model: nn.Module, trial: Trial) -> None: ...
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None: ...


@dataclass
class Update:
    """One update of the weights: its parts, and how much each holds.

    Attributes:
        batches: of this process. sizes: labelled places of each. whole: of all parts of all processes.
        parts: how many parts there are in all. current: the number of the part that is computed.
    """

    batches: list[Any]
    sizes: list[LabelCounts]
    whole: LabelCounts
    parts: int
    current: int = 0

    def fits(self, batches: list[Any]) -> bool:
        """Whether it is the update of these batches."""
        return len(batches) == len(self.batches) and all(a is b for a, b in zip(batches, self.batches, strict=True))


class RunningLoop(Protocol):
    """What the hooks ask of the training that runs."""

    def judge(self, metrics: dict[str, float]) -> bool:
        """Whether these are the best metrics so far."""

    def log_save_evaluate(self) -> None:
        """Log, evaluate and save, as far as it was asked for."""

    def save(self) -> Path:
        """Write checkpoint-N."""


@dataclass
class TrainingSession:
    """What a training is while it runs.

    Attributes:
        backward_scale: what the loss of the part at hand counts in the backward pass; last_part: whether it is the last
            of its update.
        loop: the training that runs, None between two of them.
        flos: floating point operations that the state does not hold yet.
        made: the optimizer and the schedule of the last training, as far as it made them itself.
    """

    args: TrainingArguments = field(init=False)
    model: Any = None
    optimizer: Optimizer | None = None
    lr_scheduler: LRScheduler | None = None
    processing_class: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks: ProcessGroup = field(default_factory=ProcessGroup)
    state: TrainerState = field(default_factory=TrainerState)
    control: TrainerControl = field(default_factory=TrainerControl)
    callbacks: Callbacks = field(default_factory=lambda: Callbacks(()))
    objective: Objective | None = None
    update: Update | None = None
    pending: list[RankBatch] = field(default_factory=list)
    backward_scale: float = 1.0
    last_part: bool = True
    loop: RunningLoop | None = None
    trial: Trial = None
    flos: float = 0.0
    made: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def own_optimizer(self) -> Iterator[None]:
        """Inside, one training, which makes its own optimizer and schedule where the user gave none."""
        names = ("optimizer", "lr_scheduler")
        for name in names:
            if self.made.get(name) is not None and getattr(self, name) is self.made[name]:
                setattr(self, name, None)
        given = {name: getattr(self, name) for name in names}
        try:
            yield
        finally:
            self.made = {name: getattr(self, name) for name in names if given[name] is None}

    def precision(self) -> AbstractContextManager[Any]:
        """Inside, the model computes in the precision that the arguments name."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.args.bf16 else nullcontext()

    def tell(self, event: str, **at_hand: object) -> TrainerControl:
        """Call an event of all callbacks; one of them may give a control of its own."""
        self.control = self.callbacks.call(
            event,
            self.args,
            self.state,
            self.control,
            model=self.model,
            processing_class=self.processing_class,
            tokenizer=self.processing_class,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
            train_dataloader=self.callbacks.train_dataloader,
            eval_dataloader=self.callbacks.eval_dataloader,
            **at_hand,
        )
        return self.control


class HasSession(Protocol):
    """What shows a session as its own."""

    @property
    def session(self) -> TrainingSession:
        """The session."""


class SessionAttribute(Generic[T]):
    """An attribute of a trainer that lives in its session, under the same name."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, trainer: None, owner: type[object]) -> Self: ...

    @overload
    def __get__(self, trainer: HasSession, owner: type[object]) -> T: ...

    def __get__(self, trainer: HasSession | None, owner: type[object]) -> T | Self:
        if trainer is None:
            return self
        value: T = getattr(trainer.session, self._name)
        return value

    def __set__(self, trainer: HasSession, value: T) -> None:
        setattr(trainer.session, self._name, value)


class BatchIterator:
    """The batches of an epoch for `get_batch_samples`; what else is known of each is kept in `pending`."""

    def __init__(self, turns: Iterator[RankBatch], pending: list[RankBatch]) -> None:
        self.turns, self.pending = turns, pending

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Any:
        turn = next(self.turns)
        self.pending.append(turn)
        return turn.batch

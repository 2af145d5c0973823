"""Callbacks: what is called at each event of a training, and the two that decide its course."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from cutaway.errors import ConfigError
from cutaway.train.arguments import TrainingArguments
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy, SaveStrategy

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

log = logging.getLogger("cutaway")

EVENTS = (
    "on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_step_begin",
    "on_substep_end", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_evaluate", "on_predict",
    "on_save", "on_log", "on_prediction_step", "on_push_begin",
)  # fmt: skip


class TrainerCallback:
    """Override what you need; each event gets (args, state, control, **what is at hand), and may change `control`.

    At hand: model, processing_class, optimizer, lr_scheduler; `metrics` in on_evaluate and on_predict, and `logs` in
    on_log.
    A callback that counts something keeps it over a resume by `state_dict` and `load_state_dict`.
    """

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume: plain values and tensors."""
        return {}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """The trainer is made."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """A training begins, or goes on from a checkpoint."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """A training has ended; the best model is loaded, if that was asked for."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """An epoch begins."""

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """An epoch has ended."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """An update begins: before its first batch."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """A batch of an update is computed, and more follow."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """The gradients of an update are there and clipped; the weights are still the old ones."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """The optimizer has changed the weights; gradients are still there."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """An update is made."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """An evaluation has ended; `metrics` is at hand."""

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """A prediction has ended; `metrics` is at hand."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """A checkpoint is written."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """Something was logged; `logs` is at hand."""

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """A batch of an evaluation or a prediction is computed."""

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *values: Any, **kwargs: Any
    ) -> TrainerControl | None:
        """An upload begins."""


class ExportableState:
    """A callback whose `state()` says what survives a resume: {"args": of its class, "attributes": set afterwards}."""

    def state(self) -> dict[str, Any]:
        """What must survive: plain values."""
        raise NotImplementedError(f"{type(self).__name__} is an ExportableState; write its state().")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """One that is as `state` says."""
        one = cls(**state["args"])
        for name, value in state["attributes"].items():
            setattr(one, name, value)
        return one


class DefaultFlowCallback(TrainerCallback):
    """Asks for what the arguments' strategies say."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """After a step: what falls on this one."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0:
            control.should_log = True
        if args.logging_first_step and step == 1:
            control.should_log = True
        if args.eval_strategy == IntervalStrategy.STEPS and step >= args.eval_delay:
            control.should_evaluate = control.should_evaluate or step % state.eval_steps == 0
        if args.save_strategy == SaveStrategy.STEPS and step % state.save_steps == 0:
            control.should_save = True
        if last:
            control.should_training_stop = True
            # whoever evaluates or saves by steps wants the last one too
            if args.eval_strategy == IntervalStrategy.STEPS and step >= args.eval_delay:
                control.should_evaluate = True
            control.should_save = control.should_save or args.save_strategy == SaveStrategy.STEPS

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """After an epoch."""
        if args.logging_strategy == IntervalStrategy.EPOCH:
            control.should_log = True
        if args.eval_strategy == IntervalStrategy.EPOCH and state.epoch >= args.eval_delay:
            control.should_evaluate = True
        if args.save_strategy == SaveStrategy.EPOCH:
            control.should_save = True


DEFAULT_CALLBACKS: list[type[TrainerCallback]] = [DefaultFlowCallback]  # those of every trainer


class EarlyStoppingCallback(TrainerCallback, ExportableState):
    """Stop when `metric_for_best_model` has not improved by more than the threshold for `patience` evaluations.

    Needs evaluations and `metric_for_best_model`. The count survives a resume. A value that is no number never improves
    anything.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold or 0.0
        self.early_stopping_patience_counter = 0
        self.best: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Refuses settings under which it could never stop."""
        if args.eval_strategy == IntervalStrategy.NO or args.metric_for_best_model is None:
            raise ConfigError(
                "EarlyStoppingCallback needs eval_strategy 'steps' or 'epoch', and metric_for_best_model."
            )

    def check_metric_value(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metric_value: float
    ) -> None:
        """Count one evaluation."""
        best, sign = state.best_metric if self.best is None else self.best, 1 if bigger_is_better(args) else -1
        fine = not math.isnan(metric_value)
        if fine and (best is None or sign * (metric_value - best) > self.early_stopping_threshold):
            self.best, self.early_stopping_patience_counter = metric_value, 0
        else:
            self.early_stopping_patience_counter += 1

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **kwargs: object,
    ) -> None:
        """Counts evaluations without improvement."""
        self.check_metric_value(args, state, control, best_value(args, metrics))
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """What it was made with and where it stands, in upstream's form."""
        made = {
            "early_stopping_patience": self.early_stopping_patience,
            "early_stopping_threshold": self.early_stopping_threshold,
        }
        return {"args": made, "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter}}

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.early_stopping_patience_counter, "best": self.best}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self.early_stopping_patience_counter, self.best = values["count"], values["best"]


def bigger_is_better(args: TrainingArguments) -> bool:
    """greater_is_better, or what the metric's name says: a loss should fall."""
    if args.greater_is_better is not None:
        return args.greater_is_better
    return not (args.metric_for_best_model or "loss").endswith("loss")


def best_value(args: TrainingArguments, metrics: dict[str, Any]) -> float:
    """The metric by which models are compared; ConfigError if the evaluation did not give it."""
    name = args.metric_for_best_model or "loss"
    name = name if name.startswith("eval_") else f"eval_{name}"
    if name not in metrics:
        raise ConfigError(
            f"metric_for_best_model is {args.metric_for_best_model!r}, but the evaluation gives {sorted(metrics)}; "
            "name one of these, or return it from compute_metrics."
        )
    return float(metrics[name])


class Callbacks:
    """The callbacks of one trainer, called in order.

    Attributes:
        all: they. train_dataloader, eval_dataloader: what is read now, for the callbacks.
    """

    def __init__(
        self,
        callbacks: Iterable[object],
        model: nn.Module | None = None,
        processing_class: object = None,
        optimizer: Optimizer | None = None,
        lr_scheduler: LRScheduler | None = None,
    ) -> None:
        self.all: list[Any] = []
        self.model, self.processing_class = model, processing_class
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.train_dataloader: Iterable[Any] | None = None
        self.eval_dataloader: Iterable[Any] | None = None
        for callback in callbacks:
            self.add(callback)
        if self.all and not any(isinstance(own, DefaultFlowCallback) for own in self.all):
            log.warning("there is no DefaultFlowCallback: nothing says when to log, evaluate and save.")

    @property
    def callbacks(self) -> list[Any]:
        """Upstream's name of `all`."""
        return self.all

    @property
    def callback_list(self) -> str:
        """The names of their classes, one a line."""
        return "\n".join(type(callback).__name__ for callback in self.all)

    def add(self, callback: object) -> None:
        """Add a callback, or make one of a class.

        Raises:
            ConfigError: it has no event that is ever called, and is no TrainerCallback.
        """
        one = callback() if isinstance(callback, type) else callback
        if not isinstance(one, TrainerCallback) and not any(hasattr(one, event) for event in EVENTS):
            raise ConfigError(f"{type(one).__name__} is no callback: it has none of the events {', '.join(EVENTS)}.")
        if any(type(own) is type(one) for own in self.all):
            log.warning(f"there is a {type(one).__name__} among the callbacks already; now there are two.")
        self.all.append(one)

    def take(self, callback: object) -> object:
        """Remove a callback, or the first of a class, and return it; None if there is none."""
        for own in self.all:
            if own is callback or (isinstance(callback, type) and type(own) is callback):
                self.all.remove(own)
                return own
        return None

    add_callback, pop_callback = add, take

    def remove_callback(self, callback: object) -> None:
        """Remove a callback, or the first of a class."""
        self.take(callback)

    def call(
        self, event: str, args: TrainingArguments, state: TrainerState, control: TrainerControl, **at_hand: object
    ) -> TrainerControl:
        """Call the event of every callback; the control, or the one that a callback gave instead."""
        for callback in list(self.all):
            method = getattr(callback, event, None)  # a callback may have some of the events alone
            given = None if method is None else method(args, state, control, **at_hand)
            control = given if isinstance(given, TrainerControl) else control
        return control

    def call_event(
        self, event: str, args: TrainingArguments, state: TrainerState, control: TrainerControl, **at_hand: object
    ) -> TrainerControl:
        """As `call`, with the model and the rest that this was made with at hand."""
        names = ("model", "processing_class", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")
        return self.call(event, args, state, control, **{name: getattr(self, name) for name in names}, **at_hand)

    def state_dict(self) -> list[Any]:
        """[class name, state] of each callback."""
        return [[type(c).__name__, _state_of(c)] for c in self.all]

    def load_state_dict(self, states: list[Any], made: bool = False) -> None:
        """Give each callback the state of the one of its class and order.

        Args:
            made: an `ExportableState` also gets what the other was made with, in a new object of its class. Then a
                state for which there is no callback is said.
        """
        left = list(states)
        for place, callback in enumerate(self.all):
            for entry in left:
                if entry[0] == type(callback).__name__:
                    if made and "args" in entry[1].get("exported", {}) and isinstance(callback, ExportableState):
                        callback = self.all[place] = type(callback).from_state(entry[1]["exported"])
                    if entry[1]:
                        _load_state(callback, entry[1])
                    left.remove(entry)
                    break
        lost = [name for name, state in left if state]
        if made and lost:
            log.warning(f"the checkpoint has states of callbacks that are not here now: {', '.join(lost)}.")


def states_of_format_2(states: list[Any]) -> list[Any]:
    """Callbacks' states of a checkpoint of format 2, which held one kind for each, as `state_dict` has them today."""
    found: list[Any] = []
    for name, state in states:
        exported = list(state) == ["attributes"]
        found.append([name, {"exported" if exported else "own": state} if state else {}])
    return found


def _state_of(callback: object) -> dict[str, Any]:
    found = {"own": callback.state_dict() if hasattr(callback, "state_dict") else {}}
    if isinstance(callback, ExportableState):
        found["exported"] = callback.state()
    return found if any(found.values()) else {}


def _load_state(callback: Any, values: dict[str, Any]) -> None:
    for name, value in values.get("exported", {}).get("attributes", {}).items():
        setattr(callback, name, value)
    if values.get("own"):
        callback.load_state_dict(values["own"])


def _event_of(event: str) -> Callable[..., TrainerControl]:
    def call(
        self: Callbacks,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *values: object,
        **at_hand: object,
    ) -> TrainerControl:
        more = dict(zip(_VALUES.get(event, ()), values, strict=True))
        return self.call_event(event, args, state, control, **more, **at_hand)

    call.__name__, call.__doc__ = event, f"`call_event` of {event}; upstream's evaluation loops call it so."
    return call


_VALUES = {"on_evaluate": ("metrics",), "on_predict": ("metrics",), "on_log": ("logs",)}
for _event in EVENTS:
    setattr(Callbacks, _event, _event_of(_event))

CallbackHandler = Callbacks  # upstream's name

"""Callbacks: what is called at each event of a training, and the two that decide its course."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cutaway.errors import ConfigError
from cutaway.train.arguments import TrainingArguments
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy, SaveStrategy

EVENTS = (
    "on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_step_begin",
    "on_substep_end", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_evaluate", "on_predict",
    "on_save", "on_log", "on_prediction_step",
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


def _nothing(self: Any, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
    """Called at this event."""


for _event in EVENTS:
    setattr(TrainerCallback, _event, _nothing)


class DefaultFlowCallback(TrainerCallback):
    """Asks for what the arguments' strategies say."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
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
            # whoever saves by steps wants the last one too
            control.should_save = control.should_save or args.save_strategy == SaveStrategy.STEPS

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After an epoch."""
        if args.logging_strategy == IntervalStrategy.EPOCH:
            control.should_log = True
        if args.eval_strategy == IntervalStrategy.EPOCH and state.epoch >= args.eval_delay:
            control.should_evaluate = True
        if args.save_strategy == SaveStrategy.EPOCH:
            control.should_save = True


class EarlyStoppingCallback(TrainerCallback):
    """Stop when `metric_for_best_model` has not improved by more than the threshold for `patience` evaluations.

    Needs evaluations and `metric_for_best_model`. The count survives a resume.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float = 0.0) -> None:
        self.patience, self.threshold = early_stopping_patience, early_stopping_threshold
        self.count = 0
        self.best: float | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Refuses settings under which it could never stop."""
        if args.eval_strategy == IntervalStrategy.NO or args.metric_for_best_model is None:
            raise ConfigError(
                "EarlyStoppingCallback needs eval_strategy 'steps' or 'epoch', and metric_for_best_model."
            )

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: dict[str, Any], **kwargs: Any
    ) -> None:
        """Counts evaluations without improvement."""
        value = best_value(args, metrics)
        sign = 1 if bigger_is_better(args) else -1
        if self.best is None or sign * (value - self.best) > self.threshold:
            self.best, self.count = value, 0
        else:
            self.count += 1
        if self.count >= self.patience:
            control.should_training_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "best": self.best}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self.count, self.best = values["count"], values["best"]


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
    """The callbacks of one trainer, called in order."""

    def __init__(self, given: Iterable[Any]) -> None:
        self.all: list[Any] = []
        for callback in given:
            self.add(callback)

    def add(self, callback: Any) -> None:
        """Add a callback, or make one of a class."""
        self.all.append(callback() if isinstance(callback, type) else callback)

    def take(self, callback: Any) -> Any:
        """Remove a callback, or the first of a class, and return it; None if there is none."""
        for own in self.all:
            if own is callback or (isinstance(callback, type) and type(own) is callback):
                self.all.remove(own)
                return own
        return None

    def call(self, event: str, args: Any, state: TrainerState, control: TrainerControl, **at_hand: Any) -> None:
        """Call the event of every callback."""
        for callback in self.all:
            getattr(callback, event, _nothing.__get__(callback))(args, state, control, **at_hand)

    def state_dict(self) -> list[Any]:
        """[class name, state] of each callback."""
        return [[type(c).__name__, c.state_dict() if hasattr(c, "state_dict") else {}] for c in self.all]

    def load_state_dict(self, states: list[Any]) -> None:
        """Give each callback the state of the one of its class and order."""
        left = list(states)
        for callback in self.all:
            for entry in left:
                if entry[0] == type(callback).__name__:
                    if entry[1]:
                        callback.load_state_dict(entry[1])
                    left.remove(entry)
                    break


CallbackHandler = Callbacks  # upstream's name

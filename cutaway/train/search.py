"""`Trainer.hyperparameter_search`: which settings make the best model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

from torch import nn

from cutaway.errors import ConfigError
from cutaway.train import saving
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import best_value, bigger_is_better
from cutaway.train.distributed import refuse_several
from cutaway.train.session import TrainingSession, Trial
from cutaway.train.study import Attempt, Study, Tried
from cutaway.train.weights import load_weights

if TYPE_CHECKING:
    import optuna

_SPEED = ("runtime", "per_second")


class BestRun(NamedTuple):
    """The best trial of a search: its number, its value (or values), its settings, and where its model is."""

    run_id: str
    objective: float | list[float]
    hyperparameters: dict[str, Any]
    run_summary: str


def default_space(trial: optuna.Trial) -> dict[str, Any]:
    """The settings that a search tries unless it is told: rate, epochs, seed and batch size."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 5),
        "seed": trial.suggest_int("seed", 1, 40),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [4, 8, 16, 32, 64]),
    }


class SearchSettings(TypedDict, total=False):
    """What `Trainer.hyperparameter_search` takes beside its named arguments; it says what each is."""

    storage: str | Path | None
    study_name: str
    sampler: optuna.samplers.BaseSampler | None
    pruner: optuna.pruners.BasePruner | None
    timeout: float | None


class Trains(Protocol):
    """What a search asks of a trainer."""

    model_init: Callable[..., nn.Module] | None
    eval_dataset: object

    def train(self, resume_from_checkpoint: str | bool | None = None) -> object:
        """Train a fresh model."""

    def evaluate(self) -> dict[str, float]:
        """The metrics of the model."""

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Write the model into output_dir."""

    def call_model_init(self, trial: Trial = None) -> nn.Module:
        """A fresh model."""


def run(
    session: TrainingSession,
    trainer: Trains,
    hp_space: Callable[[Any], Mapping[str, Any]] | None,
    compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None,
    n_trials: int,
    direction: str | list[str],
    backend: object,
    hp_name: Callable[[Any], str] | None = None,
    *,
    storage: str | Path | None = None,
    study_name: str = "cutaway",
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    timeout: float | None = None,
) -> BestRun | list[BestRun]:
    """`Trainer.hyperparameter_search`, which tells what the arguments are."""
    if str(getattr(backend, "value", backend)) != "optuna":
        raise ConfigError(f"backend is {backend!r}; searches are made with 'optuna'.")
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise ConfigError(f"n_trials is {n_trials!r:.80}: pass an integer of 1 or more.")
    refuse_several()
    if trainer.model_init is None:
        raise ConfigError("each trial needs a model of its own: give Trainer model_init= instead of model=.")
    args = session.args
    metric = args.metric_for_best_model
    several = not isinstance(direction, str)
    if several and compute_objective is None:
        raise ConfigError("direction names several values: give compute_objective, which makes them of the metrics.")
    if compute_objective is None and metric and (direction == "maximize") != bigger_is_better(args):
        raise ConfigError(
            f"direction is {direction!r}, but metric_for_best_model is {metric!r}; see greater_is_better."
        )

    def objective(metrics: dict[str, float]) -> float | Sequence[float]:
        return _objective(args, metrics) if compute_objective is None else _numbers(compute_objective(metrics))

    output = Path(args.output_dir)
    path = Path(str(storage).removeprefix("sqlite:///")) if storage is not None else output / "study.db"
    study = Study(path, output, direction, args.seed, {}, study_name, sampler, pruner)
    counts = session.callbacks.state_dict()

    def attempt(trial: Attempt) -> tuple[float | Sequence[float], dict[str, float]]:
        own = {"output_dir": str(trial.folder), "push_to_hub": False}
        session.args = type(args)(**{**args.to_dict(), **trial.settings, **own})
        session.callbacks.load_state_dict(counts)
        session.trial = trial.optuna
        watched = not several and not isinstance(trainer.eval_dataset, Mapping)  # several are evaluated one by one
        if watched:
            trial.watch.objective = lambda metrics: _single(objective(metrics))
            session.callbacks.add(trial.watch)
        try:
            resumable = not args.save_only_model and saving.numbered(trial.folder)
            trainer.train(resume_from_checkpoint=True if resumable else None)
        finally:
            session.callbacks.take(trial.watch)
        metrics = trainer.evaluate()
        trainer.save_model(_internal_call=True)
        numbers = {name: value for name, value in metrics.items() if not name.endswith(_SPEED)}
        return objective(metrics), numbers

    with saving.claimed(output):
        try:
            study.run(n_trials, hp_space or default_space, attempt, timeout=timeout)
        finally:
            session.args = args
        front = study.front()
        study.write(output)
    if several:
        return [_best_run(one) for one in front]
    best = front[0]
    session.trial = best.optuna
    session.model = trainer.call_model_init(session.trial).to(session.device)
    load_weights(session.model, best.folder)
    return _best_run(best)


def _best_run(best: Tried) -> BestRun:
    chosen = {**best.optuna.params, **best.settings}  # model_init may choose, too
    value = best.values[0] if len(best.values) == 1 else list(best.values)
    return BestRun(str(best.number), value, chosen, str(best.folder))


def _numbers(value: object) -> float | Sequence[float]:
    """What compute_objective gave, a number or several; ConfigError for anything else."""
    several = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
    given: list[Any] = [value] if several is None else several
    try:
        if any(isinstance(one, str | bytes) for one in given):
            raise TypeError
        found = [float(one) for one in given]
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(
            f"compute_objective gives {value!r:.80}: give a number, or one for each of several directions."
        ) from None
    return found[0] if several is None else found


def _single(value: float | Sequence[float]) -> float:
    if isinstance(value, Sequence):
        raise ConfigError(f"compute_objective gives {len(value)} values for 1 direction; give direction a list.")
    return float(value)


def positional(function: Callable[..., Any]) -> int:
    """How many arguments a function must or may be given by place."""
    parameters = inspect.signature(function).parameters.values()
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _objective(args: TrainingArguments, metrics: dict[str, float]) -> float:
    """metric_for_best_model, or the sum of what compute_metrics gave, or the loss."""
    if args.metric_for_best_model:
        return best_value(args, metrics)
    left_out = ("epoch", "step", "eval_loss")
    named = [v for name, v in metrics.items() if name not in left_out and not name.endswith(_SPEED)]
    return float(sum(named)) if named else float(metrics["eval_loss"])

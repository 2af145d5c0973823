"""`Trainer.hyperparameter_search`: which settings make the best model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cutaway.errors import ConfigError
from cutaway.train import saving
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import best_value, bigger_is_better
from cutaway.train.distributed import ProcessGroup, refuse_several
from cutaway.train.study import Attempt, Study
from cutaway.train.weights import load_weights

_SPEED = ("runtime", "per_second")


class BestRun(NamedTuple):
    """The best trial of a search: its number, its value, its settings, and where its model is."""

    run_id: str
    objective: float
    hyperparameters: dict[str, Any]
    run_summary: str


def default_space(trial: Any) -> dict[str, Any]:
    """The settings that a search tries unless it is told: rate, epochs, seed and batch size."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 5),
        "seed": trial.suggest_int("seed", 1, 40),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [4, 8, 16, 32, 64]),
    }


class Searching:
    """The part of `Trainer` that looks for settings."""

    args: TrainingArguments
    model: Any
    device: torch.device
    ranks: ProcessGroup
    model_init: Callable[..., torch.nn.Module] | None
    _trial: Any = None
    eval_dataset: Any
    callbacks: Any
    train: Callable[..., Any]
    evaluate: Callable[..., dict[str, float]]
    save_model: Callable[..., None]

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], Mapping[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str = "minimize",
        backend: str = "optuna",
        *,
        storage: str | Path | None = None,
        study_name: str = "cutaway",
        sampler: Any = None,
        pruner: Any = None,
        timeout: float | None = None,
    ) -> BestRun:
        """Train with different settings, and compare what `evaluate` says of the models.

        Each trial has a folder trial-N in output_dir; that of the best one stays, with its model, which is also left in
        `trainer.model`. best_settings.json and trials.csv in output_dir hold the outcome. A search that was killed goes
        on: what was cut off is tried again from its newest checkpoint, what was finished counts.

        Args:
            hp_space: optuna's trial -> settings of TrainingArguments; the rate, epochs, seed and batch size by default.
            compute_objective: metrics of an evaluation -> the value to compare. By default metric_for_best_model; where
                there is none, the sum of what compute_metrics gives, or else the loss.
            n_trials: how many trials the study is to hold, with those of an earlier call.
            direction: "minimize" or "maximize" it.
            storage: the SQLite file of the study (also as sqlite:///file); output_dir/study.db by default.
            sampler, pruner: of optuna; by default TPE, seeded, and the median rule over the evaluations in training.
            timeout: seconds after which no other trial begins.

        Raises:
            ConfigError: there is no model_init, or the direction is not that of the metric.
            InputError: the study is another process's, or another one.
            MissingExtraError: optuna is not installed.
        """
        if backend != "optuna":
            raise ConfigError(f"backend is {backend!r}; searches are made with 'optuna'.")
        refuse_several()
        if self.model_init is None:
            raise ConfigError("each trial needs a model of its own: give Trainer model_init= instead of model=.")
        args = self.args
        metric = args.metric_for_best_model
        if compute_objective is None and metric and (direction == "maximize") != bigger_is_better(args):
            raise ConfigError(
                f"direction is {direction!r}, but metric_for_best_model is {metric!r}; see greater_is_better."
            )
        objective = compute_objective or (lambda metrics: _objective(args, metrics))
        output = Path(args.output_dir)
        path = Path(str(storage).removeprefix("sqlite:///")) if storage is not None else output / "study.db"
        study = Study(path, output, direction, args.seed, {}, study_name, sampler, pruner)
        counts = self.callbacks.state_dict()

        def attempt(trial: Attempt) -> tuple[float, dict[str, float]]:
            own = {"output_dir": str(trial.folder), "push_to_hub": False}
            self.args = TrainingArguments(**{**args.to_dict(), **trial.settings, **own})
            self.callbacks.load_state_dict(counts)
            trial.watch.objective = objective
            self._trial = trial.optuna
            watched = not isinstance(self.eval_dataset, Mapping)  # several are evaluated one by one
            if watched:
                self.callbacks.add(trial.watch)
            try:
                self.train(resume_from_checkpoint=True if saving.numbered(trial.folder) else None)
            finally:
                self.callbacks.take(trial.watch)
            metrics = self.evaluate()
            self.save_model()
            numbers = {name: value for name, value in metrics.items() if not name.endswith(_SPEED)}
            return objective(metrics), numbers

        with saving.claimed(output):
            try:
                study.run(n_trials, hp_space or default_space, attempt, timeout=timeout)
            finally:
                self.args = args
            best = study.best()
            study.write(output)
        self._trial = best.optuna
        self.model = self.fresh_model().to(self.device)
        load_weights(self.model, best.folder)
        return BestRun(str(best.number), float(best.optuna.value), best.settings, str(best.folder))

    def fresh_model(self) -> Any:
        """What model_init makes; it may take the trial of a search, which is None outside one."""
        assert self.model_init is not None
        takes = len(inspect.signature(self.model_init).parameters)
        return self.model_init(*[self._trial][:takes])


def _objective(args: TrainingArguments, metrics: dict[str, float]) -> float:
    """metric_for_best_model, or the sum of what compute_metrics gave, or the loss."""
    if args.metric_for_best_model:
        return best_value(args, metrics)
    left_out = ("epoch", "step", "eval_loss")
    named = [v for name, v in metrics.items() if name not in left_out and not name.endswith(_SPEED)]
    return float(sum(named)) if named else float(metrics["eval_loss"])

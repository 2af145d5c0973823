"""The same fine-tuning with different settings: which of them makes the best model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import InputError
from cutaway.train import saving
from cutaway.train.distributed import refuse_several
from cutaway.train.study import Attempt, Study, Tried
from cutaway.tuning.fine_tuning import Outcome, R, Tuning

if TYPE_CHECKING:
    from optuna import Trial

STUDY = "study.db"


def space(trial: Trial) -> dict[str, Any]:
    """What a search tries of an optuna trial, unless it is told: rate, batch size, decay and warm-up."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [8, 16, 32]),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.1),
        "warmup_ratio": trial.suggest_float("warmup_ratio", 0.0, 0.2),
    }


def search(
    tuning: Tuning[R],
    folder: Path,
    trials: int,
    *,
    study: Path | None = None,
    resume: bool = False,
    space: Callable[[Any], Mapping[str, Any]] = space,
    told: Callable[[Tried], None] = lambda tried: None,
) -> tuple[Outcome, list[Tried]]:
    """Run `tuning` with `trials` settings; the outcome of the best ones, whose model is saved in `folder`.

    Models are compared by the loss on the validation rows; a training that does worse than the median of the others
    after as many evaluations is pruned. best_settings.json and trials.csv in `folder` say what was found. A search
    that was killed goes on with `resume`: what was finished counts, and what was cut off goes on where it was.

    Args:
        trials: how many the study is to hold, those of an earlier search included. study: its SQLite file; in `folder`
            by default. space: optuna's trial -> settings of TrainingArguments. told: gets each trial that is over.

    Raises:
        ConfigError: torchrun started several processes.
        InputError: there is a study already (or, with `resume`, none), it is of other data, or nothing has finished.
        MissingExtraError: optuna is not installed.
        OutputError: another process trains in the folder.
    """
    refuse_several()
    with saving.claimed(folder):
        return _search(tuning, folder, trials, study, resume, space, told)


def _search(
    tuning: Tuning[R],
    folder: Path,
    trials: int,
    study: Path | None,
    resume: bool,
    space: Callable[[Any], Mapping[str, Any]],
    told: Callable[[Tried], None],
) -> tuple[Outcome, list[Tried]]:
    path = study if study is not None else folder / STUDY
    if path.exists() != resume:
        raise InputError(
            f"{path} holds a search already: go on with --resume, or name another folder."
            if path.exists()
            else f"{path} holds no search to go on with; leave out --resume."
        )
    if saving.numbered(folder) or ((folder / "config.json").exists() and not resume):
        raise InputError(f"{folder} holds a training already; name another folder for a search.")
    about = tuning.record() | {"settings": {**tuning.settings, "patience": tuning.patience, "at": tuning.max_length}}
    seed = int(tuning.settings.get("seed", 42))
    held = Study(path, folder / "trials", "minimize", seed, about)

    def attempt(trial: Attempt) -> tuple[float, dict[str, float]]:
        one = dataclasses.replace(tuning, callbacks=[*tuning.callbacks, trial.watch])
        found = run(one, trial.folder, trial.settings)
        return found.metrics["eval_loss"], {
            name: value
            for name, value in found.metrics.items()
            if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
        }

    held.run(trials, space, attempt, told=told)
    best = held.best()
    held.write(folder)
    outcome = run(tuning, best.folder, best.settings)  # it has made all its steps: this only takes it up
    outcome.trainer.save_model(folder)
    tuning.write_beside(outcome.trainer, folder)
    return outcome, held.tried()


def run(tuning: Tuning[R], folder: Path, settings: Mapping[str, Any]) -> Outcome:
    """The training in a trial's folder, from its newest checkpoint where it has one."""
    return tuning.run(folder, resume=bool(saving.numbered(folder)), disable_tqdm=True, **settings)

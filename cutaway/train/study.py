"""Trials of settings, in a database that a killed process leaves whole.

One process works on a study at a time. What it finds running there was cut off: it is marked so, and its settings are
tried again, from the newest checkpoint that they left. The random numbers of a trial belong to its place in the study,
so a study that was killed makes the same trials as one that was not.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import ConfigError, InputError, MissingExtraError, OutputError
from cutaway.jsonfile import write_aside, write_text
from cutaway.locks.output_lock import OutputLock
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import TrainerCallback
from cutaway.train.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from types import ModuleType

    import optuna

MOST_ATTEMPTS = 3  # of the same settings: what kills the process each time (memory, say) would do so for ever
BEST, TABLE = "best_settings.json", "trials.csv"


@dataclass(frozen=True)
class Attempt:
    """One trial at work.

    Attributes:
        number: of the trial. settings: what is tried. folder: for its checkpoints; what an earlier attempt at the same
            settings left is still there. watch: a callback of its training, which reports evaluations and prunes.
        optuna: optuna's own trial.
    """

    number: int
    settings: dict[str, Any]
    folder: Path
    watch: Watch
    optuna: optuna.Trial


@dataclass(frozen=True)
class Tried:
    """A trial that is over.

    Attributes:
        state: "finished", "pruned", "cut off" (tried again in a later one) or "failed".
        value: what the study compares; None where there is none. measures: further numbers of it.
        optuna: optuna's own trial. values: all that it compares.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]
    measures: dict[str, float]
    seconds: float
    folder: Path
    optuna: Any
    values: tuple[float, ...] = ()


@dataclass
class Study:
    """The trials in one SQLite file.

    Attributes:
        path: the file; it is made where it is not there. folder: for the folders of the trials.
        direction: "minimize" or "maximize" the value; a list of them where a trial gives several, and then no trial is
            pruned, since none is ahead of another before its end. seed: of the choice of settings.
        about: what must be equal to go on with the study (plain values): the data, the model.
        sampler, pruner: of optuna; by default TPE and the median rule.
    """

    path: Path
    folder: Path
    direction: str | list[str] = "minimize"
    seed: int = 42
    about: Mapping[str, Any] = field(default_factory=dict)
    name: str = "cutaway"
    sampler: optuna.samplers.BaseSampler | None = None
    pruner: optuna.pruners.BasePruner | None = None
    _held: Any = field(default=None, init=False)
    _storage: Any = field(default=None, init=False)

    def run(
        self,
        trials: int,
        space: Callable[[Any], Mapping[str, Any]],
        attempt: Callable[[Attempt], tuple[float | Sequence[float], Mapping[str, float]]],
        *,
        told: Callable[[Tried], None] = lambda tried: None,
        timeout: float | None = None,
    ) -> None:
        """Make trials until the study holds `trials` of them, those of earlier processes included.

        Args:
            space: optuna's trial -> the settings to try. attempt: tries them; the value and further measures.
            told: is called with each trial that is over. timeout: seconds after which no other one begins.

        Raises:
            InputError: another process works on the study, or it is one of another task.
        """
        began = time.monotonic()
        with self._opened() as study:
            self._take_up(study)
            while self._done(study) < trials and (timeout is None or time.monotonic() - began < timeout):
                self._tidy(study)
                number = self._try(study, space, attempt)
                told(self._tried(study.trials[number]))
            self._tidy(study)

    def tried(self) -> list[Tried]:
        """Every trial that is over, in order."""
        with self._opened() as study:
            return [self._tried(trial) for trial in study.trials if trial.state.is_finished()]

    def best(self) -> Tried:
        """The finished trial with the best value; of several directions the first of `front`.

        Raises:
            InputError: none has finished.
        """
        return self.front()[0]

    def front(self) -> list[Tried]:
        """The finished trials that no other one beats in every direction, in order; of one direction the best alone.

        Raises:
            InputError: none has finished.
        """
        with self._opened() as study:
            numbers = _best(study)
            if not numbers:
                raise InputError(f"no trial in {self.path} has finished with a value; make more of them.")
            return [self._tried(study.trials[number]) for number in numbers]

    def write(self, folder: Path) -> None:
        """Write the best settings as JSON, and the table of all trials as CSV."""
        with self._opened():
            front, tried = self.front(), self.tried()
        several = not isinstance(self.direction, str)
        said = [
            {
                "trial": one.number,
                "value": list(one.values) if several else one.value,
                "measures": one.measures,
                "settings": one.settings,
            }
            for one in front
        ]
        write_text(folder / BEST, json.dumps(said if several else said[0], indent=1) + "\n")
        names = list(dict.fromkeys(name for one in tried for name in one.settings))
        measures = list(dict.fromkeys(name for one in tried for name in one.measures))
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(["trial", "state", "value", *names, *measures, "seconds"])
        for one in tried:
            cells = [one.settings.get(name) for name in names] + [one.measures.get(name) for name in measures]
            value = " ".join(map(str, one.values)) if several else one.value
            rows.writerow([one.number, one.state, value, *cells, round(one.seconds, 1)])
        write_aside(folder / TABLE, lambda aside: aside.write_bytes(text.getvalue().encode()))

    # -- inside --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Optuna's study, for this process alone."""
        optuna = _optuna()
        if self._held is not None:
            yield self._held
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = OutputLock(self.path)
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            try:
                lock.acquire()
            except OutputError as error:
                raise InputError(str(error)) from error
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{self.path}")
            self._held = self._checked(optuna)
            yield self._held
        finally:
            if self._storage is not None:
                self._storage.remove_session()
                self._storage.engine.dispose()
            self._held = self._storage = None
            optuna.logging.set_verbosity(before)
            lock.release()

    def _checked(self, optuna: Any) -> object:
        several = not isinstance(self.direction, str)
        ways = list(self.direction) if several else [self.direction]
        if not ways or any(way not in ("minimize", "maximize") for way in ways):
            raise ConfigError(
                f"direction is {self.direction!r}; it must be 'minimize' or 'maximize', or a list of these."
            )
        if several and self.pruner is not None:
            raise ConfigError("a pruner compares one value, and direction names several; leave one out.")
        usual = optuna.pruners.NopPruner() if several else optuna.pruners.MedianPruner()
        study = optuna.create_study(
            storage=self._storage, study_name=self.name, directions=ways, load_if_exists=True,
            sampler=self.sampler, pruner=self.pruner or usual,
        )  # fmt: skip
        about = {**self.about, "direction": ways if several else ways[0], "seed": self.seed}
        for name, value in about.items():
            before = study.user_attrs.get(name)
            if before is not None and before != value:
                raise InputError(
                    f"{self.path} holds a study with another {name} ({before!r:.80}, now {value!r:.80}); "
                    "name another file, or give what it was."
                )
        for name in about.keys() - study.user_attrs.keys():
            study.set_user_attr(name, about[name])
        return study

    def _take_up(self, study: optuna.Study) -> None:
        """Mark what was cut off, and line its settings up again."""
        states = _optuna().trial.TrialState
        for trial in study.get_trials(states=(states.RUNNING,)):
            where = self._storage.get_study_id_from_name(self.name)
            number = self._storage.get_trial_id_from_study_id_trial_number(where, trial.number)
            self._storage.set_trial_user_attr(number, "cut off", True)
            study.tell(trial.number, state=states.FAIL)
        again = {trial.user_attrs.get("again") for trial in study.trials}
        for trial in study.trials:
            own = trial.user_attrs
            attempts = own.get("attempt", 1)
            if "cut off" not in own or "settings" not in own or trial.number in again or attempts >= MOST_ATTEMPTS:
                continue
            kept = {"again": trial.number, "attempt": attempts + 1, "folder": own["folder"]}
            study.enqueue_trial(trial.params, user_attrs=kept)

    def _done(self, study: optuna.Study) -> int:
        """How many trials are over and are not tried again."""
        return sum(
            trial.state.is_finished()
            and ("cut off" not in trial.user_attrs or trial.user_attrs.get("attempt", 1) >= MOST_ATTEMPTS)
            for trial in study.trials
        )

    def _try(
        self, study: optuna.Study, space: Callable[[Any], Mapping[str, Any]], attempt: Callable[[Attempt], Any]
    ) -> int:
        """One trial; its number."""
        optuna = _optuna()
        if self.sampler is None:
            study.sampler = optuna.samplers.TPESampler(seed=(self.seed * 1_000_003 + self._done(study)) % 2**32)
        trial = study.ask()
        states = optuna.trial.TrialState
        trial.set_user_attr("folder", trial.user_attrs.get("folder", f"trial-{trial.number}"))
        try:
            settings = dict(space(trial))
            trial.set_user_attr("settings", settings)
            found = Attempt(
                trial.number,
                settings,
                self.folder / trial.user_attrs["folder"],
                Watch(trial, optuna.TrialPruned),
                trial,
            )
            value, measures = attempt(found)
        except optuna.TrialPruned:
            study.tell(trial, state=states.PRUNED)
        except Exception:
            study.tell(trial, state=states.FAIL)
            raise
        else:
            trial.set_user_attr("measures", {name: float(number) for name, number in measures.items()})
            values = list(value) if isinstance(value, Sequence) else [value]
            if len(values) != len(study.directions):
                study.tell(trial, state=states.FAIL)
                raise ConfigError(
                    f"compute_objective gives {len(values)} values for {len(study.directions)} directions; give one "
                    "for each."
                )
            if all(map(math.isfinite, values)):
                study.tell(trial, values)
            else:  # it went apart: no value, and no reason to stop
                study.tell(trial, state=states.FAIL)
        return int(trial.number)

    def _tried(self, trial: optuna.trial.FrozenTrial) -> Tried:
        own, states = trial.user_attrs, _optuna().trial.TrialState
        named = {states.COMPLETE: "finished", states.PRUNED: "pruned"}
        seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
        state = "cut off" if "cut off" in own else named.get(trial.state, "failed")
        return Tried(
            trial.number,
            state,
            trial.value if isinstance(self.direction, str) else None,
            own.get("settings", trial.params),
            own.get("measures", {}),
            seconds,
            self.folder / own.get("folder", ""),
            trial,
            tuple(trial.values or ()),
        )

    def _tidy(self, study: optuna.Study) -> None:
        """Remove the folders of trials that are over, but for the best one's."""
        kept = set(_best(study))
        spared = {t.user_attrs.get("folder") for t in study.trials if t.number in kept or not t.state.is_finished()}
        for trial in study.trials:
            name = trial.user_attrs.get("folder")
            if name is not None and name not in spared:
                shutil.rmtree(self.folder / name, ignore_errors=True)


class Watch(TrainerCallback):
    """Reports each evaluation of a training to its trial, and ends it where the pruner says so."""

    def __init__(self, trial: optuna.Trial, pruned: type[Exception]) -> None:
        self.trial, self.pruned = trial, pruned
        self.objective: Callable[[dict[str, Any]], float] = lambda metrics: float(metrics["eval_loss"])
        self.training, self.told = False, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Reports what an earlier attempt has already logged."""
        self.training = True
        self._report(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Reports; at the end of the training there is nothing left to prune."""
        if self.training:
            self._report(state)
            if state.global_step < state.max_steps and self.trial.should_prune():
                raise self.pruned

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """What is evaluated from here on is the result."""
        self.training = False

    def _report(self, state: TrainerState) -> None:
        said = [entry for entry in state.log_history if any(name.startswith("eval_") for name in entry)]
        for entry in said[self.told :]:
            self.trial.report(self.objective(entry), step=self.told)  # counted by evaluations: batches differ in size
            self.told += 1


def _best(study: optuna.Study) -> list[int]:
    """The number of the finished trial with the best value, or of those that no other beats; none before one ends."""
    if len(study.directions) > 1:
        return sorted(trial.number for trial in study.best_trials)
    finished = study.get_trials(states=(_optuna().trial.TrialState.COMPLETE,))
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    return [min(finished, key=lambda t: (sign * float(t.value or 0.0), t.number)).number] if finished else []


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("A search for settings needs optuna: pip install 'cutaway[search]'.") from error
    return optuna

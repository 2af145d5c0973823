"""What is logged, to a tracker of experiments: TensorBoard, MLflow, Weights & Biases or trackio.

Nothing is imported unless `report_to` names it. A resumed training goes on in the run that it began. Names are those of
the upstream library: train/loss, eval/accuracy.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

from cutaway.errors import MissingExtraError
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import TrainerCallback
from cutaway.train.state import TrainerControl, TrainerState

PROJECT = "cutaway"
_LONGEST = 500  # letters of a setting that every MLflow server takes
_AT_ONCE = 100  # settings that an MLflow server takes in one request


class Tracker(TrainerCallback):
    """Opens a run when a training begins, writes what is logged, and closes it when the training ends or breaks.

    What is logged outside a training (`trainer.evaluate()`) is added to the same run.
    """

    package: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self) -> None:
        try:
            self.library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise MissingExtraError(
                f"report_to={self.extra!r} needs a package that is not installed: pip install 'cutaway[{self.extra}]'."
            ) from error
        self.run: str | None = None  # what the tracker calls it; kept over a resume
        self.opened = self.training = False

    def open(self, args: TrainingArguments, state: TrainerState, settings: dict[str, Any], fresh: bool) -> None:
        """Begin a run and note its name in `self.run`, or, where it is not `fresh`, go on with that one."""
        raise NotImplementedError

    def write(self, numbers: dict[str, float], step: int) -> None:
        """Add numbers to the run."""
        raise NotImplementedError

    def shut(self, whole: bool) -> None:
        """Close the run; whole: whether its training ended as it should."""
        raise NotImplementedError

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Opens the run."""
        self.training = True
        self._open(args, state, kwargs.get("model"))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **kwargs: object,
    ) -> None:
        """Writes the numbers."""
        if not state.is_world_process_zero:
            return
        self._open(args, state, kwargs.get("model"))
        numbers = {_name(k): float(v) for k, v in logs.items() if isinstance(v, int | float)}
        self.write(numbers, state.global_step)
        if not self.training:
            self._shut(whole=True)

    def on_train_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Closes the run."""
        self._shut(whole=True)

    def close(self) -> None:
        """Close it also after an error."""
        self._shut(whole=False)

    def state_dict(self) -> dict[str, Any]:
        return {"run": self.run}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self.run = values["run"]

    def _open(self, args: TrainingArguments, state: TrainerState, model: object) -> None:
        if self.opened or not state.is_world_process_zero:
            return
        config: Any = getattr(model, "config", None)
        own = config.to_diff_dict() if hasattr(config, "to_diff_dict") else {}
        settings = {**{f"model/{name}": value for name, value in own.items()}, **args.to_dict()}
        self.open(args, state, settings, self.run is None)
        self.opened = True

    def _shut(self, *, whole: bool) -> None:
        self.training = False
        if self.opened:
            self.opened = False
            self.shut(whole)


class TensorBoardCallback(Tracker):
    """Event files in logging_dir, by default output_dir/runs."""

    package, extra = "torch.utils.tensorboard", "tensorboard"

    def open(self, args: TrainingArguments, state: TrainerState, settings: dict[str, Any], fresh: bool) -> None:
        """A writer; what was written after the step that is resumed from is hidden."""
        self.run = self.run or str(Path(args.logging_dir or Path(args.output_dir) / "runs") / (args.run_name or ""))
        self.writer = self.library.SummaryWriter(self.run, purge_step=None if fresh else state.global_step + 1)
        if fresh:
            self.writer.add_text("settings", f"```json\n{json.dumps(settings, indent=1, default=str)}\n```")

    def write(self, numbers: dict[str, float], step: int) -> None:
        """Scalars."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def shut(self, whole: bool) -> None:
        """Every event is on the disk after this."""
        self.writer.close()


class MLflowCallback(Tracker):
    """A run in the store of MLFLOW_TRACKING_URI; the experiment is `project`, or MLFLOW_EXPERIMENT_NAME."""

    package, extra = "mlflow", "mlflow"

    def open(self, args: TrainingArguments, state: TrainerState, settings: dict[str, Any], fresh: bool) -> None:
        """A run of its own, whatever run is active."""
        self.client = self.library.MlflowClient()
        if not fresh:
            self.client.update_run(self.run, status="RUNNING")
            return
        name = args.project or os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        where = self.client.create_experiment(name) if found is None else found.experiment_id
        self.run = self.client.create_run(where, run_name=args.run_name).info.run_id
        param = self.library.entities.Param
        said = [param(key, str(value)[:_LONGEST]) for key, value in settings.items()]
        for first in range(0, len(said), _AT_ONCE):
            self.client.log_batch(self.run, params=said[first : first + _AT_ONCE])

    def write(self, numbers: dict[str, float], step: int) -> None:
        """Metrics."""
        now, metric = int(time.time() * 1000), self.library.entities.Metric
        self.client.log_batch(self.run, metrics=[metric(name, value, now, step) for name, value in numbers.items()])

    def shut(self, whole: bool) -> None:
        """The run is finished, or failed."""
        self.client.set_terminated(self.run, "FINISHED" if whole else "FAILED")


class WandbCallback(Tracker):
    """A run of Weights & Biases; WANDB_MODE, WANDB_DIR and the rest of its variables count."""

    package, extra = "wandb", "wandb"

    def open(self, args: TrainingArguments, state: TrainerState, settings: dict[str, Any], fresh: bool) -> None:
        """A run with an id of ours, which a resume names again."""
        self.run = self.run or uuid.uuid4().hex[:12]
        self.held = self.library.init(
            project=args.project or os.environ.get("WANDB_PROJECT", PROJECT), name=args.run_name, id=self.run,
            resume="allow", config=json.loads(json.dumps(settings, default=str)),
        )  # fmt: skip

    def write(self, numbers: dict[str, float], step: int) -> None:
        """One row; the step is a column of it, because theirs must grow from row to row."""
        self.held.log({**numbers, "train/global_step": step})

    def shut(self, whole: bool) -> None:
        """Everything is written, or sent, after this."""
        self.held.finish(exit_code=0 if whole else 1)


class TrackioCallback(Tracker):
    """A run of trackio, in its local database (TRACKIO_DIR)."""

    package, extra = "trackio", "trackio"

    def open(self, args: TrainingArguments, state: TrainerState, settings: dict[str, Any], fresh: bool) -> None:
        """A run by name, which a resume names again."""
        self.run = self.run or args.run_name or f"run-{uuid.uuid4().hex[:8]}"
        self.library.init(
            project=args.project or os.environ.get("TRACKIO_PROJECT", PROJECT), name=self.run, resume="allow",
            config=json.loads(json.dumps(settings, default=str)), embed=False,
        )  # fmt: skip

    def write(self, numbers: dict[str, float], step: int) -> None:
        """One row."""
        self.library.log(numbers, step=step)

    def shut(self, whole: bool) -> None:
        """Everything is written after this."""
        self.library.finish()


BY_NAME: dict[str, type[Tracker]] = {
    kind.extra: kind for kind in (TensorBoardCallback, MLflowCallback, WandbCallback, TrackioCallback)
}


def _name(logged: str) -> str:
    """eval_loss -> eval/loss, loss -> train/loss."""
    for part in ("eval", "test"):
        if logged.startswith(f"{part}_"):
            return f"{part}/{logged.removeprefix(f'{part}_')}"
    return f"train/{logged}"

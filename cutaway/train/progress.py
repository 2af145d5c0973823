"""How far a training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from cutaway.train.callback import TrainerCallback
from cutaway.train.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHORT = {"learning_rate": "rate", "grad_norm": "norm", "train_runtime": "seconds"}
_LEFT_OUT = ("train_samples_per_second", "train_steps_per_second")


class ProgressCallback(TrainerCallback):
    """Says on standard error what is logged, and how long the rest will take."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.began, self.first = 0.0, 0

    def on_train_begin(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Opens the bar."""
        self.began, self.first = time.monotonic(), state.global_step
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Moves the bar."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self, args: object, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **kwargs: object
    ) -> None:
        """Says what was logged."""
        shown = "  ".join(f"{_SHORT.get(k, k)} {_number(v)}" for k, v in logs.items() if k not in _LEFT_OUT)
        line = f"step {state.global_step}/{state.max_steps}  {shown}"
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False)
            return
        done = state.global_step - self.first
        if done > 0 and state.global_step < state.max_steps:
            left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
            line += f"  left {int(left) // 60}:{int(left) % 60:02}"
        sys.stderr.write(line + "\n")

    def on_train_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Closes the bar."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class PrinterCallback(TrainerCallback):
    """Prints what is logged, as upstream does without a bar."""

    def on_log(
        self, args: object, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **kwargs: object
    ) -> None:
        """Prints it on standard output."""
        shown = {k: v for k, v in logs.items() if k != "total_flos"}
        if state.is_local_process_zero:
            print(shown, flush=True)  # noqa: T201 - printing is what it is for


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

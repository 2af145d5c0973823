"""Ctrl-C as a request: the step at hand is finished and saved, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cutaway.train.callback import TrainerCallback
from cutaway.train.state import TrainerControl, TrainerState


class SignalStop(TrainerCallback):
    """Saves a checkpoint after the step in which the signal came, and raises KeyboardInterrupt.

    A second signal stops at once, unless it is `patient`: torchrun sends its signals more than once.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked, self.patient = False, patient

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM are such requests; only the main thread can listen."""
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if main}
        try:
            for number in before:
                signal.signal(number, self._ask)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked and not self.patient:
            raise KeyboardInterrupt
        self.asked = True

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Asks for a checkpoint."""
        control.should_save = control.should_save or self.asked

    def on_save(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """The checkpoint is whole: now it may stop."""
        if self.asked:
            raise KeyboardInterrupt

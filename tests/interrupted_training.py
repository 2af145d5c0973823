"""A training that is stopped by Ctrl-C after a step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cutaway.train.signals import SignalStop


@contextmanager
def interrupted_after(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, every training gets SIGINT at the end of this step."""
    original = SignalStop.on_step_end

    def interrupted(self: SignalStop, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            signal.raise_signal(signal.SIGINT)
        original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SignalStop, "on_step_end", interrupted)
        yield

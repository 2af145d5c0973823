"""When something happens in a training."""

from __future__ import annotations

from enum import StrEnum


class IntervalStrategy(StrEnum):
    """Never, every so many steps, or after each epoch."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class SaveStrategy(StrEnum):
    """As `IntervalStrategy`, or only when an evaluation was better than all before it."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"
    BEST = "best"

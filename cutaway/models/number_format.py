"""Which format of numbers a model computes with, and why: what `model.precision` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One format as measured on the probe.

    Attributes:
        name: "bfloat16" or "int8".
        speedup: how many times as fast as the stored format.
        agreement: of the answers with those in the stored format, up to 1.
    """

    name: str
    speedup: float
    agreement: float


@dataclass(frozen=True)
class Precision:
    """What a model computes with, and why.

    Attributes:
        name: "float32", "bfloat16", "int8" or another dtype's name.
        why: one sentence.
        measured: what `dtype="fastest"` tried.
    """

    name: str
    why: str
    measured: tuple[Candidate, ...] = ()

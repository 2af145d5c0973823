"""One of the things that a model might answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One possible answer: a class (its index and name) or a token (its id and text)."""

    id: int
    label: str
    logit: float
    probability: float

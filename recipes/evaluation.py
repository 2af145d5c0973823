"""Figures of a two-label classifier: accuracy with its interval, calibration error."""

from __future__ import annotations

import importlib.util
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

RESAMPLES = 10_000
BINS = 15


@dataclass(frozen=True)
class Scores:
    """Accuracy, its 95% interval and calibration error in percent, cross-entropy in nats, number of texts."""

    accuracy: float
    low: float
    high: float
    ece: float
    cross_entropy: float
    count: int

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.2f}% [{self.low:.2f}, {self.high:.2f}] of {self.count} texts, "
            f"ECE {self.ece:.2f}%, cross-entropy {self.cross_entropy:.4f}"
        )


def calibration_error(out: Tensor, positive: Tensor) -> float:
    """Expected calibration error of the logits [n] in percent, 15 equal bins of confidence (Guo et al., 2017)."""
    confidence = torch.sigmoid(out.abs().double())
    right = ((out >= 0) == positive).double()
    place = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)  # confidence of two labels starts at one half
    gaps = [(confidence[place == b].sum() - right[place == b].sum()).abs() for b in range(BINS)]
    return float(sum(gaps)) / len(out) * 100


def scores(out: Tensor, positive: Tensor) -> Scores:
    """Scores of logits of P(positive) [n] against the labels [n]; the interval is a bootstrap over texts, seed 0."""
    right = ((out >= 0) == positive).double()
    draws = torch.Generator().manual_seed(0)
    resampled = torch.stack(
        [right[torch.randint(len(right), (len(right),), generator=draws)].mean() for _ in range(RESAMPLES)]
    )
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(out.double(), positive.double())
    accuracy = float(right.mean())
    return Scores(accuracy * 100, low * 100, high * 100, calibration_error(out, positive), float(entropy), len(right))


def vader_accuracy(archive: Path, work: Path, texts: Sequence[str], positive: Tensor) -> float:
    """Accuracy in percent of VADER's own scorer (positive: compound >= 0), run from its source distribution."""
    with tarfile.open(archive) as source:
        source.extractall(work, filter="data")
    file = next(work.glob("vaderSentiment-*/vaderSentiment/vaderSentiment.py"))
    spec = importlib.util.spec_from_file_location("vader", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["vader"] = module
    spec.loader.exec_module(module)
    analyzer = module.SentimentIntensityAnalyzer()
    found = torch.tensor([analyzer.polarity_scores(text)["compound"] >= 0 for text in texts])
    return float((found == positive).double().mean()) * 100

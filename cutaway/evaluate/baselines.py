"""What a classifier is compared with: always the most frequent label, and a linear probe on a base model's vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cutaway.evaluate.scoring import library

if TYPE_CHECKING:
    from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline

FOLDS, SEED = 5, 0
MOST = 5000  # rows that a probe learns from; more change its measure little


@dataclass(frozen=True)
class Baseline:
    """A simple way to answer, on the same rows. what: in a sentence."""

    name: str
    accuracy: float
    macro_f1: float
    what: str


def majority(right: Sequence[str], training: Sequence[str] | None = None) -> Baseline:
    """Always the most frequent label: of the training rows, or else of these rows themselves."""
    counts = Counter(training if training is not None else right)
    label = min(counts, key=lambda name: (-counts[name], name))
    where = "in the training rows" if training is not None else "here"
    what = f"Always says {label!r}, the label seen most {where}."
    return _measured("most frequent label", right, [label] * len(right), what)


def linear_probe(
    pipe: FeatureExtractionPipeline,
    texts: Sequence[str],
    right: Sequence[str],
    training: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Baseline | None:
    """Logistic regression on the mean of the vectors that a model gives, its own layers untouched.

    Args:
        pipe: the model, without its head. texts, right: the rows that are measured.
        training: (texts, labels) that the probe learns from; without them it learns in five folds of the rows, and is
            measured on the fold that it has not seen.

    None where the rows are too few to learn from.
    """
    linear, selection = library("sklearn.linear_model"), library("sklearn.model_selection")
    pipeline, scaling = library("sklearn.pipeline"), library("sklearn.preprocessing")
    probe = pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(max_iter=1000, C=0.1))
    vectors = _vectors(pipe, texts)
    if training is not None:
        known, labels = list(training[0])[:MOST], list(training[1])[:MOST]
        if len(set(labels)) < 2:
            return None
        said = probe.fit(_vectors(pipe, known), labels).predict(vectors).tolist()
        what = (
            f"A linear map of the base model's vectors, learned from {len(known):,} training rows; no layer is trained."
        )
    else:
        least = min(Counter(right).values())
        if len(set(right)) < 2 or least < FOLDS:
            return None
        folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
        said = selection.cross_val_predict(probe, vectors, list(right), cv=folds).tolist()
        what = (
            f"A linear map of the model's own vectors, learned in {FOLDS} folds of these rows, measured on unseen ones."
        )
    return _measured("linear probe", right, said, what)


def _vectors(pipe: FeatureExtractionPipeline, texts: Sequence[str]) -> NDArray[np.float32]:
    """[texts, width]"""
    found: NDArray[np.float32] = np.asarray(pipe(list(texts), pooling="mean", return_tensors="np", long="truncate"))
    return found


def _measured(name: str, right: Sequence[str], said: Sequence[str], what: str) -> Baseline:
    score = library("sklearn.metrics").f1_score
    accuracy = float(np.mean([a == b for a, b in zip(right, said, strict=True)]))
    labels = sorted({*right, *said})
    return Baseline(name, accuracy, float(score(right, said, labels=labels, average="macro", zero_division=0)), what)

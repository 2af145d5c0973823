"""The report of a training: one HTML file that needs nothing else, the same as a model card, and its pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import CutawayError, InputError
from cutaway.evaluate.baselines import Baseline, linear_probe, majority
from cutaway.evaluate.evaluation import Evaluation, evaluate
from cutaway.evaluate.mistakes import PAIR, Answer, confident_mistakes
from cutaway.evaluate.report import Report, Series, check_report, facts_of, model_card, predictions_beside, write_report
from cutaway.jsonfile import write_text
from cutaway.pipelines import pipeline
from cutaway.pipelines.text_classification import TextClassificationPipeline
from cutaway.show.label import printable
from cutaway.train.study import Tried
from cutaway.tuning import curves
from cutaway.tuning.fine_tuning import FineTuning, Outcome
from cutaway.tuning.labelled import KIND_NAMES
from cutaway.tuning.measures import FIRST

if TYPE_CHECKING:
    from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline

MISTAKES = 10


def check(path: Path | None = None) -> None:
    """Raises InputError where what a report needs is not installed, or its name is none: before a training."""
    if path is not None:
        check_report(path)
    try:
        import matplotlib
        import sklearn
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(error.name or "", error.name)
        raise InputError(f"The report needs {package}: pip install 'cutaway[evaluate]'.") from error
    del matplotlib, sklearn


def write(
    tuning: FineTuning,
    outcome: Outcome,
    folder: Path,
    tried: Sequence[Tried] = (),
    *,
    data: str = "",
    command: str = "",
    also: Path | None = None,
) -> None:
    """Write report.html, README.md (a model card), predictions and pictures into `folder`.

    Of several processes all call it, and the first writes.

    Args:
        tried: the trials of the search that found the settings. data, command: what the report names.
        also: another file of the report, .html or .md.
    """
    outcome.trainer.ranks.on_first_rank(lambda: _write(tuning, outcome, folder, tried, data, command, also))


def _write(
    tuning: FineTuning,
    outcome: Outcome,
    folder: Path,
    tried: Sequence[Tried],
    data: str,
    command: str,
    also: Path | None,
) -> None:
    kind = tuning.training.kind
    history = outcome.trainer.state.log_history
    curves.save(history, FIRST[kind], folder / "curves.png")
    pipe = TextClassificationPipeline(
        outcome.trainer.model, outcome.trainer.processing_class, task="text-classification", truncation=True
    )
    evaluation = evaluate(pipe, _rows(tuning))
    if kind == "number":
        evaluation = dataclasses.replace(evaluation, notes=[*evaluation.notes, _beside_the_mean(tuning)])
    answers = _answers(tuning, evaluation)
    if kind == "one":
        from cutaway.evaluate import pictures

        pictures.save(evaluation, folder / "validation.png")
    path = folder / "report.html"
    made = Report(
        title=f"A {'classifier for' if kind != 'number' else 'model of numbers, from'} {Path(data).name or 'a table'}",
        facts=_facts(tuning, outcome, data, command),
        evaluation=evaluation,
        answers=answers,
        baselines=_baselines(tuning, evaluation) if kind == "one" else (),
        mistakes=confident_mistakes(pipe, answers, MISTAKES),
        predictions=predictions_beside(path).name if answers else "",
        counts=_counts(tuning),
        parts=("rows to train on",) if tuning.training.names else (),
        series=_series(history, FIRST[kind]),
        tried=tried_table(tried),
    )
    write_report(made, path)
    fields = {
        "library_name": "cutaway",
        "pipeline_tag": "text-classification",
        "base_model": tuning.model,
        "tags": ["text-classification", "cutaway"],
    }
    write_text(folder / "README.md", model_card(made, fields))
    if also is not None:
        write_report(dataclasses.replace(made, predictions=predictions_beside(also).name if answers else ""), also)


def _beside_the_mean(tuning: FineTuning) -> str:
    """How far off a number is that is always the same: what a model of numbers stands beside."""
    mean = sum(tuning.training.labels) / len(tuning.training)
    off = sum(abs(mean - label) for label in tuning.validation.labels) / len(tuning.validation)
    return f"Always saying {mean:.4g}, the mean of the training rows, would be off by {off:.4f} on average."


def _rows(tuning: FineTuning) -> list[dict[str, Any]]:
    """The validation rows as `evaluate` takes them."""
    data = tuning.validation
    rows: list[dict[str, Any]] = [
        {"text": text, "label": list(label) if isinstance(label, tuple) else label}
        for text, label in zip(data.texts, data.labels, strict=True)
    ]
    for row, second in zip(rows, data.pairs or [], strict=False):
        row["text_pair"] = second
    return rows


def _answers(tuning: FineTuning, evaluation: Evaluation) -> list[Answer]:
    data = tuning.validation
    texts = data.texts if data.pairs is None else [a + PAIR + b for a, b in zip(data.texts, data.pairs, strict=True)]
    return [
        Answer(row, text, *answer)
        for row, (text, answer) in enumerate(zip(texts, evaluation.answers, strict=False), start=1)
        if evaluation.answers
    ]


def _baselines(tuning: FineTuning, evaluation: Evaluation) -> list[Baseline]:
    right = [answer[0] for answer in evaluation.answers]
    training = tuning.training
    found = [majority(right, training.labels)]
    try:
        base: FeatureExtractionPipeline = pipeline("feature-extraction", tuning.model, **_load(tuning))
        probe = linear_probe(base, tuning.validation.texts, right, (training.texts, training.labels))
    except CutawayError as error:  # a model whose vectors cannot be had is trained all the same
        sys.stderr.write(f"The report has no linear probe: {printable(' '.join(str(error).split()))}\n")
        probe = None
    return [*found, *([probe] if probe is not None else [])]


def _load(tuning: FineTuning) -> dict[str, Any]:
    load = dict(tuning.load)
    if "local_files_only" in load:
        load["model_kwargs"] = {"local_files_only": load.pop("local_files_only")}
    return load


def _facts(tuning: FineTuning, outcome: Outcome, data: str, command: str) -> dict[str, str]:
    state, args = outcome.trainer.state, outcome.trainer.args
    seconds = next((e["train_runtime"] for e in reversed(state.log_history) if "train_runtime" in e), 0.0)
    made = facts_of("text-classification", data, tuning.model, command)
    made |= tuning.facts()
    return made | {
        "labels": KIND_NAMES[tuning.training.kind],
        "rows": f"{len(tuning.training):,} to train on, {len(tuning.validation):,} to validate with",
        "steps": f"{state.global_step:,} of {state.max_steps:,}, {state.epoch:.2f} epochs, {seconds:,.0f} s",
        "the model kept": f"of step {state.best_global_step:,}" if state.best_global_step else "the last one",
        "batch size, rate, seed": f"{args.per_device_train_batch_size}, {args.learning_rate:g}, {args.seed}",
    }


def _counts(tuning: FineTuning) -> dict[str, tuple[int, ...]]:
    return {name: (count,) for name, count in tuning.training.counts().items()}


def _series(history: Sequence[dict[str, Any]], measure: str) -> list[Series]:
    def points(name: str) -> list[tuple[float, float]]:
        return [(float(entry["step"]), float(entry[name])) for entry in history if name in entry]

    return [
        Series("loss", [("training", points("loss")), ("validation", points("eval_loss"))]),
        Series(measure.replace("_", " "), [("validation", points(f"eval_{measure}"))]),
        Series("learning rate", [("rate", points("learning_rate"))]),
    ]


def tried_table(tried: Sequence[Tried]) -> list[list[str]]:
    """The trials of a search as the report's table, the best first; nothing without a search."""
    if not tried:
        return []
    names = list(dict.fromkeys(name for one in tried for name in one.settings))

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    best = sorted(tried, key=lambda one: (one.value is None, one.value, one.number))
    rows = [
        [str(one.number), one.state, "" if one.value is None else f"{one.value:.4f}"]
        + [cell(one.settings.get(name, "")) for name in names]
        for one in best
    ]
    return [["trial", "", "loss", *(name.replace("_", " ") for name in names)], *rows]

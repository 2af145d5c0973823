"""The report of a training: pictures and one HTML file that needs nothing else.

Texts, tokens and labels come from users: the template escapes every value, and the page's content policy allows its own
style (by its hash) and pictures inside the file, no script and no address.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import InputError
from cutaway.jsonfile import write_text
from cutaway.show.label import printable
from cutaway.train.evaluation import PredictionOutput
from cutaway.train.study import Tried
from cutaway.tuning import curves
from cutaway.tuning.fine_tuning import FineTuning, Outcome
from cutaway.tuning.labelled import KIND_NAMES
from cutaway.tuning.measures import FIRST
from cutaway.tuning.mistakes import Mistake, confident_mistakes

if TYPE_CHECKING:
    from cutaway.evaluate.evaluation import Evaluation

MISTAKES = 10


def check() -> None:
    """Raises InputError where what a report needs is not installed: before a training, not after it."""
    try:
        import matplotlib
        import sklearn
    except ImportError as error:
        raise InputError(f"The report needs {error.name}: pip install 'cutaway[evaluate]'.") from error
    del matplotlib, sklearn


def write(tuning: FineTuning, outcome: Outcome, folder: Path, tried: Sequence[Tried] = ()) -> None:
    """Write report.html, curves.png and, for single labels, validation.png into `folder`.

    Of several processes all call it, and the first writes. tried: the trials of the search that found the settings.
    """
    trainer = outcome.trainer
    answers = trainer.predict(trainer.eval_dataset) if tuning.training.kind == "one" else None
    trainer.ranks.on_first_rank(lambda: _write(tuning, outcome, folder, tried, answers))


def _write(
    tuning: FineTuning, outcome: Outcome, folder: Path, tried: Sequence[Tried], answers: PredictionOutput | None
) -> None:
    kind = tuning.training.kind
    curves.save(outcome.trainer.state.log_history, FIRST[kind], folder / "curves.png")
    pictures = [("What was logged on the way", folder / "curves.png")]
    found = {
        name.removeprefix("eval_"): value
        for name, value in outcome.metrics.items()
        if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
    }
    measures: list[tuple[str, float, tuple[float, float] | None]] = [(name, v, None) for name, v in found.items()]
    mistakes: list[Mistake] = []
    if answers is not None:
        evaluation = _evaluation(tuning, outcome)
        from cutaway.evaluate import pictures as drawing

        drawing.save(evaluation, folder / "validation.png")
        pictures.append(
            ("Answers on the validation rows, and how far their probabilities hold", folder / "validation.png")
        )
        measures = [(name, v, evaluation.intervals.get(name)) for name, v in evaluation.measures.items()]
        mistakes = confident_mistakes(
            outcome.trainer, tuning.validation, outcome.trainer.eval_dataset, answers, MISTAKES
        )
    page = render(tuning, outcome, measures, pictures, mistakes, tried)
    write_text(folder / "report.html", page)


def _evaluation(tuning: FineTuning, outcome: Outcome) -> Evaluation:
    from cutaway.evaluate import evaluate
    from cutaway.pipelines.text_classification import TextClassificationPipeline

    data, trainer = tuning.validation, outcome.trainer
    pipe = TextClassificationPipeline(
        trainer.model, trainer.processing_class, task="text-classification", truncation=True
    )
    rows: list[dict[str, Any]] = [
        {"text": text, "label": label} for text, label in zip(data.texts, data.labels, strict=True)
    ]
    for row, second in zip(rows, data.pairs or [], strict=False):
        row["text_pair"] = second
    return evaluate(pipe, rows)


def render(
    tuning: FineTuning,
    outcome: Outcome,
    measures: list[tuple[str, float, tuple[float, float] | None]],
    pictures: list[tuple[str, Path]],
    mistakes: list[Mistake],
    tried: Sequence[Tried],
) -> str:
    """The page as text."""
    from jinja2 import Environment

    assets = files("cutaway.tuning")
    style = (assets / "report.css").read_text("utf-8")
    state, args = outcome.trainer.state, outcome.trainer.args
    seconds = next((e["train_runtime"] for e in reversed(state.log_history) if "train_runtime" in e), 0.0)
    facts = {
        "model": tuning.model,
        "labels": KIND_NAMES[tuning.training.kind],
        "rows": f"{len(tuning.training):,} to train on, {len(tuning.validation):,} to validate with",
        "steps": f"{state.global_step:,} of {state.max_steps:,}, {state.epoch:.2f} epochs, {seconds:,.0f} s",
        "the model kept": f"of step {state.best_global_step:,}" if state.best_global_step else "the last one",
        "batch size, rate, seed": f"{args.per_device_train_batch_size}, {args.learning_rate:g}, {args.seed}",
    }
    counts = tuning.training.counts() if tuning.training.names else {}
    aside = tuning.validation.counts() if tuning.training.names else {}
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["printable"] = printable
    page.filters["short"] = lambda value: f"{value:.4g}" if isinstance(value, float) else printable(str(value))
    return page.from_string((assets / "report.html").read_text("utf-8")).render(
        hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        style=style,
        facts=facts,
        measures=measures,
        counts=[(name, counts[name], aside[name]) for name in counts],
        pictures=[(title, base64.b64encode(path.read_bytes()).decode()) for title, path in pictures],
        mistakes=mistakes,
        settings=list(dict.fromkeys(name for one in tried for name in one.settings)),
        tried=sorted(tried, key=lambda one: (one.value is None, one.value, one.number)),
    )

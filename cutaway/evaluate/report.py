"""A report of an evaluation that can be handed in: one HTML file, or Markdown.

Texts and labels come from users and models: in HTML every value is escaped, in Markdown what would be markup is.
"""

from __future__ import annotations

import csv
import io
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from cutaway import __version__
from cutaway.errors import InputError, counted
from cutaway.evaluate.baselines import Baseline
from cutaway.evaluate.evaluation import Evaluation
from cutaway.evaluate.mistakes import Answer, Mistake
from cutaway.evaluate.plain_words import sentence
from cutaway.jsonfile import require_folder, write_text
from cutaway.show.chart import Axes, written
from cutaway.show.label import clipped, printable
from cutaway.show.paper import paper

AVERAGES = ("micro avg", "macro avg", "weighted avg", "samples avg", "accuracy")  # in a report, beside the labels
ENDINGS = (".html", ".md")
CLIPPED = 600  # characters of a mistake's text
MATRIX = 12  # labels up to which a confusion matrix is drawn


@dataclass(frozen=True)
class Series:
    """A chart of numbers over steps: its title, and (name, points) of each line."""

    title: str
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        title: of the page. facts: name -> value: task, data, command, ...
        evaluation: what was measured. answers: every row's; none for tasks without labels.
        baselines: what the model stands beside. mistakes: the most confident ones.
        predictions: the file name of the table beside the report; "" for none.
        counts: label -> rows of each part of the data; parts: what these parts are called.
        before: measure -> what it was before the training. before_is: what that was, in words.
        series: charts of a training. tried: a table of settings that were tried, header first.
    """

    title: str
    facts: Mapping[str, str]
    evaluation: Evaluation
    answers: Sequence[Answer] = ()
    baselines: Sequence[Baseline] = ()
    mistakes: Sequence[Mistake] = ()
    predictions: str = ""
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    parts: Sequence[str] = ()
    series: Sequence[Series] = ()
    tried: Sequence[Sequence[str]] = ()
    before: Mapping[str, float] = field(default_factory=dict)
    before_is: str = "before the training"

    @property
    def before_head(self) -> str:
        """The head of the column: "before", or whose the figures are."""
        return "before" if self.before_is.startswith("before") else self.before_is.removeprefix("by ")

    def lead(self) -> str:
        """The result in one sentence."""
        measures, rows = self.evaluation.measures, counted(self.evaluation.rows, "row")
        if not measures:
            return f"Nothing could be measured on {rows}."
        name, value = next(iter(measures.items()))
        if name != "accuracy":
            earlier = f", {self.before[name]:.4f} {self.before_is}" if name in self.before else ""
            ends = self.evaluation.intervals.get(name)
            spread = f" (95% interval {ends[0]:.4f} to {ends[1]:.4f})" if ends is not None else ""
            named = _named(name)
            said = f"{named[0].upper()}{named[1:]} is {value:.4f} over {rows}{spread}{earlier}. {sentence(name)}"
            return said.rstrip()
        said = f"{value:.1%} of {rows} get the right label"
        if (ends := self.evaluation.intervals.get(name)) is not None:
            said += f" (95% interval {ends[0]:.1%} to {ends[1]:.1%})"
        beside = [f"{one.accuracy:.1%} by the {one.name}" for one in self.baselines]
        return said + (f"; {' and '.join(beside)}." if beside else ".")

    def labels(self) -> list[tuple[str, float, float, float, int]]:
        """(label, precision, recall, F1, rows) of each."""
        found = self.evaluation.details.get("report") or {}
        return [
            (name, one["precision"], one["recall"], one["f1-score"], int(one["support"]))
            for name, one in found.items()
            if isinstance(one, dict) and name not in AVERAGES
        ]

    def counted_what(self) -> str:
        """What a label's figures count: "rows", or where words are labelled "entities" or "words"."""
        return str(self.evaluation.details.get("counted", "rows"))

    def of_labels(self) -> str:
        """What precision and recall say, in a sentence."""
        what = self.counted_what()
        return (
            f"Precision: of the {what} that got this label, the share that has it. Recall: of the {what} that have it, "
            "the share that got it. F1 is high only where both are."
        )

    def calibration(self) -> str:
        """What the reliability of the probabilities says, in a sentence; "" where there is none."""
        bins = self.evaluation.details.get("reliability")
        if not bins:
            return ""
        said = sum(one["share"] * one["confidence"] for one in bins)
        right = sum(one["share"] * one["accuracy"] for one in bins)
        if abs(said - right) < 0.02:
            return f"The model says {said:.0%} on average and is right in {right:.0%}: it can be taken at its word."
        how = "surer than it should be" if said > right else "less sure than it could be"
        return f"The model says {said:.0%} on average and is right in {right:.0%}: it is {how}."


def facts_of(task: str, data: str, model: str, command: str) -> dict[str, str]:
    """What every report names."""
    import torch

    made = {"task": task, "model": model, "data": data, "date": date.today().isoformat()}
    if command:
        made["command"] = command
    python, system = platform.python_version(), platform.system()
    return made | {"versions": f"cutaway {__version__}, torch {torch.__version__}, Python {python}, {system}"}


def check_report(path: Path) -> None:
    """InputError for a name that no report can have, before the work."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path.name}: a report's name ends in .html or .md.")
    require_folder(path)


def predictions_beside(path: Path) -> Path:
    """Where the table of a report's answers is written."""
    return path.with_name(f"{path.stem}.predictions.csv")


def write_report(report: Report, path: Path) -> None:
    """Write .html or .md, and the table of all answers beside it."""
    check_report(path)
    write_text(path, html(report) if path.suffix.lower() == ".html" else markdown(report))
    if report.predictions:
        write_text(path.with_name(report.predictions), predictions_table(report.answers))


def predictions_table(answers: Sequence[Answer]) -> str:
    """All answers as CSV: row, text, what is right, what was said, its probability, whether it is right."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "text", "right", "said", "probability", "correct"])
    for one in answers:
        writer.writerow([one.row, one.text, one.right, one.said, f"{one.confidence:.6f}", one.right == one.said])
    return text.getvalue().encode("utf-8", "replace").decode()


def html(report: Report) -> str:
    """The page as text."""
    evaluation = report.evaluation
    template = (files("cutaway.evaluate") / "report.html").read_text("utf-8")
    bins = evaluation.details.get("reliability")
    return paper(
        template,
        report.title,
        report=report,
        measures=_measures(evaluation),
        before={_named(name): value for name, value in report.before.items()},
        before_head=report.before_head,
        reliability=_reliability(bins) if bins else "",
        matrix=_matrix(evaluation),
        charts=[(one.title, _series(one)) for one in report.series if any(points for _, points in one.lines)],
        clip=lambda text: clipped(text, CLIPPED),
        wrong=sum(one.right != one.said for one in report.answers),
    )


# measures from 0 to 1, as curves are called
SHARES = frozenset({"accuracy", "macro f1", "micro f1", "f1", "precision", "recall", "ece", "exact match"})


def _named(measure: str) -> str:
    own = {"ece": "calibration error", "macro_f1": "macro F1", "micro_f1": "micro F1", "f1": "F1", "rmse": "RMSE"}
    own |= {"mrr_at_10": "MRR at 10", "ndcg_at_10": "NDCG at 10", "bleu": "BLEU", "chrf": "chrF"}
    own |= {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    return own.get(measure, measure.replace("_", " "))


def _measures(evaluation: Evaluation) -> list[tuple[str, float, tuple[float, float] | None, str]]:
    words = {name: sentence(name) for name in evaluation.measures}
    if "counted" in evaluation.details and "accuracy" in words:
        words["accuracy"] = "The share of words with the right tag."
    return [
        (_named(name), value, evaluation.intervals.get(name), words[name])
        for name, value in evaluation.measures.items()
    ]


def _reliability(bins: Sequence[Mapping[str, float]]) -> str:
    axes = Axes(
        (0, 1), (0, 1), "probability that the model gives its answer", "how often it is right",
        "Reliability: the share of right answers by the probability that the model gave them", shares=True,
    )  # fmt: skip
    axes.line([(0, 0), (1, 1)], "ideal")
    points = [(one["confidence"], one["accuracy"]) for one in bins]
    axes.line(points, "line k0")
    axes.dots(points, [3 + 10 * one["share"] ** 0.5 for one in bins], "dots c0")
    return axes.svg()


def _matrix(evaluation: Evaluation) -> list[tuple[str, list[tuple[int, int]]]]:
    """(label, (count, shade from 0 to 8) of each label said) of each row of the confusion matrix."""
    labels, counts = evaluation.details.get("labels", []), evaluation.details.get("confusion")
    if counts is None or len(labels) > MATRIX:
        return []
    rows = []
    for label, row in zip(labels, counts, strict=True):
        whole = max(sum(row), 1)
        rows.append((str(label), [(int(count), round(8 * count / whole)) for count in row]))
    return rows


def _series(series: Series) -> str:
    every = [point for _, points in series.lines for point in points]
    xs, ys = [x for x, _ in every], [y for _, y in every]
    low, high = min(ys), max(ys)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    span = (low - room, high + room)
    if series.title.lower() in SHARES:  # no axis shows what a share cannot be
        span = (max(span[0], 0.0), min(span[1], 1.0)) if high > low else (0.0, 1.0)
    axes = Axes((min(0.0, *xs), max(xs) or 1.0), span, "step", "", series.title, counts=True)
    for i, (_, points) in enumerate(series.lines):
        axes.line(points, f"line k{i}")
        axes.dots(points, [2.5] * len(points), f"c{i}")
    names = "".join(
        f'<text class="halo" x="60" y="{26 + 16 * i}"><tspan class="c{i}">●</tspan> {written(name)}</text>'
        for i, (name, points) in enumerate(series.lines)
        if points and len(series.lines) > 1
    )
    return axes.svg().replace("</svg>", f"{names}</svg>")


_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


def _md(text: object) -> str:
    """A text as Markdown that shows it as it is, on one line."""
    return _MARKUP.sub(r"\\\1", printable(" ".join(str(text).split())))


def _md_table(header: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> list[str]:
    line = " | ".join("---:" if i in numbers else "---" for i in range(len(header)))
    return [
        f"| {' | '.join(header)} |",
        f"| {line} |",
        *(f"| {' | '.join(_md(cell) for cell in row)} |" for row in rows),
        "",
    ]


def markdown(report: Report, level: int = 1) -> str:
    """The report as Markdown; `level`: of its title."""
    top, sub = "#" * level, "#" * (level + 1)
    evaluation = report.evaluation
    lines = [f"{top} {_md(report.title)}", "", _md(report.lead()), ""]
    lines += _md_table(("", ""), list(report.facts.items()))
    lines += [f"{sub} Measures", ""]
    rows: list[Sequence[object]] = [
        (name, f"{value:.4f}", f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "", words)
        for name, value, ends, words in _measures(evaluation)
    ]
    if report.before:
        earlier = [f"{report.before[name]:.4f}" if name in report.before else "" for name in evaluation.measures]
        rows = [(*row[:3], before, row[3]) for row, before in zip(rows, earlier, strict=True)]
    header = ("measure", "value", "95% interval", *([report.before_head] if report.before else []), "in words")
    lines += _md_table(header, rows, (1,))
    lines += [f"Note: {_md(note)}\n" for note in evaluation.notes]
    if report.baselines:
        lines += [f"{sub} Beside simple ways to answer", ""]
        own = ("this model", f"{evaluation.measures['accuracy']:.4f}", f"{evaluation.measures['macro_f1']:.4f}", "")
        others = [(one.name, f"{one.accuracy:.4f}", f"{one.macro_f1:.4f}", one.what) for one in report.baselines]
        lines += _md_table(("", "accuracy", "macro F1", ""), [own, *others], (1, 2))
    if labels := report.labels():
        lines += [f"{sub} Each label", ""]
        shown = [(name, f"{p:.4f}", f"{r:.4f}", f"{f:.4f}", f"{n:,}") for name, p, r, f, n in labels]
        lines += _md_table(("label", "precision", "recall", "F1", report.counted_what()), shown, (1, 2, 3, 4))
    if calibration := report.calibration():
        lines += [f"{sub} Can its probabilities be trusted?", "", _md(calibration), ""]
        each = [
            (f"{one['confidence']:.1%}", f"{one['accuracy']:.1%}", f"{one['share']:.1%}")
            for one in evaluation.details["reliability"]
        ]
        lines += _md_table(("it says", "it is right in", "share of answers"), each, (0, 1, 2))
    if report.mistakes:
        lines += [f"{sub} The most confident mistakes", ""]
        for one in report.mistakes:
            answer = one.answer
            said = f"**{_md(answer.said)}** with {answer.confidence:.1%}, right: **{_md(answer.right)}**"
            lines += [f"- {said} (row {answer.row}): {_md(clipped(answer.text, CLIPPED))}"]
        lines += [""]
    if report.predictions:
        lines += [f"Every row's answer stands in {_md(report.predictions)}.", ""]
    return "\n".join(lines)


def model_card(report: Report, fields: Mapping[str, Any]) -> str:
    """README.md of a model's folder: the hub's fields, then the report."""
    import json

    head = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *head, "---", "", markdown(report)])

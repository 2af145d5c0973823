"""An evaluation: a model's answers for the rows of a table, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import InputError
from cutaway.evaluate.scoring import SCORERS, TEXTS, Column, Scored, Scorer, Table, library, row_number
from cutaway.pipelines.row_faults import blank_rows, has_blank, is_blank

if TYPE_CHECKING:
    from cutaway.pipelines.base import Pipeline

RESAMPLES, SEED = 1000, 0
INPUTS = ("text", "text_pair", "tokens", "question", "context")  # what a model reads; the others are right answers


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        task: the pipeline's task.
        rows: how many were scored.
        measures: name -> value over all rows.
        intervals: name -> 95% interval of those measures that are means over rows (bootstrap percentiles, Efron 1979).
        per_row: name -> one value for each row, what comparisons are made of.
        details: what only this task has: labels, confusion matrix, reliability bins, the report per label, the
            tokenizer and signatures.
        answers: (right label, label said, its probability) of each row, where each has one label.
        notes: sentences about measures that say little on these rows, and about how was counted.
    """

    task: str
    rows: int
    measures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_row: dict[str, np.ndarray] = field(repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    notes: list[str] = field(default_factory=list)
    answers: list[tuple[str, str, float]] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the values of single rows."""
        return {
            "task": self.task,
            "rows": self.rows,
            "measures": self.measures,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "details": self.details,
            "notes": self.notes,
        }


def evaluate(
    pipe: Pipeline,
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    tokenizer: str | None = None,
    numbers: Sequence[int] = (),
) -> Evaluation:
    """Measure a pipeline on rows that hold inputs and right answers.

    Args:
        pipe: a pipeline; its task decides what is read and measured:

            | task | columns | measures |
            | --- | --- | --- |
            | text-classification | text, (text_pair), label | accuracy, macro_f1, ece, brier, cross_entropy |
            | the same, several labels | text, label (lists) | micro_f1, macro_f1, exact |
            | the same, numbers | text, label | mean_absolute_error, rmse, pearson |
            | token-classification | tokens, tags (lists) | precision, recall, f1, accuracy; without B-, I-: macro_f1 |
            | question-answering | question, context, answers | exact_match, f1 |
            | summarization | text, target | rouge1, rouge2, rougeL |
            | translation, text2text-generation | text, target | bleu, chrf |
            | perplexity | text | perplexity, loss |

        rows: the rows, all of them read. Those whose text is blank are not measured; a note says which.
        columns: what the rows call these columns, where it is something else.
        tokenizer: how ROUGE ("rouge", "unicode", "char") or BLEU ("13a", "zh", "char", "intl", "ja-mecab", "ko-mecab",
            "none") cut texts into words; by the script of the right answers unless given.
        numbers: of the rows in their file, which errors name; 1, 2, 3, ... unless given.

    Raises:
        InputError: before the pipeline runs: no row, a missing column, a label that the model does not have, a task
            that is not measured, a package that is missing.
    """
    if not hasattr(pipe, "task"):
        raise InputError(f"{pipe!r:.60} is no pipeline; make one with pipeline(task, model).")
    scorer, table, blank = prepare(pipe.task, list(rows), columns or {}, tokenizer, numbers)
    scorer.check(getattr(getattr(pipe, "model", None), "config", None), table)
    scored: Scored = scorer.score(pipe, table, tokenizer)
    intervals = {name: interval(values) for name, values in scored.per_row.items() if name in scored.measures}
    rows_scored = len(next(iter(table.values())))
    left = blank_rows(blank, "are not measured" if len(blank) > 1 else "is not measured")
    notes = [*([left] if left else []), *scored.notes]
    return Evaluation(
        pipe.task, rows_scored, scored.measures, intervals, scored.per_row, scored.details, notes, scored.answers
    )


def prepare(
    task: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    tokenizer: str | None = None,
    numbers: Sequence[int] = (),
) -> tuple[Scorer, Table, list[int]]:
    """How a task is scored, the columns of the rows that it reads, and the numbers of rows left out as blank.

    That is all that can be known without a model.

    Raises:
        InputError: as in `evaluate`.
    """
    scorer = SCORERS.get(task.split("_")[0])
    if scorer is None:
        raise InputError(f"{task} is not evaluated; these are: {', '.join(SCORERS)}.")
    for name in columns:
        if name not in scorer.reads:
            raise InputError(f"{task} is evaluated on the columns {', '.join(scorer.reads)}, not on {name!r}.")
    if tokenizer is not None and tokenizer not in scorer.tokenizers:
        known = f"can be {', '.join(scorer.tokenizers)}" if scorer.tokenizers else "belongs to ROUGE and BLEU"
        raise InputError(f"tokenizer={tokenizer!r}: for {task} it {known}.")
    for library_name in scorer.libraries:
        library(library_name)
    numbers = numbers or range(1, len(rows) + 1)
    stray = next((place for place, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if stray is not None:
        what = f"a {type(rows[stray]).__name__} ({rows[stray]!r:.40})"
        raise InputError(f"Row {numbers[stray]} is {what}: a row is a dict of its columns.")
    inputs = [name for name in scorer.reads if name in INPUTS]
    places = [place for place, row in enumerate(rows) if not has_blank(row, inputs, scorer.optional, columns)]
    if rows and not places:
        raise InputError(f"No row has a text: {columns.get(inputs[0], inputs[0])!r} is blank in all {len(rows):,}.")
    blank = sorted(set(numbers) - {numbers[place] for place in places})
    rows, numbers = [rows[place] for place in places], [numbers[place] for place in places]
    table: Table = {**_columns(rows, scorer.reads, scorer.optional, columns, numbers)}
    for name in TEXTS:
        for place, value in enumerate(texts := table.get(name, [])):
            if not isinstance(value, str):
                raise InputError(
                    f"Row {row_number(texts, place)}: {columns.get(name, name)!r} is {value!r:.60}, not a text."
                )
            if name == "target" and is_blank(value):
                row = row_number(texts, place)
                raise InputError(f"Row {row}: {columns.get(name, name)!r} is blank: nothing can be compared with it.")
    return scorer, table, blank


def _columns(
    rows: Sequence[Mapping[str, Any]],
    reads: tuple[str, ...],
    optional: tuple[str, ...],
    renamed: Mapping[str, str],
    numbers: Sequence[int],
) -> dict[str, Column]:
    if not rows:
        raise InputError("There is no row to evaluate on.")
    found: dict[str, Column] = {}
    for name in reads:
        column = renamed.get(name, name)
        missing = next((i for i, row in enumerate(rows) if row.get(column) is None), None)
        if missing is None:
            found[name] = Column(row[column] for row in rows)
            found[name].numbers = numbers
        elif name not in optional or name in renamed:
            raise InputError(
                f"Row {numbers[missing] if numbers else missing + 1} has no {column!r}; it has "
                f"{', '.join(map(repr, rows[missing])) or 'nothing'}. "
                f"Say which column holds the {name}: columns={{{name!r}: ...}}, or --column {name}=NAME."
            )
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% bootstrap interval of the mean of `values` [rows], with a fixed seed."""
    draw = np.random.default_rng(SEED)
    means = [float(values[draw.integers(0, len(values), len(values))].mean()) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)

"""`cutaway evaluate`: how good a model is on a table with right answers, alone or beside another model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import as_line, command_line, console, plain, table_of, write
from cutaway.commands.file_names import check_folder, check_new
from cutaway.commands.model_head import check_head, config_of
from cutaway.commands.option import (
    AsJson,
    Delimiter,
    Dtypes,
    Encoding,
    Offline,
    Revision,
    Threads,
    pipeline_arguments,
)
from cutaway.jsonfile import write_text
from cutaway.show.label import printable

if TYPE_CHECKING:
    from cutaway.evaluate import Evaluation
    from cutaway.pipelines.base import Pipeline

AVERAGES = ("micro avg", "macro avg", "weighted avg", "samples avg", "accuracy")  # in a report, beside the labels
MOST = 30  # labels in the terminal
MISTAKES = 10  # in a report


def evaluate(
    model: Annotated[str, typer.Argument(help="A name, a folder, or a .gguf file.")],
    data: Annotated[Path, typer.Argument(help="A table: .csv .tsv .jsonl .parquet, or .txt for perplexity.")],
    task: Annotated[str, typer.Option(help="The pipeline's task.")] = "text-classification",
    column: Annotated[
        list[str] | None,
        typer.Option(help="The column with the texts; or NAME=COLUMN, for example label=stars. Repeatable."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="What BLEU (13a, zh, char, ...) or ROUGE (rouge, unicode, char) count; by script else."),
    ] = None,
    against: Annotated[str | None, typer.Option(help="A second model, compared on the same rows.")] = None,
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="Also write .json, or .png, .svg, .pdf. Repeatable.")
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="A report to hand in: .html or .md; answers as a table beside it. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that are written.")] = False,
    truncation: Annotated[bool, typer.Option("--truncation", help="Cut texts over the model's length.")] = False,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Measure a model on a table with right answers."""
    from cutaway.errors import InputError, counted
    from cutaway.evaluate.report import check_report
    from cutaway.jobs import TableReader

    paths = _check_outputs(output or [], task)
    for path in report or []:
        check_report(path)
    if not overwrite:
        check_new([*paths, *(report or [])])
    columns = _renamed(column or [], task)
    reader = TableReader(data, encoding=encoding, delimiter=delimiter)
    _check_columns(reader.columns, task, columns)
    rows = list(reader.rows())
    broken = next((f"Row {row.number} of {data}: {row.error}." for row in rows if row.error), None)
    if broken:
        raise InputError(broken)
    options = pipeline_arguments(revision, offline, threads, dtype)
    if truncation:
        options["truncation"] = True

    from cutaway.evaluate import compare
    from cutaway.evaluate import evaluate as run
    from cutaway.evaluate.evaluation import prepare
    from cutaway.pipelines import pipeline

    values, numbers = [row.values for row in rows], [row.number for row in rows]
    scorer, table, blank = prepare(task, values, columns, tokenizer, numbers)
    names = [model, *([against] if against else [])]
    for name in names:  # every model's labels, before the first one is loaded
        config = config_of(name, options)
        check_head(name, config, task, f"measured on {task}")
        scorer.check(config, table)

    pipes: list[Pipeline] = []

    def measured(name: str) -> Evaluation:
        sys.stderr.write(f"{name}: {counted(len(rows) - len(blank), 'row')}\n")
        pipes.append(pipeline(task, name, **options))
        return run(pipes[-1], values, columns=columns, tokenizer=tokenizer, numbers=numbers)

    found = [(name, measured(name)) for name in names]
    record: dict[str, Any] = {"models": [{"model": name, **evaluation.to_dict()} for name, evaluation in found]}
    if against:
        record["comparison"] = [vars(entry) for entry in compare(found[0][1], found[1][1])]
    for path in paths:
        if path.suffix.lower() == ".json":
            write_text(path, json.dumps(record, indent=1) + "\n")
        else:
            from cutaway.evaluate import pictures

            pictures.save(found[0][1], path)
        _say(f"{path}: {'all measures' if path.suffix.lower() == '.json' else 'a picture'}")
    if report:
        _write_reports(report, found[0][1], pipes[0], table, model, data)
    write(as_line(record)) if as_json else _show(found, record.get("comparison", []))


def _write_reports(
    paths: list[Path],
    evaluation: Evaluation,
    pipe: Pipeline,
    table: dict[str, list[Any]],
    model: str,
    data: Path,
) -> None:
    from dataclasses import replace

    from cutaway.evaluate.baselines import linear_probe, majority
    from cutaway.evaluate.mistakes import PAIR, Answer, confident_mistakes
    from cutaway.evaluate.report import Report, facts_of, predictions_beside, write_report
    from cutaway.evaluate.scoring import row_number
    from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline

    answers, mistakes, baselines = [], [], []
    if evaluation.answers:
        pairs = table.get("text_pair")
        texts = table["text"] if pairs is None else [a + PAIR + b for a, b in zip(table["text"], pairs, strict=True)]
        lines = enumerate(zip(texts, evaluation.answers, strict=True))
        answers = [Answer(row_number(table["text"], place), text, *answer) for place, (text, answer) in lines]
        mistakes = confident_mistakes(pipe, answers, MISTAKES)
        right = [answer.right for answer in answers]
        own = FeatureExtractionPipeline(pipe.model.base_model, pipe.tokenizer, task="feature-extraction")
        probe = linear_probe(own, table["text"], right)
        baselines = [majority(right), *([probe] if probe is not None else [])]
    facts = facts_of(pipe.task, str(data), model, command_line()) | {"rows": f"{evaluation.rows:,}"}
    made = Report(f"{Path(model).name} on {data.name}", facts, evaluation, answers, baselines, mistakes)
    for path in paths:
        beside = predictions_beside(path)
        write_report(replace(made, predictions=beside.name if answers else ""), path)
        _say(f"{path}: the report{f', and the answers of all rows in {beside}' if answers else ''}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _check_outputs(paths: list[Path], task: str) -> list[Path]:
    """The files to write, checked before a row is read."""
    from cutaway.errors import InputError
    from cutaway.evaluate.scoring import library

    for path in paths:
        if path.suffix.lower() not in (".json", ".png", ".svg", ".pdf"):
            raise typer.BadParameter(f"{path.name}: the name must end in .json, .png, .svg or .pdf.")
        check_folder(path)
        if path.suffix.lower() != ".json":
            if task != "text-classification":
                raise InputError(f"{path}: {task} has no picture; write the measures as .json.")
            library("matplotlib")
    return paths


def _renamed(columns: list[str], task: str) -> dict[str, str]:
    """NAME=COLUMN of each --column; COLUMN alone is the one that holds the text."""
    from cutaway.evaluate.scoring import SCORERS

    found = {}
    reads = SCORERS[task.split("_")[0]].reads if task.split("_")[0] in SCORERS else ("text",)
    for entry in columns:
        name, _, value = entry.rpartition("=")
        found[name or reads[0]] = value
    return found


def _check_columns(columns: list[str] | None, task: str, renamed: dict[str, str]) -> None:
    """Raises InputError where the table's header lacks a column that the task reads."""
    from cutaway.errors import InputError
    from cutaway.evaluate.scoring import SCORERS
    from cutaway.jobs.table_reader import way_to_column

    scorer = SCORERS.get(task.split("_")[0])
    for name in scorer.reads if columns is not None and scorer is not None else ():
        column = renamed.get(name, name)
        needed = name in renamed or (scorer is not None and name not in scorer.optional)
        if columns is not None and needed and column not in columns:
            way = way_to_column(columns, column, f" Name the one that holds the {name} with --column {name}=NAME.")
            raise InputError(f"The table has no column {column!r}; it has {', '.join(map(repr, columns))}.{way}")


def _show(found: list[tuple[str, Any]], comparison: list[dict[str, Any]]) -> None:
    table = table_of("measure", *(f"{name}>" for name, _ in found))
    for measure in found[0][1].measures:
        cells = []
        for _, evaluation in found:
            ends = evaluation.intervals.get(measure)
            spread = f"  [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
            cells.append(f"{evaluation.measures[measure]:.4f}{spread}")
        table.add_row(measure, *cells)
    console().print(table)
    for name, evaluation in found:
        _show_labels(name if len(found) > 1 else "", evaluation.details.get("report"))
    for entry in comparison:
        low, high = entry["interval"]
        write(
            f"{entry['measure']}: {entry['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p = {entry['p_value']:.2g}, "
            f"better on {entry['wins']:,} rows, worse on {entry['losses']:,}"
        )
    for note in dict.fromkeys(note for _, evaluation in found for note in evaluation.notes):
        write(f"Note: {note}")


def _show_labels(name: str, report: dict[str, Any] | None) -> None:
    """A line for each label, those with most rows first where there are many."""
    rows = {label: one for label, one in (report or {}).items() if isinstance(one, dict)}
    rows = {label: one for label, one in rows.items() if label not in AVERAGES}
    if not rows:
        return
    shown = sorted(rows, key=lambda label: -rows[label]["support"])[:MOST] if len(rows) > MOST else list(rows)
    write("")
    table = table_of(f"label{' (' + name + ')' if name else ''}", "precision>", "recall>", "F1>", "rows>")
    for label in shown:
        one = rows[label]
        figures = (f"{one[key]:.4f}" for key in ("precision", "recall", "f1-score"))
        table.add_row(plain(printable(label)), *figures, f"{one['support']:,.0f}")
    console().print(table)
    if len(shown) < len(rows):
        write(f"The {len(shown)} labels with most rows, of {len(rows)}; --json holds all.")

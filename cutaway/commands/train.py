"""`cutaway train`: fine-tune a model on a table of texts and labels."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import command_line
from cutaway.commands.option import Delimiter, Encoding, Offline, Revision, Threads, choice, load_arguments
from cutaway.errors import counted

if TYPE_CHECKING:
    from cutaway.train.study import Tried
    from cutaway.tuning.fine_tuning import Outcome, R, RowsToTrainOn, Tuning
    from cutaway.tuning.labelled import Kind, Labelled
    from cutaway.tuning.task_rows import TaskRows

FEW_ROWS = 64  # of a label, up to which few-labels is named
MANY = 50  # rows to validate with, below which it is said that they are few
STOPPED = 130  # what a shell calls a program that Ctrl-C ended


class Task(StrEnum):
    """What is trained."""

    text_classification = "text-classification"
    few_labels = "few-labels"
    token_classification = "token-classification"
    question_answering = "question-answering"
    summarization = "summarization"
    translation = "translation"
    text2text_generation = "text2text-generation"
    fill_mask = "fill-mask"
    text_generation = "text-generation"
    sentence_similarity = "sentence-similarity"
    rerank = "rerank"


class Labels(StrEnum):
    """What the labels are."""

    one = "one"
    several = "several"
    number = "number"


def train(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A name or a folder.")],
    data: Annotated[str, typer.Argument(help="A table (.csv .tsv .jsonl .parquet), or a data set's folder or name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the model and the report.")],
    task: Annotated[
        Task, typer.Option(parser=choice(Task), metavar=f"<{'|'.join(Task)}>", help="What the model is to do.")
    ] = Task.text_classification,
    column: Annotated[
        list[str] | None,
        typer.Option(help="The column with the texts; or NAME=COLUMN for any column of the task. May be repeated."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="The same as --column text=NAME.")] = None,
    label: Annotated[str | None, typer.Option(help="The same as --column label=NAME.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="The same as --column text_pair=NAME, for pairs.")] = None,
    labels: Annotated[Labels | None, typer.Option(help="one each, several at once, or a number; else seen.")] = None,
    split: Annotated[str, typer.Option(help="The part of a data set to train on.")] = "train",
    validation: Annotated[str, typer.Option(help="A share of the rows, a table, or a part of the data set.")] = "0.1",
    epochs: Annotated[float, typer.Option(help="How many times to go through the rows.")] = 3.0,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many updates.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one update.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="The highest rate.")] = 5e-5,
    warmup: Annotated[float, typer.Option(help="The share of the training in which the rate rises.")] = 0.06,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    freeze: Annotated[list[str] | None, typer.Option(help="Leave as it is: embed, blocks.0-5. Repeatable.")] = None,
    lora: Annotated[int, typer.Option(min=0, help="Train an adapter of this rank in place of the weights.")] = 0,
    loss: Annotated[str | None, typer.Option(help="Of vectors: MultipleNegativesRankingLoss, TripletLoss, ...")] = None,
    pooling: Annotated[str | None, typer.Option(help="Of vectors: mean, cls, lasttoken or max.")] = None,
    pack: Annotated[bool, typer.Option("--pack", help="Of text-generation: a batch is one row of texts.")] = False,
    balanced: Annotated[bool, typer.Option("--balanced", help="Rare labels count as much as frequent ones.")] = False,
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after so many epochs without improvement.")] = None,
    max_length: Annotated[int | None, typer.Option(min=4, help="Cut texts at so many tokens.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16, on weights in float32.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split and the training.")] = 42,
    search: Annotated[int | None, typer.Option(min=1, help="Try so many settings, and keep the best model.")] = None,
    study: Annotated[Path | None, typer.Option(help="The search's SQLite file; in the folder unless given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a training in the folder stopped.")] = False,
    report_to: Annotated[
        list[str] | None, typer.Option(help="Also log to tensorboard, mlflow, wandb or trackio. Repeatable.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Another file of the report, .html or .md; the folder has its own.")
    ] = None,
    revision: Revision = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    offline: Offline = False,
    threads: Threads = None,
) -> None:
    """Fine-tune a model, and report what it learned.

    Several processes train as one: torchrun --nproc-per-node=2 -m cutaway train ...
    """
    load = load_arguments(revision, offline, threads, None)
    from cutaway.errors import InputError
    from cutaway.tuning.labelled import KIND_NAMES, read

    columns = _columns(column or [], task.value, text=text, label=label, text_pair=text_pair)
    classifies = task in (Task.text_classification, Task.few_labels)
    if study is not None and search is None:
        raise InputError("--study is the file of a search; say with --search how many settings to try.")
    if not classifies and (balanced or labels is not None):
        raise InputError(f"{'--balanced' if balanced else '--labels'} is of text classification, not of {task.value}.")
    few = task is Task.few_labels
    for option, value in (("lora", lora), ("loss", loss), ("pooling", pooling), ("pack", pack)):
        if classifies and value and not (few and option == "pooling"):
            raise InputError(f"--{option} is not of {task.value}; name another --task.")
    for option, value in (("balanced", balanced), ("patience", patience), ("labels", labels), ("search", search)):
        if few and value:
            raise InputError(f"--{option} is not there with few-labels, {_FEW[option]}; leave it out.")
    _check_before(model, output, load, resume, search, report_to or [], report)
    how: dict[str, Any] = {"encoding": encoding, "delimiter": delimiter}
    settings: dict[str, Any] = {
        "num_train_epochs": epochs,
        "max_steps": max_steps or -1,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": max(batch_size, 32),
        "learning_rate": learning_rate,
        "warmup_ratio": warmup,
        "weight_decay": weight_decay,
        "freeze": freeze or None,
        "class_weights": "balanced" if balanced else None,
        "bf16": bf16,
        "seed": seed,
        "report_to": report_to,
    }
    said: dict[str, Any] = {"data": data, "command": command_line(), "also": report}
    if classifies:
        from cutaway.tuning.fine_tuning import FineTuning
        from cutaway.tuning.report import write

        kind: Kind | None = None if labels is None else labels.value
        text, label, text_pair = columns.get("text", "text"), columns.get("label", "label"), columns.get("text_pair")
        labelled = read(data, text, label, pair=text_pair, kind=kind, split=split, **how)
        training, aside = _validation(labelled, data, validation, text, label, text_pair, seed, how)
        counts = ", ".join(f"{name} {count:,}" for name, count in list(training.counts().items())[:20])
        if labelled.kind == "number":
            counts = f"from {min(training.labels):g} to {max(training.labels):g}"
        _say(f"{_sizes(training, aside)}; {KIND_NAMES[labelled.kind]}. {counts}")
        tuning = FineTuning(model, training, aside, settings, patience, max_length, load)
        if few:
            from cutaway.tuning.few_labels import FewLabels

            settings = {name: value for name, value in settings.items() if _given(context, name)}
            tuning = FewLabels(model, training, aside, settings, None, max_length, load, (), pooling)
            tuning.check()
            if len(aside) < MANY:
                _say(f"{counted(len(aside), 'row')} to validate with measure roughly; --validation TABLE takes others.")
        elif labelled.kind == "one" and labelled.pairs is None and max(training.counts().values()) <= FEW_ROWS:
            _say(f"No label has more than {FEW_ROWS} rows: --task few-labels is made for such tables.")
        outcome, tried = _run(tuning, output, search, study, resume)
        write(tuning, outcome, output, tried, **said)
        measures = {name: value for name, value in outcome.metrics.items() if name.startswith("eval_")}
        measures = {name.removeprefix("eval_"): value for name, value in measures.items()}
    else:
        from cutaway.tuning.task_tuning import TaskTuning, beaten_by_cosines, write_task
        from cutaway.tuning.tasks import TaskOptions, check_options

        options = TaskOptions(loss, pooling, pack, max_length, lora, load, seed)
        check_options(task.value, options)
        first, second = _task_rows(task.value, data, validation, columns, split, seed, how)
        _say(f"{_sizes(first, second)}; columns {', '.join(first.columns)}.")
        if task is Task.rerank:  # its own defaults, by the number of queries
            settings = {name: value for name, value in settings.items() if _given(context, name)}
        trained = TaskTuning(model, first, second, settings, patience, max_length, load, (), task.value, options)
        trained.check()
        outcome, tried = _run(trained, output, search, study, resume)
        found = write_task(trained, outcome, output, tried, **said)
        measures = {} if found is None else found.measures
        if task is Task.rerank and (beaten := beaten_by_cosines(measures, outcome.before)):
            _say(beaten)
    if not outcome.trainer.is_world_process_zero():
        return
    for name, measure in measures.items():
        if not name.endswith(("runtime", "per_second")):
            beside = "cosines of the base" if task is Task.rerank else "before"
            earlier = f"  ({beside}: {outcome.before[name]:.4f})" if name in outcome.before else ""
            sys.stdout.write(f"{name} {measure:.4f}{earlier}\n")
    _say(f"{output}: the model, and report.html.{'' if report is None else f' The report is also {report}.'}")


_FEW = {
    "balanced": "whose batches are balanced",
    "patience": "which evaluates once, at the end",
    "labels": "which learns one label of each text",
    "search": "since few rows cannot tell settings apart",
}
_OPTIONS = {  # setting of TrainingArguments -> the option that sets it, where few-labels or rerank has another default
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "per_device_train_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "warmup_ratio": "warmup",
}


def _given(context: typer.Context, setting: str) -> bool:
    """Whether a setting is for few-labels or rerank: one that was given, or whose default is the same."""
    if setting not in _OPTIONS:
        return setting != "class_weights"
    source = context.get_parameter_source(_OPTIONS[setting])
    return source is not None and source.name != "DEFAULT"


def _sizes(training: RowsToTrainOn, aside: RowsToTrainOn) -> str:
    return f"{counted(len(training), 'row')} to train on, {len(aside):,} to validate with"


def _run(
    tuning: Tuning[R], output: Path, search: int | None, study: Path | None, resume: bool
) -> tuple[Outcome, list[Tried]]:
    """The training, or the search that finds its settings; Ctrl-C says how to go on."""
    try:
        if search is None:
            return tuning.run(output, resume=resume), []
        from cutaway.tuning.search import search as find

        return find(tuning, output, search, study=study, resume=resume, told=_say_trial)
    except KeyboardInterrupt:
        _say(f"Stopped. {output} holds what was done; the same command with --resume goes on.")
        raise typer.Exit(STOPPED) from None


def _task_rows(
    task: str, data: str, given: str, columns: dict[str, str], split: str, seed: int, how: dict[str, Any]
) -> tuple[TaskRows, TaskRows]:
    """(rows to train on, rows to validate with) of a task."""
    from cutaway.tuning.task_rows import READINGS, read_task

    reading = READINGS[task]
    rows = read_task(data, reading, columns, split=split, **how)
    share, place, part = _part(given, data)
    if share is None:
        return rows, read_task(place, reading, columns, split=part, **how)
    return rows.split(share, seed)


def _part(given: str, data: str) -> tuple[float | None, str, str]:
    """What --validation says: (a share or None, the data, the part of it)."""
    from cutaway.errors import InputError

    try:
        share = float(given)
    except ValueError:
        table = Path(given).suffix != "" or Path(given).exists()
        return None, *((given, "train") if table else (data, given))
    if not 0 < share < 1:
        raise InputError(f"--validation {given}: a share must lie between 0 and 1.")
    return share, data, ""


def _columns(given: list[str], task: str, **older: str | None) -> dict[str, str]:
    """What the table calls the columns: COLUMN for the texts, NAME=COLUMN for any, and the older options."""
    from cutaway.tuning.task_rows import READINGS

    known = READINGS[task].names() if task in READINGS else list(older)
    found = {name: value for name, value in older.items() if value is not None}
    for name in found:
        if name not in known:
            raise typer.BadParameter(f"--{name.replace('_', '-')}: {task} reads {', '.join(known)}.")
    for entry in given:
        name, _, value = entry.rpartition("=")
        name = name or ("text" if "text" in known else known[0])
        if name not in known:
            raise typer.BadParameter(f"--column {entry}: train reads {', '.join(known)}.")
        if found.get(name, value) != value:
            raise typer.BadParameter(f"--column {entry}: {name} is {found[name]!r} already.")
        found[name] = value
    return found


LOGGERS = ("tensorboard", "mlflow", "wandb", "trackio")


def _check_before(
    model: str,
    output: Path,
    load: dict[str, Any],
    resume: bool,
    search: int | None,
    report_to: list[str],
    report: Path | None,
) -> None:
    """All that can be known before the rows are read: packages, the folder, the base model."""
    import importlib.util

    from cutaway.auto import AutoConfig
    from cutaway.errors import InputError
    from cutaway.train.distributed import restarted
    from cutaway.tuning.fine_tuning import check_base
    from cutaway.tuning.report import check

    check(report)
    for package in (*(["optuna"] if search is not None else []), *(name for name in report_to if name in LOGGERS)):
        if importlib.util.find_spec(package) is None:
            extra = "search" if package == "optuna" else package
            raise InputError(f"This needs {package}: pip install 'cutaway[{extra}]'.")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file. Give --output the name of a folder.")
    if not (resume or restarted()) and (output / "config.json").exists():
        raise InputError(f"{output} holds a training already: go on with --resume, or name another folder.")
    check_base(model)
    AutoConfig.from_pretrained(model, **load)


def _validation(
    rows: Labelled,
    data: str,
    given: str,
    text: str,
    label: str,
    pair: str | None,
    seed: int,
    how: dict[str, Any],
) -> tuple[Labelled, Labelled]:
    """(rows to train on, rows to validate with)."""
    from cutaway.tuning.labelled import read
    from cutaway.tuning.split import stratified

    share, place, part = _part(given, data)
    if share is None:
        return rows, read(place, text, label, pair=pair, kind=rows.kind, split=part, names=rows.names, **how)
    first, second = stratified(rows, share, seed)
    return rows.take(first), rows.take(second)


def _say_trial(tried: Tried) -> None:
    said = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in tried.settings.items())
    _say(f"trial {tried.number}, {tried.state}{'' if tried.value is None else f', loss {tried.value:.4f}'}: {said}")


def _say(line: str) -> None:
    """Say it once, however many processes train."""
    from cutaway.show.label import printable
    from cutaway.train.distributed import told_first

    if told_first():
        sys.stderr.write(printable(line) + "\n")

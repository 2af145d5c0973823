"""`cutaway train`: fine-tune a model on a table of texts and labels."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.commands.option import Delimiter, Encoding, Offline, Revision, Threads, load_arguments

STOPPED = 130  # what a shell calls a program that Ctrl-C ended


class Labels(StrEnum):
    """What the labels are."""

    one = "one"
    several = "several"
    number = "number"


def train(
    model: Annotated[str, typer.Argument(help="A name or a folder.")],
    data: Annotated[str, typer.Argument(help="A table (.csv .tsv .jsonl .parquet), or a data set's folder or name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the model and the report.")],
    text: Annotated[str, typer.Option(help="The column with the texts.")] = "text",
    label: Annotated[str, typer.Option(help="The column with the right answers.")] = "label",
    text_pair: Annotated[str | None, typer.Option(help="The column with second texts, for pairs.")] = None,
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
    revision: Revision = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    offline: Offline = False,
    threads: Threads = None,
) -> None:
    """Fine-tune a classifier, and report what it learned.

    Several processes train as one: torchrun --nproc-per-node=2 -m cutaway train ...
    """
    load = load_arguments(revision, offline, threads, None)
    from cutaway.errors import InputError
    from cutaway.tuning.labelled import KIND_NAMES, read

    if study is not None and search is None:
        raise InputError("--study is the file of a search; say with --search how many settings to try.")
    kind: Any = None if labels is None else labels.value
    how: dict[str, Any] = {"encoding": encoding, "delimiter": delimiter}
    rows = read(data, text, label, pair=text_pair, kind=kind, split=split, **how)
    training, aside = _validation(rows, data, validation, text, label, text_pair, seed, how)
    said = ", ".join(f"{name} {count:,}" for name, count in list(training.counts().items())[:20])
    _say(f"{len(training):,} rows to train on, {len(aside):,} to validate with; {KIND_NAMES[rows.kind]}. {said}")

    from cutaway.tuning.fine_tuning import FineTuning
    from cutaway.tuning.report import check, write

    check()
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
    tuning = FineTuning(model, training, aside, settings, patience, max_length, load)
    tried: list[Any] = []
    try:
        if search is None:
            outcome = tuning.run(output, resume=resume)
        else:
            from cutaway.tuning.search import search as find

            outcome, tried = find(tuning, output, search, study=study, resume=resume, told=_say_trial)
    except KeyboardInterrupt:
        _say(f"Stopped. {output} holds what was done; the same command with --resume goes on.")
        raise typer.Exit(STOPPED) from None
    write(tuning, outcome, output, tried)
    if not outcome.trainer.is_world_process_zero():
        return
    for name, value in outcome.metrics.items():
        if name.startswith("eval_") and not name.endswith(("runtime", "per_second")):
            sys.stdout.write(f"{name.removeprefix('eval_')} {value:.4f}\n")
    _say(f"{output}: the model, and report.html.")


def _validation(
    rows: Any,
    data: str,
    given: str,
    text: str,
    label: str,
    pair: str | None,
    seed: int,
    how: dict[str, Any],
) -> Any:
    """(rows to train on, rows to validate with)."""
    from cutaway.errors import InputError
    from cutaway.tuning.labelled import read
    from cutaway.tuning.split import stratified

    try:
        share = float(given)
    except ValueError:
        table = Path(given).suffix != "" or Path(given).exists()
        place, part = (given, "train") if table else (data, given)
        return rows, read(place, text, label, pair=pair, kind=rows.kind, split=part, names=rows.names, **how)
    if not 0 < share < 1:
        raise InputError(f"--validation {given}: a share must lie between 0 and 1.")
    first, second = stratified(rows, share, seed)
    return rows.take(first), rows.take(second)


def _say_trial(tried: Any) -> None:
    said = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in tried.settings.items())
    _say(f"trial {tried.number}, {tried.state}{'' if tried.value is None else f', loss {tried.value:.4f}'}: {said}")


def _say(line: str) -> None:
    """Say it once, however many processes train."""
    from cutaway.show.label import printable
    from cutaway.train.distributed import told_first

    if told_first():
        sys.stderr.write(printable(line) + "\n")

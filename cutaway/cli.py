"""The command `cutaway`: parse, call, print.

Exit codes: 0 done, 1 an error that cutaway names in one line, 2 wrong usage, 130 interrupted. torch is imported when a
command runs, never for --help.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway import __version__
from cutaway.errors import CutawayError, InputError

if TYPE_CHECKING:
    from rich.console import Console

SENTIMENT = "cutaway/sentiment"

app = typer.Typer(
    name="cutaway",
    help="Transformer text models, open at every joint: run one and see what happens inside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Measure(StrEnum):
    """How the grid of heads is coloured."""

    entropy = "entropy"
    distance = "distance"
    focus = "focus"


class Dtype(StrEnum):
    """The number format that the weights are held in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Texts = Annotated[list[str] | None, typer.Argument(help="Texts; without any, or with -, one per line from stdin.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="A name, a folder, or a .gguf file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one document, or a line per text for several.")]
Revision = Annotated[str | None, typer.Option(help="The branch, tag or commit of a model on the hub.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads to compute with.")]
Dtypes = Annotated[Dtype | None, typer.Option("--dtype", help="Number format of the weights; stored one if not given.")]
Truncation = Annotated[bool, typer.Option("--truncation", help="Cut texts that are longer than the model takes.")]


def _version(wanted: bool) -> None:
    if wanted:
        _write(f"cutaway {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Transformer text models, open at every joint: run one and see what happens inside."""


@app.command()
def explain(
    text: Annotated[str | None, typer.Argument(help="The text; without it, or with -, all of stdin.")] = None,
    model: ModelName = SENTIMENT,
    layer: Annotated[int | None, typer.Option(help="Layer of the head to show, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Head to show, from 0; the sharpest one if not given.")] = None,
    attention: Annotated[str | None, typer.Option(help="encoder, decoder or cross, for an encoder-decoder.")] = None,
    token: Annotated[str | None, typer.Option(help="The token to follow: a word of the text, or an index.")] = None,
    measure: Annotated[Measure, typer.Option(help="What colours the grid of heads.")] = Measure.entropy,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Also write a file: .png, .svg, .pdf, .html or .json. May be repeated."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="How many tokens a decoder writes.")] = 10,
    truncation: Truncation = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Show what a model does with a text."""
    from cutaway.inspect import pictures

    known = (*pictures.FORMATS, ".html", ".json")
    for path in output or []:
        if path.suffix.lower() not in known:
            raise typer.BadParameter(f"{path.name}: the name must end in one of {', '.join(known)}.")
        if not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"{path}: there is no folder {path.absolute().parent}.")
    text = "\n".join(_lines()).strip() if text in (None, "-") else text
    if not text or not text.strip():
        raise InputError("The text is empty: there is nothing to explain. Give at least one word.")
    load = _load(revision, offline, threads, dtype)

    from cutaway.inspect.explainer import explain as run

    explanation = run(
        text,
        model,
        layer=layer,
        head=head,
        attention=attention,
        token=token,
        max_new_tokens=max_new_tokens,
        truncation=truncation,
        **load,
    )
    if as_json:
        _write(explanation.to_json(patterns=False))
    else:
        from cutaway.inspect import terminal

        terminal.show(explanation, _console(), measure=measure.value)
    for path in output or []:
        if path.suffix.lower() == ".html":
            from cutaway.inspect import page

            page.save(explanation, path)
        elif path.suffix.lower() == ".json":
            path.write_text(explanation.to_json() + "\n", encoding="utf-8")
        else:
            pictures.save(explanation, path)
    if output and not as_json:
        _write("\nWrote " + ", ".join(str(path) for path in output))


@app.command()
def tokenize(
    texts: Texts = None,
    model: ModelName = SENTIMENT,
    truncation: Truncation = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Show how texts are cut into tokens."""
    inputs = _inputs(texts)
    load = _load(revision, offline, None, None)
    from cutaway.auto import AutoTokenizer
    from cutaway.inspect.label import printable, token_label

    name, load = _gguf(model, load)
    tokenizer = AutoTokenizer.from_pretrained(name, **load)
    for text in inputs:
        encoding = tokenizer(text, truncation=truncation, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids = [int(id) for id in encoding["input_ids"]]
        tokens = tokenizer.convert_ids_to_tokens(ids)
        special = [bool(flag) for flag in encoding["special_tokens_mask"]]
        offsets = [[int(start), int(end)] for start, end in encoding["offset_mapping"]]
        if as_json:
            _write(_json({"text": text, "tokens": tokens, "ids": ids, "offsets": offsets, "special": special}))
            continue
        table = _table("#>", "token", "id>", "chars>", "special")
        for i, (id, token, flag, (start, end)) in enumerate(zip(ids, tokens, special, offsets, strict=True)):
            label = _text(token_label(tokenizer, token, id, flag))
            table.add_row(str(i), label, str(id), "" if flag else f"{start}-{end}", "yes" if flag else "")
        console = _console()
        console.print(_text(printable(text), "bold"))
        console.print(table)
        console.print()


@app.command()
def classify(
    texts: Texts = None,
    model: ModelName = SENTIMENT,
    top_k: Annotated[int | None, typer.Option(min=1, help="How many labels to print; all if not given.")] = None,
    truncation: Truncation = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Label texts, with a score for each label."""
    inputs = _inputs(texts)
    load = _load(revision, offline, threads, dtype)
    from cutaway.auto import AutoModelForSequenceClassification, AutoTokenizer
    from cutaway.inspect.label import printable
    from cutaway.pipelines import pipeline

    pipe = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(model, **load),
        tokenizer=AutoTokenizer.from_pretrained(model, **{k: v for k, v in load.items() if k != "dtype"}),
    )
    kept: list[str] = []

    def stream() -> Iterator[str]:
        for text in inputs:
            kept.append(text)
            yield text

    console = _console()
    for answers in pipe(stream(), top_k=top_k, truncation=truncation):
        text = kept.pop(0)
        if as_json:
            _write(_json({"text": text, "labels": answers}))
        else:
            scores = "  ".join(f"{printable(entry['label'])} {entry['score']:.4f}" for entry in answers)
            console.print(_text(f"{scores}  {printable(text)}"), soft_wrap=True)


@app.command()
def generate(
    texts: Texts = None,
    model: ModelName = "gpt2",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write at most.")] = 50,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens instead of taking the likeliest.")] = False,
    temperature: Annotated[float | None, typer.Option(help="With --sample: above 1 bolder, below 1 safer.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="With --sample: only the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="With --sample: only the likeliest tokens that make up p.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --sample: the same seed gives the same text.")] = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Continue texts, token by token."""
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if given and not sample:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{names} only counts with --sample; without it the likeliest token is taken.")
    inputs = _inputs(texts)
    load = _load(revision, offline, threads, dtype)
    from cutaway.generate import stream
    from cutaway.inspect.explainer import load_model
    from cutaway.inspect.label import visible_lines

    loaded, tokenizer = load_model(model, **load)
    if not loaded.can_generate:
        raise InputError(f"{model!r} ({type(loaded).__name__}) writes no text. Give a decoder, for example gpt2.")
    loaded.eval()
    for text in inputs:
        encoding = tokenizer(text, return_tensors="pt")
        tokens = stream(
            loaded,
            encoding["input_ids"].to(loaded.device),
            encoding["attention_mask"].to(loaded.device),
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            do_sample=sample,
            **given,
        )
        answer = ""
        if not as_json and not loaded.is_encoder_decoder:
            _write(visible_lines(text), end="")
        for step in tokens:
            answer += step.text or ""
            if not as_json:
                _write(visible_lines(step.text or ""), end="")
        _write(_json({"text": text, "generated": answer}) if as_json else "")


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models on this machine."""
    from dataclasses import asdict

    from cutaway.catalogue import entries
    from cutaway.inspect.label import printable

    found = list(entries())
    if as_json:
        _write(_json([asdict(entry) for entry in found]))
        return
    table = _table("name", "source", "family", "size>", "task")
    for entry in found:
        size = f"{entry.bytes / 1e6:,.1f} MB"
        table.add_row(_text(printable(entry.name)), entry.source, _text(printable(entry.family)), size, entry.task)
    if found:
        _console().print(table)
    else:
        _write("No models on this machine yet. Give any command a --model with a folder or a name on the hub.")


# -- what the commands share -------------------------------------------------------------------------------------------


def main() -> None:
    """The entry point. Errors that cutaway names become one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a letter that the terminal lacks is no reason to stop
    try:
        app()
    except CutawayError as error:
        _fail(str(error))
    except MemoryError:
        _fail("Not enough memory. Take a smaller model, or --dtype bfloat16.")


def _fail(message: str) -> None:
    from cutaway.inspect.label import printable

    sys.stderr.write(f"cutaway: error: {printable(' '.join(message.split()))}\n")
    raise SystemExit(1)


def _load(revision: str | None, offline: bool, threads: int | None, dtype: Dtype | None) -> dict[str, Any]:
    """The arguments of `from_pretrained` for these options; sets the threads."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is imported
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    load: dict[str, Any] = {"revision": revision, "dtype": dtype and dtype.value}
    if offline:
        load["local_files_only"] = True
    return {key: value for key, value in load.items() if value is not None}


def _gguf(model: str, load: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A path to a .gguf file as the folder and file name that `from_pretrained` takes."""
    if not model.lower().endswith(".gguf"):
        return model, load
    return str(Path(model).parent), {**load, "gguf_file": Path(model).name}


def _lines() -> Iterator[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("give a text, or pipe one in.")
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _inputs(texts: list[str] | None) -> Iterator[str]:
    """The texts of the command line, or the lines of stdin; empty lines are left out."""
    if texts and texts != ["-"]:
        return iter(texts)
    lines = _lines()
    first = next(lines, None)  # here, so that a missing input is wrong usage before a model is loaded
    if first is None:
        raise InputError("Nothing came from stdin. Pipe in one text per line, or give texts as arguments.")
    return (line for line in itertools.chain([first], lines) if line.strip())


def _write(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return table


def _text(text: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(text, style=style)

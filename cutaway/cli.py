"""The command `cutaway`: its commands registered, its errors in one line.

Exit codes: 0 done, 1 an error that cutaway names in one line, 2 wrong usage, 130 interrupted. torch is imported when a
command runs, never for --help.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cutaway.commands.attend import attend
from cutaway.commands.attribute import attribute
from cutaway.commands.bench import bench
from cutaway.commands.compare import compare
from cutaway.commands.display import write
from cutaway.commands.evaluate import evaluate
from cutaway.commands.explain import explain
from cutaway.commands.generate import generate
from cutaway.commands.lens import lens
from cutaway.commands.models import models
from cutaway.commands.patch import patch
from cutaway.commands.task import COMMANDS
from cutaway.commands.task import command as task_command
from cutaway.commands.tokenize import tokenize
from cutaway.commands.train import train
from cutaway.errors import CutawayError

app = typer.Typer(
    name="cutaway",
    help="Transformer text models, open at every joint: run one and see what happens inside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from cutaway.commands.versions import versions

        for line in versions():
            write(line)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the versions of cutaway and torch, and which kernels run.",
        ),
    ] = False,
) -> None:
    """Transformer text models, open at every joint: run one and see what happens inside."""


INSIDE = (explain, attend, lens, attribute, patch, compare)
for command in (*INSIDE, tokenize, generate, models, evaluate, bench, train):
    app.command()(command)
for spec in COMMANDS:
    app.command(spec.name)(task_command(spec))


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
    from cutaway.show.label import printable

    sys.stderr.write(f"cutaway: error: {printable(' '.join(message.split()))}\n")
    raise SystemExit(1)

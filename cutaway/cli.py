"""The command `cutaway`: its commands registered, its errors in one line.

Exit codes: 0 done, 1 an error that cutaway names in one line, 2 wrong usage, 130 interrupted. torch is imported when a
command runs, never for --help.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cutaway.commands.agree import agree
from cutaway.commands.attend import attend
from cutaway.commands.attribute import attribute
from cutaway.commands.bench import bench
from cutaway.commands.chat import chat
from cutaway.commands.cluster import cluster
from cutaway.commands.compare import compare
from cutaway.commands.convert import convert
from cutaway.commands.dedupe import dedupe
from cutaway.commands.display import write
from cutaway.commands.evaluate import evaluate
from cutaway.commands.examples import epilog
from cutaway.commands.explain import explain
from cutaway.commands.generate import generate
from cutaway.commands.label import label
from cutaway.commands.lens import lens
from cutaway.commands.models import models
from cutaway.commands.option import FiniteCommand
from cutaway.commands.patch import patch
from cutaway.commands.search import search
from cutaway.commands.serve import serve
from cutaway.commands.studio import studio
from cutaway.commands.task import COMMANDS
from cutaway.commands.task import command as task_command
from cutaway.commands.tokenize import tokenize
from cutaway.commands.train import train
from cutaway.errors import CutawayError, OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

app = typer.Typer(
    name="cutaway",
    help="Transformer text models, open at every joint: run one and see what happens inside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
TEXTS = (search, cluster, dedupe, agree, label)
for command in (*INSIDE, tokenize, generate, models, evaluate, bench, train, serve, chat, convert, studio, *TEXTS):
    app.command(epilog=epilog(command.__name__), cls=FiniteCommand)(command)
for spec in COMMANDS:
    app.command(spec.name, epilog=epilog(spec.name), cls=FiniteCommand)(task_command(spec))


def named(arguments: Sequence[str]) -> typer.Typer:
    """`app` with the command alone that the arguments begin with; all of it where they begin with something else.

    Every command that typer is given is built before one of them runs, which takes as long as a short answer.
    """
    commands = [
        info
        for info in app.registered_commands
        if arguments and info.callback is not None and arguments[0] == (info.name or info.callback.__name__)
    ]
    if len(commands) != 1 or any(name.endswith("_COMPLETE") for name in os.environ):
        return app
    one = copy.copy(app)
    one.registered_commands = commands
    return one


def main() -> None:
    """The entry point. Errors that cutaway names become one line and exit code 1."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a letter that the terminal lacks is no reason to stop
    try:
        named(sys.argv[1:])()
    except CutawayError as error:
        _fail(str(error))
    except MemoryError:
        _fail("Not enough memory. Take a smaller model, or --dtype bfloat16.")
    except OSError as error:
        _fail(_disk(error))


class _Closed(io.TextIOBase):
    """Standard output that was closed before the program began."""

    def write(self, text: str) -> int:
        raise OutputError(
            "Standard output is closed, so the answer cannot be written. Leave it open, or give --output."
        )


def _open_streams() -> None:
    """Make standard streams that are closed harmless: the next file that is opened must not become one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end


def _disk(error: OSError) -> str:
    """What the system said, and the way on."""
    what = str(error.filename or "standard output" if error.errno in _FULL else error.filename or "a file")
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return f"{what}: {said}. Nothing that was there is lost: make room on the disk, and run the same command again."
    return f"{what}: {said}. Check that it is there and that you may read and write it."


def _fail(message: str) -> None:
    from cutaway.show.label import printable

    with contextlib.suppress(OSError, ValueError):  # standard error may be full or closed too
        sys.stderr.write(f"cutaway: error: {printable(' '.join(message.split()))}\n")
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (
        OSError,
        ValueError,
    ):  # what is left would be a traceback at the end
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1)

"""`cutaway studio`: a page on this machine that shows a model at work while one types."""

from __future__ import annotations

import secrets
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from cutaway.commands.option import Dtypes, Offline, Revision, Threads, pipeline_arguments
from cutaway.commands.serve import sources
from cutaway.errors import InputError


def studio(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL | NAME=MODEL ...]", help="A name, folder or .gguf file.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 for any that is free.")] = 0,
    folder: Annotated[
        list[Path] | None, typer.Option(help="Models in this folder may be opened too. May be repeated.")
    ] = None,
    sae: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS=FOLDER",
            help="A sparse autoencoder in SAELens' files, at an address of the first model. May be repeated.",
        ),
    ] = None,
    kept: Annotated[Path | None, typer.Option(help="Where runs are kept; your data folder if not given.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Open the studio: type a text, watch the model read it, change it, keep what you saw."""
    from cutaway.serve import require_packages

    require_packages()
    missing = next((one for one in folder or () if not one.is_dir()), None)
    if missing is not None:
        raise InputError(f"--folder {missing}: there is no such folder.")
    options = pipeline_arguments(revision, offline, threads, dtype)
    from cutaway.studio.starting import serve_here

    def announce(address: str) -> None:
        sys.stdout.write(f"The studio: {address}\nEnd it with Ctrl-C.\n")
        sys.stdout.flush()
        if browser:
            webbrowser.open(address)

    attached = [_attachment(text) for text in sae or ()]
    given = sources(models or ["cutaway/sentiment"])
    code, error = serve_here(
        given, secrets.token_urlsafe(24), port, tuple(folder or ()), kept, options, announce, attached
    )
    if error:
        raise InputError(error)
    raise typer.Exit(code)


def _attachment(text: str) -> tuple[str, str]:
    """ADDRESS=FOLDER, taken apart."""
    address, mark, folder = text.partition("=")
    if not mark or not address or not folder:
        raise InputError(f"--sae {text!r:.200}: give ADDRESS=FOLDER, such as blocks.15.resid=build/features.")
    return address, folder

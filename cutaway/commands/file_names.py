"""Names of files: texts that are meant as such, which must not be analysed as texts, and files to write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from cutaway.errors import InputError, nearest

TABLES = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".xlsx")
ENDINGS = (*TABLES, ".safetensors", ".json", ".npz", ".html", ".png", ".svg", ".pdf", ".gguf", ".md", ".gz", ".zip")
LONGEST = 1024  # characters of a name


def check_no_file(text: str, way: str) -> None:
    """InputError where `text` is the name of a file, or one word that ends as file names do.

    way: what to do with a file that is there, with {} for its name.
    """
    name = text.strip()
    if len(name) > LONGEST or "\n" in name or not name.lower().endswith(ENDINGS):
        return
    path = Path(name)
    try:
        there, spaced = path.is_file(), len(name.split()) > 1
    except (OSError, ValueError):  # no name that the system can hold
        return
    as_text = "To take the name itself as a text, pipe it in."
    if there:
        raise InputError(f"{name} is a file, and a text was expected. {way.format(name)} {as_text}")
    if not spaced and path.stem:
        close = nearest(path.name, _beside(path), 1, few=0)
        raise InputError(
            f"{name} looks like the name of a file, and there is no such file.{close} Correct the name. {as_text}"
        )


def _beside(path: Path) -> list[str]:
    """Files of the same ending in the folder that the name means."""
    try:
        ending = path.suffix.lower()
        return [other.name for other in path.parent.iterdir() if other.suffix.lower() == ending]
    except OSError:
        return []


def check_new(paths: Iterable[Path]) -> None:
    """InputError where one of the files to write is there already, as is what is written beside a report."""
    for path in paths:
        beside = path.with_name(f"{path.stem}.predictions.csv")
        if path.exists():
            raise InputError(f"{path} exists. Give another name, or --overwrite.")
        if path.suffix.lower() in (".html", ".md") and beside.exists():
            raise InputError(f"{beside} exists, which is written beside {path}. Give another name, or --overwrite.")


def check_folder(path: Path | None) -> None:
    """BadParameter where the folder of a file to write is not there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{path}: there is no folder {path.absolute().parent}.")

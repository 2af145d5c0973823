"""`cutaway models`: the models on this machine; getting one from the hub, and removing it."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.option import AsJson, Revision

if TYPE_CHECKING:
    from cutaway.hub.local_models import Entry


class Action(StrEnum):
    """What is done with a model."""

    get = "get"
    remove = "remove"


def models(
    action: Annotated[Action | None, typer.Argument(help="get or remove a model of the hub; without it, list.")] = None,
    name: Annotated[str | None, typer.Argument(help="The model's name on the hub.")] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="Also list the models in this folder; the folder you are in unless given. Repeatable."),
    ] = None,
    as_json: AsJson = False,
    revision: Revision = None,
) -> None:
    """List the models on this machine: built-in, downloaded, trained here, GGUF files; get and remove them."""
    if action is None:
        if revision is not None:
            raise typer.BadParameter("--revision belongs to `models get NAME`.")
        _list(folder or [Path()], as_json)
        return
    if name is None:
        raise typer.BadParameter(f"name the model: cutaway models {action.value} NAME.")
    if folder:
        raise typer.BadParameter("--folder belongs to the list; leave it out.")
    if action is Action.get:
        _get(name, revision, as_json)
    else:
        _remove(name, revision, as_json)


def _list(folders: list[Path], as_json: bool) -> None:
    from dataclasses import asdict

    from cutaway.errors import InputError
    from cutaway.hub.local_models import entries, entries_below
    from cutaway.show.label import printable

    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise InputError(f"--folder {missing}: there is no such folder.")
    here = (entry for folder in folders for entry in entries_below(folder))
    found = list({(entry.folder, entry.file, entry.name): entry for entry in (*here, *entries())}.values())
    counts = [_parameters(entry) for entry in found]
    if as_json:
        write(as_line([{**asdict(e), "parameters": n} for e, n in zip(found, counts, strict=True)]))
        return
    table = table_of("name", "source", "family", "size>", "parameters>", "task")
    for entry, number in zip(found, counts, strict=True):
        size = f"{entry.bytes / 1e6:,.1f} MB"
        many = "" if number is None else f"{number / 1e6:,.1f} M"
        family = plain(printable(entry.family))
        table.add_row(plain(printable(entry.name)), entry.source, family, size, many, entry.task)
    if found:
        console().print(table)
    else:
        write("No models on this machine yet. Give any command a --model with a folder or a name on the hub.")


def _parameters(entry: Entry) -> int | None:
    """How many numbers the weights hold, by the headers of their files; None where a header does not say it."""
    from cutaway.checkpoint import gguf_header, safetensors
    from cutaway.errors import CutawayError

    folder = Path(entry.folder)
    paths = [folder / entry.file] if entry.file else sorted(folder.glob("model*.safetensors"))
    total = 0
    try:
        for path in paths:
            stored: Any = (
                gguf_header.read_header(path).tensors if entry.file else safetensors.read_header(path)[0]
            ).values()
            total += sum(math.prod(one.shape) for one in stored)
    except (CutawayError, OSError):
        return None
    return total or None


def _get(name: str, revision: str | None, as_json: bool) -> None:
    from cutaway.auto import AutoConfig, AutoTokenizer
    from cutaway.checkpoint.checkpoint import open_checkpoint
    from cutaway.hub.files import HubFiles, packaged_file, resolve

    files = resolve(name, revision=revision)
    AutoConfig.from_pretrained(name, revision=revision)
    if packaged_file(name) is None:
        open_checkpoint(files).close()
        AutoTokenizer.from_pretrained(name, revision=revision)
    if as_json:
        write(as_line({"name": name, "folder": str(files.folder)}))
    elif isinstance(files, HubFiles):
        write(f"{name} is here: {files.folder}")
    else:
        write(f"{name} is on this machine: {files.folder}")


def _remove(name: str, revision: str | None, as_json: bool) -> None:
    from cutaway.errors import HubError
    from cutaway.hub.files import PACKAGED, builtin_names
    from cutaway.hub.local_models import remove_cached

    if revision is not None:
        raise typer.BadParameter("--revision belongs to `models get NAME`; remove takes all revisions.")
    if name in builtin_names():
        raise HubError(f"{name} is a part of cutaway and stays.")
    if name in PACKAGED:
        raise HubError(f"{name} belongs to a Python package: pip uninstall {PACKAGED[name].requirement.split('=')[0]}")
    if Path(name).exists():
        raise HubError(f"{name} is a folder or file of yours, which cutaway does not remove. Remove it yourself.")
    freed = remove_cached(name)
    if as_json:
        write(as_line({"name": name, "freed_bytes": freed}))
    else:
        sys.stderr.write(f"{name} is removed from the hub's cache; {freed / 1e6:,.1f} MB are free again.\n")

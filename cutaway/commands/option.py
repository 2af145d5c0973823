"""Options that several commands share, and the arguments of `from_pretrained` that they stand for."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
import typer.core

from cutaway.errors import nearest

SENTIMENT = "cutaway/sentiment"


class Dtype(StrEnum):
    """What a model computes with; fastest measures what is worth it."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    int4 = "int4"
    fastest = "fastest"


Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice]) -> Callable[[str], Choice]:
    """What reads an option that is one of `kind`; of a misspelt one it names those that are like it."""

    def read(value: str) -> Choice:
        try:
            return kind(value)
        except ValueError:
            known = [one.value for one in kind]
            near = nearest(value, known, few=0) or f" It can be {', '.join(known)}."
            raise typer.BadParameter(f"{value!r} is none of them.{near}") from None

    return read


class FiniteCommand(typer.core.TyperCommand):
    """A command none of whose numbers is NaN or infinite, which read as numbers and are no sensible value of any."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer has a context of its own
        """Refuse such numbers, and run the command."""
        for option in self.params:
            value = ctx.params.get(option.name or "")
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is no finite number.", ctx, param_hint=f"'{option.opts[0]}'")
        return super().invoke(ctx)


Texts = Annotated[list[str] | None, typer.Argument(help="Texts; without any, or with -, one per line from stdin.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="A name, a folder, or a .gguf file.")]
OrDefault = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A name, a folder, or a .gguf file; gpt2, or without a hub cutaway/smollm2."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one document, or a line per text for several.")]
Revision = Annotated[str | None, typer.Option(help="The branch, tag or commit of a model on the hub.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads to compute with.")]
Dtypes = Annotated[Dtype | None, typer.Option("--dtype", help="What to compute with; the stored format if not given.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of the table: cp1252, latin-1, utf-16, utf-8:replace, ...; UTF-8, or what its mark says, else."),
]
Delimiter = Annotated[str | None, typer.Option(help="Between the columns of a .csv: one letter, or tab.")]
Truncation = Annotated[bool, typer.Option("--truncation", help="Cut texts that are longer than the model takes.")]


def load_arguments(revision: str | None, offline: bool, threads: int | None, dtype: Dtype | None) -> dict[str, Any]:
    """The arguments of `from_pretrained` for these options; sets the threads."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is imported
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if dtype is Dtype.fastest:
        _say_what_is_chosen()
    load: dict[str, Any] = {"revision": revision, "dtype": dtype and dtype.value}
    if offline:
        load["local_files_only"] = True
    return {key: value for key, value in load.items() if value is not None}


def pipeline_arguments(revision: str | None, offline: bool, threads: int | None, dtype: Dtype | None) -> dict[str, Any]:
    """The arguments of `pipeline` for these options; sets the threads."""
    load = load_arguments(revision, offline, threads, dtype)
    if load.pop("local_files_only", False):
        load["model_kwargs"] = {"local_files_only": True}
    return load


def _say_what_is_chosen() -> None:
    """Let the measurement of --dtype fastest write its line to stderr."""
    log = logging.getLogger("cutaway.precision")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("dtype fastest: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def gguf_arguments(model: str, load: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A path to a .gguf file as the folder and file name that `from_pretrained` takes."""
    from cutaway.hub.files import gguf_path

    path = gguf_path(model)
    return (model, load) if path is None else (str(path.parent), {**load, "gguf_file": path.name})

"""`cutaway convert`: a checkpoint in another form, GGUF or safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.commands.display import write
from cutaway.commands.option import Offline, Revision, load_arguments

_FORMATS = "q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, f16, bf16, f32"


def convert(
    model: Annotated[str, typer.Argument(help="A name, a folder, or a .gguf file.")],
    output: Annotated[Path, typer.Argument(help="A .gguf file, or a folder for safetensors.")],
    quantize: Annotated[str | None, typer.Option(help=f"What a GGUF file's matrices become: {_FORMATS}.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of safetensors: bfloat16, float16 or float32.")] = None,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Write a model in another form: GGUF, which llama.cpp reads too, or safetensors in 16 bits."""
    gguf = output.suffix.lower() == ".gguf"
    if gguf and dtype is not None:
        raise typer.BadParameter("--dtype belongs to a folder of safetensors; of GGUF, --quantize says the format.")
    if not gguf and quantize is not None:
        raise typer.BadParameter(f"--quantize writes GGUF, whose file name ends in .gguf; {output} does not.")
    load: dict[str, Any] = load_arguments(revision, offline, None, None)
    from cutaway.convert import to_gguf, to_safetensors

    if gguf:
        to_gguf(model, output, quantize or "q8_0", **load)
        size = output.stat().st_size
    else:
        to_safetensors(model, output, dtype or "bfloat16", **load)
        size = sum(path.stat().st_size for path in output.glob("*.safetensors"))
    write(f"{output}: {size / 1e6:,.1f} MB")

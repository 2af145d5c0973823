"""A checkpoint as safetensors with weights of another number format, beside its tokenizer and settings."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Unpack

import torch

from cutaway.auto import AutoTokenizer, read_config
from cutaway.checkpoint.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from cutaway.errors import InputError
from cutaway.hub.files import Files, HubOptions, gguf_path, packaged_file, resolve
from cutaway.hub.folder_save import folder_save

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".lock")
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "generation_config.json", "README.md",
)  # fmt: skip


def to_safetensors(
    model: str | Path,
    folder: str | Path,
    dtype: str = "bfloat16",
    *,
    max_shard_size: int | str = "5GB",
    **load: Unpack[HubOptions],
) -> Path:
    """Write a checkpoint into a folder as safetensors, under its own names, with weights of `dtype`.

    Args:
        model: a hub name, a folder, or a .gguf file, whose blocks are put back to numbers.
        folder: made if needed; over an earlier checkpoint it holds that one or this one, never parts of both.
        dtype: float16, bfloat16 or float32. Whole numbers stay what they are.
        load: revision, token, cache_dir, local_files_only, subfolder, of `from_pretrained`.

    Raises:
        InputError: another dtype, a folder that is the model's own, or float16 for numbers beyond 65,504.
    """
    if dtype not in FORMATS:
        raise InputError(f"dtype is {dtype!r}; a checkpoint is written in {', '.join(FORMATS)}.")
    folder, name = Path(folder), str(model)
    file = gguf_path(name)
    source = str(file.parent) if file is not None else name
    gguf_file = file.name if file is not None else packaged_file(name)
    files = resolve(source, **load)
    where: dict[str, Any] = {**load} if gguf_file is None else {**load, "gguf_file": gguf_file}
    config = read_config(source, **where)
    if files.folder is not None and files.folder.resolve() == folder.resolve():
        raise InputError(f"{folder} is the model's own folder; give another one.")
    config.dtype = dtype
    with open_checkpoint(files, gguf_file=gguf_file) as checkpoint, folder_save(folder) as save:
        save_checkpoint(folder, _cast(checkpoint, dtype), max_shard_size=max_shard_size)
        if gguf_file is not None:
            AutoTokenizer.from_pretrained(source, **where).save_pretrained(folder)
        else:
            _copy_settings(files, save.aside)
        config.save_pretrained(folder)
    return folder


def _cast(checkpoint: Checkpoint, dtype: str) -> dict[str, torch.Tensor]:
    wanted = FORMATS[dtype]
    cast: dict[str, torch.Tensor] = {}
    for name in checkpoint.names():
        tensor = checkpoint.read(name)
        if tensor.is_floating_point():
            tensor, before = tensor.to(wanted), tensor
            if wanted == torch.float16 and bool((torch.isinf(tensor) & torch.isfinite(before)).any()):
                raise InputError(f"{name} holds numbers beyond 65,504, which float16 cannot hold; take bfloat16.")
        cast[name] = tensor
    return cast


def _copy_settings(files: Files, aside: Path) -> None:
    """What lies beside the weights: settings, the tokenizer, and the modules of a sentence-transformers folder."""
    config = files.require("config.json")
    for name in _TOKENIZER if files.folder is None else ():
        files.get(name)  # of the hub's repository, into its snapshot
    for path in sorted(config.parent.iterdir()):
        if path.is_dir() and re.fullmatch(r"\d+_\w+", path.name):
            shutil.copytree(path, aside / path.name)
        elif path.is_file() and path.suffix not in _WEIGHTS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, aside / path.name)

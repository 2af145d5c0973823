"""A language model as one GGUF file, with tokenizer and chat template."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from cutaway.auto import AutoModelForCausalLM, AutoTokenizer, config_class, read_config
from cutaway.checkpoint.gguf import GGUFTensors, described, read_gguf
from cutaway.checkpoint.gguf_header import Header, Stored
from cutaway.checkpoint.gguf_names import DIALECTS
from cutaway.checkpoint.gguf_write import (
    Heads,
    PublishedTensors,
    Tensors,
    check_format,
    dialect_for,
    write_gguf,
)
from cutaway.config.config import PretrainedConfig
from cutaway.convert.gguf_metadata import metadata_of
from cutaway.errors import ConfigError, InputError
from cutaway.hub.files import HubOptions, gguf_path, packaged_file, resolve
from cutaway.jsonfile import require_folder
from cutaway.models.backbone import Backbone
from cutaway.models.pretrained import PreTrainedModel
from cutaway.models.state_dict import published_state
from cutaway.nn.lora import Adapters
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.gguf_write import to_gguf as tokenizer_fields

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cutaway.config.architecture import Architecture


def to_gguf(
    model: str | Path | PreTrainedModel,
    path: str | Path,
    quantize: str = "f16",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **load: Unpack[HubOptions],
) -> Path:
    """Write a language model as GGUF, which llama.cpp and what is built on it read, and cutaway runs as it lies.

    Args:
        model: a hub name, a folder, a .gguf file (its matrices are put back to numbers and quantized anew), or a loaded
            model with its `tokenizer`. Tensors are read and written one after another.
        path: the file to write, whole or not at all.
        quantize: what matrices become: f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1,
            q4_0. Vectors stay float32. Rows that are no multiple of 256 take q5_0, q5_1 or q8_0 in place of a K type.
        load: revision, token, cache_dir, local_files_only, subfolder, of `from_pretrained`.

    Raises:
        InputError: an unknown format, a path that is no .gguf, or a model without its tokenizer.
        ConfigError: GGUF has no form for this family, or for a field of this config.
        TokenizerError: GGUF has no form for this tokenizer.
        MissingExtraError: the package `gguf` is missing.
    """
    form = check_format(quantize)
    path = Path(path)
    if path.suffix.lower() != ".gguf":
        raise InputError(f"{path}: a GGUF file's name ends in .gguf.")
    require_folder(path)
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise InputError("to_gguf(model, ...) of a loaded model needs its tokenizer=, which the file holds too.")
        config, tensors = model.config, _of_model(model)
    else:
        file = _gguf_file(model)
        if file is not None and file.resolve() == path.resolve():
            raise InputError(f"{path} would be written over the file that it is made from; give another name.")
        where: dict[str, Any] = {**load} if file is None else {**load, "gguf_file": file.name}
        name = model if file is None else file.parent
        config = read_config(name, **where)
        dialect_for(str(config.model_type))  # before anything is loaded
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(name, **where)
        if file is not None:
            tensors = read_gguf(file).tensors
        else:
            tensors = _of_model(AutoModelForCausalLM.from_pretrained(name, config=config, **where))
    _write(path, config, tensors, tokenizer, form)
    return path


def _gguf_file(model: str | Path) -> Path | None:
    """The file, where the model is one."""
    path = gguf_path(model)
    if path is not None:
        return path
    packaged = packaged_file(str(model))
    return None if packaged is None else resolve(str(model)).require(packaged)


def _of_model(model: PreTrainedModel) -> Tensors:
    if any(isinstance(module, Adapters) for module in model.engine.modules()):
        raise InputError("The model carries adapters, which GGUF has no place for: call model.merge_adapter() first.")
    return _Held(published_state(model))


class _Held:
    """Tensors that are in memory, or mapped from a file."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def names(self) -> list[str]:
        """Their published names."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one."""
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> torch.Tensor:
        """One of them."""
        return self._tensors[name]


def _architecture(config: PretrainedConfig) -> Architecture:
    backbone: type[Backbone[Any]] = AutoModelForCausalLM.class_for(config).backbone
    return backbone.family.architecture(config)


def _write(
    path: Path,
    config: PretrainedConfig,
    tensors: Tensors,
    tokenizer: PreTrainedTokenizerFast,
    form: str,
) -> None:
    architecture, name = _architecture(config), dialect_for(str(config.model_type))
    attention = architecture.stack.attention
    metadata, extra = metadata_of(name, config, architecture)
    heads = Heads(attention.n_heads, attention.n_kv_heads)
    planned = PublishedTensors(tensors, DIALECTS[name], heads, architecture.tied_output)
    _check_read_back(path, name, metadata, extra, planned, architecture)
    title = Path(str(getattr(config, "name_or_path", "") or "")).name
    notes: dict[str, object] = {"general.name": title} if title else {}
    words = tokenizer_fields(tokenizer, tensors.shape(DIALECTS[name].tokens)[0])
    write_gguf(path, name, {**notes, **metadata, **words}, planned, form, extra)


def _check_read_back(
    path: Path,
    family: str,
    metadata: dict[str, object],
    extra: dict[str, torch.Tensor],
    planned: PublishedTensors,
    wanted: Architecture,
) -> None:
    """ConfigError unless the metadata, read again, describe the same architecture."""

    class Planned(GGUFTensors):
        """The tensors of a file that is not written yet."""

        def stored(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
            return extra[name].numpy()

    shapes = {name: Stored(planned.shape(name), 0, 0, 0) for name in planned}
    shapes |= {name: Stored(tuple(value.shape), 0, 0, 0) for name, value in extra.items()}
    fields = described(path, Header({"general.architecture": family, **metadata}, shapes), Planned).config
    try:
        again = _architecture(config_class(str(fields["model_type"])).from_dict(fields))
    except ConfigError as e:
        raise ConfigError(f"GGUF of {family} has no place for what this config says: {e}") from None
    differs = _differences(_comparable(wanted), _comparable(again))
    if differs:
        raise ConfigError(f"GGUF of {family} has no place for what this config says: {'; '.join(differs[:3])}.")


def _comparable(architecture: Architecture) -> dict[str, Any]:
    """What decides the numbers of a trained model in evaluation: first weights and dropout do not."""
    found: dict[str, Any] = {}

    def visit(at: str, value: object) -> None:
        if is_dataclass(value):
            for field in fields(value):
                if "dropout" not in field.name and field.name not in ("init_std", "pad_id"):
                    visit(f"{at}.{field.name}" if at else field.name, getattr(value, field.name))
        elif isinstance(value, tuple):
            for i, one in enumerate(value):
                visit(f"{at}[{i}]", one)
        else:
            found[at] = value

    visit("", architecture)
    return found


def _differences(wanted: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """Fields with other values, in words; GGUF's numbers have 32 bits."""
    differs = []
    for key in sorted({*wanted, *again}):
        a, b = wanted.get(key), again.get(key)
        near = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6)
        if not near and a != b:
            differs.append(f"{key} is {a}, and would be read as {b}")
    return differs

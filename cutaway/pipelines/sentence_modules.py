"""The modules of a sentence-transformers folder: how the vectors of its tokens become the vector of a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.errors import HubError, InputError
from cutaway.hub import Files, resolve
from cutaway.jsonfile import MEGABYTE, parse_json, read_json

# In the order in which sentence-transformers joins several.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = ("cls", "mean", "max")


@dataclass(frozen=True)
class SentenceModules:
    """What modules.json and the files that it names say.

    Attributes:
        pooling: "cls", "mean" or "max"; several are joined end to end.
        normalize: whether vectors are scaled to length 1.
        longest: the most tokens of a text, or None.
        lower: whether texts are lower-cased first.
    """

    pooling: tuple[str, ...]
    normalize: bool = False
    longest: int | None = None
    lower: bool = False


def sentence_modules(name: str) -> SentenceModules | None:
    """The modules of the checkpoint `name`; None for one that has no modules.json.

    Raises:
        InputError: a module, a way of pooling or a standing prompt that cutaway does not have.
    """
    try:
        files = resolve(name)
    except HubError:  # a model that was made here has no files
        return None
    path = files.get("modules.json")
    if path is None:
        return None
    kinds = {str(module["type"]).rpartition(".")[2]: module for module in _modules(path)}
    if unknown := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise InputError(
            f"{name}: modules.json has a module {unknown[0]!r}; cutaway has Transformer, Pooling and Normalize. "
            'Pass pooling="mean", "cls" or "max" to leave the modules aside.'
        )
    settings = _optional(files, "sentence_bert_config.json")
    prompts = _optional(files, "config_sentence_transformers.json")
    if prompts.get("default_prompt_name"):
        raise InputError(
            f"{name}: a prompt ({prompts['default_prompt_name']!r}) is put before every text. cutaway does not do that "
            'by itself: put it before your texts and pass pooling="mean", "cls" or "max".'
        )
    pooling: tuple[str, ...] = ("mean",)
    if "Pooling" in kinds:
        pooling = _pooling(name, read_json(files.require(f"{kinds['Pooling']['path']}/config.json"), InputError))
    longest = settings.get("max_seq_length")
    return SentenceModules(pooling, "Normalize" in kinds, longest, bool(settings.get("do_lower_case")))


def _pooling(name: str, config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    chosen = [named] if isinstance(named, str) else [own for flag, own in _FLAGS.items() if config.get(flag)]
    for own in chosen:
        if own not in POOLINGS:
            raise InputError(f"{name}: its pooling is {own!r}; cutaway has {', '.join(POOLINGS)}.")
    return tuple(chosen) or ("mean",)


def _modules(path: Path) -> list[dict[str, Any]]:
    """The list in modules.json; each entry has a type and a path."""
    with path.open("rb") as file:
        data = file.read(MEGABYTE)
    modules = parse_json(b'{"modules":' + data + b"}", str(path), InputError)["modules"]
    if isinstance(modules, list) and all(isinstance(m, dict) and {"type", "path"} <= set(m) for m in modules):
        return modules
    raise InputError(f"{path} is not a list of modules with a type and a path each. Is the file complete?")


def _optional(files: Files, filename: str) -> dict[str, Any]:
    path = files.get(filename)
    return {} if path is None else read_json(path, InputError)

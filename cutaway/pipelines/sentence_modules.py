"""The modules of a sentence-transformers folder: how the vectors of its tokens become the vector of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.checkpoint.field_table import FieldTable, only
from cutaway.errors import HubError, InputError
from cutaway.hub.files import Files, resolve
from cutaway.jsonfile import MEGABYTE, parse_json, read_json

if TYPE_CHECKING:
    from cutaway.pipelines.sentence_dense import Dense

# In the order in which sentence-transformers joins several.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = tuple(_FLAGS.values())
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
SETTINGS, TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"
_SAYS = "the module's own layer says it"
_TOKENS = only(None, {}, instead="Put the setting into tokenizer_config.json.")
_LATE = "late interaction is not built; use a model with one vector for a text"
TABLES = {
    SETTINGS: FieldTable(
        SETTINGS,
        used=frozenset({"prompts", "default_prompt_name", "similarity_fn_name", "activation_fn"}),
        without_effect={"__version__": "a note on how the file was made", "keep_in_fp32_modules": "dtype says it"},
        refused={
            "model_type": only(None, "SentenceTransformer", "CrossEncoder", instead=f"{_LATE.capitalize()}."),
            "truncate_dim": only(None, instead="Pass dimensions= in the call."),
        },
    ),
    TRANSFORMER: FieldTable(
        TRANSFORMER,
        used=frozenset({"max_seq_length", "do_lower_case"}),
        without_effect={
            "modality_config": "texts go through the family's own forward pass",
            "unpad_inputs": "padding is never computed",
            "transformer_task": "the task says which head is read",
            "model_args": "how the file was loaded",
        },
        refused={
            "processing_kwargs": _TOKENS,
            "tokenizer_args": _TOKENS,
            "module_output_name": only(None, "token_embeddings", "scores"),
            **dict.fromkeys(("query_length", "document_length", "query_expansion"), only(None, instead=f"{_LATE}.")),
        },
    ),
    "Pooling/config.json": FieldTable(
        "config.json of Pooling",
        used=frozenset({*_FLAGS, "pooling_mode", "include_prompt"}),
        without_effect=dict.fromkeys(("embedding_dimension", "word_embedding_dimension"), "the model says it"),
    ),
}
_ASIDE = 'Pass pooling="mean", "cls" or another way to leave the modules aside.'


@dataclass(frozen=True)
class SentenceModules:
    """What modules.json and the files that it names say.

    Attributes:
        pooling: names of `POOLINGS`; several are joined end to end.
        after: what then happens to the vector of a text, in order: "normalize" (to length 1), or a dense layer.
        longest: the most tokens of a text, or None.
        lower: whether texts are lower-cased first.
        prompts: texts that are put before a text, by name ("query", "document").
        prompt: the one of them that is put before every text, or "".
        similarity: how vectors are compared, a name of `SIMILARITIES`.
    """

    pooling: tuple[str, ...]
    after: tuple[str | Dense, ...] = ()
    longest: int | None = None
    lower: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    similarity: str = "cosine"


def sentence_modules(name: str) -> SentenceModules | None:
    """The modules of the checkpoint `name`; None for one that has no modules.json.

    Raises:
        InputError: a module, an order of modules or a setting that cutaway does not have.
    """
    try:
        files = resolve(name)
    except HubError:  # a model that was made here has no files
        return None
    path = files.get("modules.json")
    if path is None:
        return None
    modules = _modules(path)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    pooling: tuple[str, ...] = ("mean",)
    after: list[str | Dense] = []
    with_prompt = True
    for place, (kind, module) in enumerate(zip(kinds, modules, strict=True)):
        if kind == "Pooling" and place == 1:
            config = read_json(files.require(f"{module['path']}/config.json"), InputError)
            TABLES["Pooling/config.json"].check(config, InputError, f"{name}: {module['path']}/config.json")
            pooling, with_prompt = _pooling(name, config), bool(config.get("include_prompt", True))
        elif kind == "Normalize" and place:
            config = _optional(files, f"{module['path']}/config.json") if module["path"] else {}
            if {*map(str, config.values())} - {"sentence_embedding"}:
                raise InputError(f"{name}: the Normalize module {module['path']} does not read the vector of a text.")
            after.append("normalize")
        elif kind == "Dense" and "Pooling" in kinds[:place]:
            from cutaway.pipelines.sentence_dense import read_dense

            after.append(read_dense(name, str(module["path"])))
        elif kind != "Dropout" and (kind != "Transformer" or place):  # dropout is for training
            raise InputError(
                f"{name}: modules.json has a module {kind!r} at place {place}; cutaway has a Transformer, then "
                f"Pooling, then Dense and Normalize. {_ASIDE}"
            )
    settings = _optional(files, f"{modules[0]['path']}/{TRANSFORMER}".lstrip("/"))
    TABLES[TRANSFORMER].check(settings, InputError, f"{name}: {TRANSFORMER}")
    longest, lower = settings.get("max_seq_length"), bool(settings.get("do_lower_case"))
    return SentenceModules(pooling, tuple(after), longest, lower, **_prompts(name, files, with_prompt))


@dataclass(frozen=True)
class CrossEncoder:
    """What the files say about a model that reads two texts together.

    Attributes:
        activation: the published name of the function on its score, or "" where config.json says it.
        prompt: what is put before the first text, or "".
    """

    activation: str = ""
    prompt: str = ""


def cross_encoder(name: str) -> CrossEncoder:
    """The settings of the cross-encoder in the checkpoint `name`, as sentence-transformers 5 and later keep them.

    Raises:
        InputError: a setting that cutaway does not have.
    """
    try:
        files = resolve(name)
    except HubError:  # a model that was made here has no files
        return CrossEncoder()
    TABLES[TRANSFORMER].check(_optional(files, TRANSFORMER), InputError, f"{name}: {TRANSFORMER}")
    return CrossEncoder(
        str(_optional(files, SETTINGS).get("activation_fn") or ""), _prompts(name, files, True)["prompt"]
    )


def transformer_folder(name: str) -> str:
    """Where in the checkpoint `name` the model itself lies: "" at its top, "0_Transformer" in older folders."""
    try:
        files = resolve(name)
        path = None if files.get("config.json") is not None else files.get("modules.json")
    except HubError:  # loading says what is wrong
        return ""
    return "" if path is None else str(_modules(path)[0]["path"])


def _prompts(name: str, files: Files, with_prompt: bool) -> dict[str, Any]:
    settings = _optional(files, SETTINGS)
    TABLES[SETTINGS].check(settings, InputError, f"{name}: {SETTINGS}")
    given, chosen = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise InputError(f"{name}: prompts in config_sentence_transformers.json are not texts by name.")
    if chosen and chosen not in given:
        raise InputError(f"{name}: default_prompt_name {chosen!r} is none of its prompts ({', '.join(given)}).")
    if any(given.values()) and not with_prompt:
        raise InputError(f"{name}: its pooling leaves prompts out, which cutaway does not. {_ASIDE}")
    similarity = settings.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITIES:
        raise InputError(f"{name}: similarity_fn_name is {similarity!r}; cutaway has {', '.join(SIMILARITIES)}.")
    return {"prompts": given, "prompt": given[chosen] if chosen else "", "similarity": similarity}


def _pooling(name: str, config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    chosen = [named] if isinstance(named, str) else named
    if not isinstance(chosen, list):
        chosen = [own for flag, own in _FLAGS.items() if config.get(flag)]
    for own in chosen:
        if own not in POOLINGS:
            raise InputError(f"{name}: its pooling is {own!r}; cutaway has {', '.join(POOLINGS)}.")
    return tuple(chosen) or ("mean",)


def _modules(path: Path) -> list[dict[str, Any]]:
    """The list in modules.json; each entry has a type and a path."""
    with path.open("rb") as file:
        data = file.read(MEGABYTE)
    modules = parse_json(b'{"modules":' + data + b"}", str(path), InputError)["modules"]
    if (
        isinstance(modules, list)
        and modules
        and all(isinstance(m, dict) and {"type", "path"} <= set(m) for m in modules)
    ):
        return modules
    raise InputError(f"{path} is not a list of modules with a type and a path each. Is the file complete?")


def _optional(files: Files, filename: str) -> dict[str, Any]:
    path = files.get(filename)
    return {} if path is None else read_json(path, InputError)

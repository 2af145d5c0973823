"""From a checkpoint's files to a tokenizer: which class it is, which files it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from cutaway.checkpoint.collector_pause import collector_paused
from cutaway.errors import TokenizerError, nearest
from cutaway.tokenization.settings_files import CONFIG_FILE, TOKENIZER_FILE, read_config, read_settings
from cutaway.tokenization.special_tokens import TOKEN_NAMES

if TYPE_CHECKING:
    from cutaway.hub.files import Files


class Loadable(Protocol):
    """What loading needs of a tokenizer class: the names of its vocabulary files, and that settings make one."""

    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]]
    more_files: ClassVar[Mapping[str, tuple[str, ...]]]
    needs_no_files: ClassVar[bool]

    def __init__(self, **settings: object) -> None: ...


T = TypeVar("T", bound=Loadable)

# Accepted because tutorials pass them: a tokenizer here is always fast, and code from a checkpoint is never run.
_WITHOUT_EFFECT = ("use_fast", "trust_remote_code")
# What a file may not decide: where other files are, and what the loader itself passes.
_NOT_FROM_FILES = (
    "tokenizer_class",
    "tokenizer_object",
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "source_spm",
    "target_spm",
    "vocab",
    "merges",
    "name_or_path",
    "special_tokens_map_file",
    "auto_map",
    "init_inputs",
    "is_local",
    "local_files_only",
)
_SETTINGS = (
    *TOKEN_NAMES,
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "additional_special_tokens",
    "chat_template",
    "clean_up_tokenization_spaces",
    "do_lower_case",
    "extra_ids",
    "extra_special_tokens",
    "keep_accents",
    "language_codes",
    "legacy",
    "legacy_behaviour",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "split_by_punct",
    "split_special_tokens",
    "src_lang",
    "strip_accents",
    "tgt_lang",
    "tokenize_chinese_chars",
    "trim_offsets",
    "truncation_side",
)


def load(
    name: str | Path | Files,
    general: type[T],
    classes: Mapping[str, type[T]],
    model_types: Mapping[str, type[T]],
    *,
    config: object = None,
    gguf_file: str | None = None,
    **arguments: Any,
) -> T:
    """The tokenizer of a checkpoint. The class is the one tokenizer_config.json names, or the model type's.

    Args:
        name: a folder, a built-in name or a name on the hub.
        general: the class for everything that has a tokenizer.json and no class of its own.
        classes: tokenizer class by its published name.
        model_types: tokenizer class by config.json's `model_type`.
        config: the model's configuration; config.json is read where it is not given.
        gguf_file: the GGUF file that the tokenizer is in.
        arguments: of the hub, and settings of the tokenizer.
    """
    from cutaway.hub.files import packaged_file

    gguf_file = gguf_file or packaged_file(name)
    if gguf_file is not None:
        return load_as(general, general, name, gguf_file=gguf_file, **arguments)
    files = _find(name, arguments)
    if files is None:
        return load_as(general, general, name, **arguments)
    published = read_config(files, CONFIG_FILE).get("tokenizer_class")
    model = {} if config is not None else read_config(files, "config.json")
    kind = getattr(config, "model_type", None) or model.get("model_type")
    published = published or getattr(config, "tokenizer_class", None) or model.get("tokenizer_class")
    cls = general if published is not None else model_types.get(str(kind), general)
    cls = classes.get(str(published).removesuffix("Fast"), cls)
    if cls is general and files.get(TOKENIZER_FILE) is None:
        cls = model_types.get(str(kind), general)
    return load_as(cls, general, name, **arguments)


@collector_paused()
def load_as(
    cls: type[T],
    general: type[T],
    name: str | Path | Files,
    *,
    gguf_file: str | None = None,
    **arguments: object,
) -> T:
    """The tokenizer of a checkpoint as an object of `cls`; one from a GGUF file is always of the class `general`."""
    from cutaway.hub.files import HUB_OPTIONS, packaged_file

    gguf_file = gguf_file or packaged_file(name)
    files = _find(name, arguments)
    source = str(name) if files is None else files.name
    call = {key: value for key, value in arguments.items() if key not in (*HUB_OPTIONS, *_WITHOUT_EFFECT)}
    for key in call:
        if key not in _SETTINGS and not key.endswith("_token"):
            raise TokenizerError(f"{cls.__name__} does not know the setting {key!r}.{nearest(key, _SETTINGS)}")
    if gguf_file is not None:
        from cutaway.checkpoint.gguf import read_gguf
        from cutaway.tokenization.backend import OwnedBackend
        from cutaway.tokenization.gguf import from_gguf

        data = read_gguf(Path(source) if files is None else files.require(gguf_file)).tokenizer
        backend, stored = from_gguf(data)
        return general(tokenizer_object=OwnedBackend(backend), name_or_path=source, **{**stored, **call})
    if files is None:
        key = "tokenizer_file" if source.endswith(".json") else "vocab_file"
        return cls(name_or_path=source, **{**call, key: source})
    settings, added = read_settings(files)
    settings = {key: value for key, value in settings.items() if key not in _NOT_FROM_FILES}
    sources: dict[str, str] = {}
    tokenizer_file = files.get(TOKENIZER_FILE)
    if tokenizer_file is not None:
        sources["tokenizer_file"] = str(tokenizer_file)
        for key in ("add_bos_token", "add_eos_token"):  # the file's own post-processor already does it, or does not
            settings.pop(key, None)
    else:
        for key, names in cls.vocabulary_files.items():
            path = next((p for file in names if (p := files.get(file)) is not None), None)
            if path is None:
                raise TokenizerError(
                    f"{files.name} holds no tokenizer for {cls.__name__}: neither {TOKENIZER_FILE} nor "
                    f"{' or '.join(names)}."
                )
            sources[key] = str(path)
        for key, names in cls.more_files.items():
            path = next((p for file in names if (p := files.get(file)) is not None), None)
            if path is not None:
                sources[key] = str(path)
        if not sources and not cls.needs_no_files:
            raise TokenizerError(
                f"{files.name} holds no {TOKENIZER_FILE}, and neither tokenizer_config.json nor config.json names a "
                "tokenizer that has other files. Load it with the class it was made with, such as BertTokenizerFast."
            )
    return cls(name_or_path=source, added_tokens_decoder=added, **{**settings, **call, **sources})


def _find(name: str | Path | Files, arguments: Mapping[str, Any]) -> Files | None:
    """The checkpoint's files; None where `name` is itself a file."""
    from cutaway.hub.files import hub_options, resolve

    if isinstance(name, (str, Path)) and Path(name).is_file():
        return None
    return resolve(name, **hub_options(arguments))

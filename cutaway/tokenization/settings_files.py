"""The settings files beside a tokenizer: tokenizer_config.json, special_tokens_map.json, added_tokens.json, templates.

They are read into plain settings (never into names to import or code to run) and written so that Transformers and
cutaway both load them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from cutaway.checkpoint.field_table import FieldTable, only
from cutaway.errors import TokenizerError
from cutaway.hub.folder_save import folder_save
from cutaway.tokenization.backend import (
    LONGEST_ROW,
    MOST_IDS,
    check_length,
    check_text,
    guarded,
    read_bytes,
    read_object,
)
from cutaway.tokenization.special_tokens import SpecialTokens

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from cutaway.hub.files import Files
    from cutaway.hub.folder_save import FolderSave

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TOKENIZER_FILE = "tokenizer.json"
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"
MOST_CONFIG_BYTES = 16 * 2**20

# Where the file says no length, or says the 1e30 that older tools wrote for "none".
NO_LENGTH = int(1e30)

_FLAGS = (
    "do_lower_case",
    "tokenize_chinese_chars",
    "add_prefix_space",
    "trim_offsets",
    "add_bos_token",
    "add_eos_token",
    "clean_up_tokenization_spaces",
    "split_by_punct",
    "split_special_tokens",
    "legacy",
)
_ADDED_FIELDS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_IN_CALLS = "padding and truncation are asked for in each call"
_FOUND = "files are found by their published names"
_CLASS = "the class and the vocabulary say it"
TABLE = FieldTable(
    CONFIG_FILE,
    used=frozenset({
        *_TOKENS, *_EXTRA, *_FLAGS, "added_tokens_decoder", "chat_template", "extra_ids", "keep_accents",
        "language_codes", "legacy_behaviour", "max_len", "model_input_names", "model_max_length", "pad_token_type_id",
        "padding_side", "separate_vocabs", "src_lang", "strip_accents",
        "tgt_lang", "tokenizer_class", "truncation_side",
    }),
    without_effect={
        **dict.fromkeys(
            ("max_length", "pad_to_multiple_of", "stride", "truncation_strategy", "truncation", "padding",
             "return_tensors", "padding_strategy"),
            _IN_CALLS,
        ),
        **dict.fromkeys(
            ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "source_spm", "target_spm", "target_vocab_file",
             "sp_model_file", "special_tokens_map_file", "name_or_path", "tokenizer_object", "vocab", "merges"),
            _FOUND,
        ),
        **dict.fromkeys(
            ("vocab_size", "offset", "mask_token_sent", "source_lang", "target_lang", "num_madeup_words", "vocab_type",
             "unk_id"),
            _CLASS,
        ),
        **dict.fromkeys(("auto_map", "trust_remote_code", "processor_class"), "code from a checkpoint is never run"),
        **dict.fromkeys(
            ("backend", "is_local", "local_files_only", "init_inputs", "use_fast", "from_slow", "transformers_version",
             "_commit_hash", "added_tokens_encoder", "fix_mistral_regex", "device_map", "dtype", "torch_dtype"),
            "how other software loads the file",
        ),
        "use_default_system_prompt": "the chat template says it",
        "spaces_between_special_tokens": "tokens are joined as tokenizer.json says",
        "never_split": "added tokens are never split",
    },
    refused={
        "sp_model_kwargs": only(None, {}),
        "errors": only(None, "replace"),
        "do_basic_tokenize": only(None, True),
        "wordpieces_prefix": only(None, "##"),
        "remove_space": only(None, True),
        "byte_fallback": only(None, True),
        "normalization": only(None, False),
    },
)  # fmt: skip
SPECIAL_TABLE = FieldTable(SPECIAL_FILE, used=frozenset({*_TOKENS, *_EXTRA}))


def flag_or(value: bool | None, default: bool) -> bool:
    """A flag of the settings; `default` where it is not set."""
    return default if value is None else value


def read_config(files: Files, name: str) -> dict[str, Any]:
    """One JSON object of the checkpoint, empty where the file does not exist."""
    path = files.get(name)
    return {} if path is None else read_object(path, read_bytes(path, MOST_CONFIG_BYTES))


def read_settings(files: Files) -> tuple[dict[str, Any], dict[int, AddedToken]]:
    """All settings of a checkpoint's tokenizer, and the added tokens it declares, by id.

    tokenizer_config.json comes first. special_tokens_map.json and added_tokens.json are older than its
    `added_tokens_decoder` and count only where that is missing.

    Raises:
        TokenizerError: a file is damaged, or a setting has a value that cannot be used.
    """
    settings = read_config(files, CONFIG_FILE)
    # any name that ends in _token may name a token
    TABLE.check({k: v for k, v in settings.items() if not k.endswith("_token")}, TokenizerError)
    declared = settings.pop("added_tokens_decoder", None)
    added: dict[int, AddedToken] = {}
    if declared is not None:
        if not isinstance(declared, Mapping):
            raise TokenizerError(f"{CONFIG_FILE}: added_tokens_decoder must map ids to tokens, not {declared!r:.60}.")
        for index, token in declared.items():
            added[_token_id(CONFIG_FILE, index)] = _added(CONFIG_FILE, token)
    else:
        for name, value in read_config(files, SPECIAL_FILE).items():
            settings[name] = value
    settings = {name: _revive(name, value) for name, value in settings.items()}
    if declared is None:
        special = {str(v) for n, v in settings.items() if n.endswith("_token") and isinstance(v, (str, AddedToken))}
        extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
        special.update(str(token) for token in extra if isinstance(extra, list))
        for content, index in read_config(files, ADDED_FILE).items():
            check_text(f"{ADDED_FILE}: a token", content)
            token = AddedToken(content, normalized=content not in special, special=content in special)
            added[_token_id(ADDED_FILE, index)] = token
    templates = _read_templates(files)
    if templates:
        settings["chat_template"] = templates["default"] if [*templates] == ["default"] else templates
    by_content = {token.content: token for token in added.values()}
    for name, value in settings.items():
        if name.endswith("_token") and isinstance(value, (str, AddedToken)):
            settings[name] = by_content.get(str(value), value)
    return settings, added


def check_settings(settings: dict[str, Any]) -> None:
    """Raises TokenizerError where a setting has a value that no tokenizer can use."""
    length = settings.get("model_max_length", settings.get("max_len"))
    if length is not None and (isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= 0):
        raise TokenizerError(f"model_max_length is {length!r}; it must be the number of tokens that the model takes.")
    for side in ("padding_side", "truncation_side"):
        if settings.get(side, "right") not in ("right", "left"):
            raise TokenizerError(f"{side} is {settings[side]!r}; it must be 'right' or 'left'.")
    for flag in _FLAGS:
        if not isinstance(settings.get(flag), (bool, type(None))):
            raise TokenizerError(f"{flag} is {settings[flag]!r}; it must be true or false.")
    if not isinstance(settings.get("strip_accents"), (bool, type(None))):
        raise TokenizerError(f"strip_accents is {settings['strip_accents']!r}; it must be true, false or null.")
    names = settings.get("model_input_names")
    if names is not None and not (
        isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names)
    ):
        raise TokenizerError(f"model_input_names is {names!r}; it must be a list of names that starts with input_ids.")
    check_length("extra_ids", settings.get("extra_ids"), 10_000)
    check_length("pad_token_type_id", settings.get("pad_token_type_id"), LONGEST_ROW)


def write_settings(
    save: FolderSave, settings: Mapping[str, Any], special: Mapping[str, Any], template: str | Mapping[str, str] | None
) -> list[str]:
    """Write tokenizer_config.json, special_tokens_map.json and the chat templates. Returns the names.

    What another tokenizer left in the folder, and would be read as this one's, goes.
    """
    texts = {CONFIG_FILE: _json(settings), SPECIAL_FILE: _json(special)}
    for name, text in ({"default": template} if isinstance(template, str) else template or {}).items():
        if name == "default":
            texts[TEMPLATE_FILE] = text
            continue
        if Path(f"{name}.jinja").name != f"{name}.jinja":
            raise TokenizerError(f"The chat template's name {name!r} cannot be a file name.")
        (save.aside / TEMPLATE_FOLDER).mkdir(exist_ok=True)
        texts[f"{TEMPLATE_FOLDER}/{name}.jinja"] = text
    for file, text in texts.items():
        save.write_text(file, text)
    older = (path.name for path in (save.folder / TEMPLATE_FOLDER).glob("*.jinja"))
    save.remove(ADDED_FILE, TEMPLATE_FILE, *(f"{TEMPLATE_FOLDER}/{name}" for name in older))
    return list(texts)


def as_json(token: str | AddedToken) -> str | dict[str, Any]:
    """A special token as special_tokens_map.json spells it: a string, or its content with what differs."""
    if isinstance(token, str) or not (token.lstrip or token.rstrip or token.single_word or token.normalized):
        return str(token)
    return {"content": token.content, **{name: getattr(token, name) for name in _ADDED_FIELDS}}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _token_id(source: str, index: object) -> int:
    try:
        number = int(index) if isinstance(index, (int, str)) and not isinstance(index, bool) else -1
    except ValueError:
        number = -1
    if not 0 <= number < MOST_IDS:
        raise TokenizerError(f"{source}: {index!r:.40} is no token id; ids go from 0 to {MOST_IDS - 1:,}.")
    return number


def _added(source: str, token: object, **fixed: bool) -> AddedToken:
    if isinstance(token, Mapping) and isinstance(token.get("content"), str):
        check_text(f"{source}: the token", token["content"])
        flags = {name: token[name] for name in _ADDED_FIELDS if name in token}
        if all(isinstance(flag, bool) for flag in flags.values()):
            return AddedToken(token["content"], **{**flags, **fixed})
    raise TokenizerError(f"{source}: {token!r:.80} is no token; it must have a content and true/false flags.")


def _revive(name: str, value: object) -> object:
    """Saved special tokens as AddedToken objects; every other setting as it is."""
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        return _added(name, value, special=True) if name.endswith("_token") else _added(name, value)
    if name in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
        return [_added(name, token, special=True) if isinstance(token, Mapping) else token for token in value]
    return value


def _read_templates(files: Files) -> dict[str, str]:
    paths = {}
    default = files.get(TEMPLATE_FILE)
    if default is not None:
        paths["default"] = default
    if files.folder is not None:
        folders = (files.folder, *([] if files.pending is None else [files.pending.folder]))
        for name in sorted({path.name for folder in folders for path in (folder / TEMPLATE_FOLDER).glob("*.jinja")}):
            if (path := files.get(f"{TEMPLATE_FOLDER}/{name}")) is not None:
                paths[path.stem] = path
    templates = {}
    for name, path in paths.items():
        try:
            templates[name] = read_bytes(path, MOST_CONFIG_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise TokenizerError(f"The chat template {path.name} is not UTF-8 text.") from None
    return templates


# Settings that have a file of their own, or that only say where the tokenizer came from.
_NOT_SAVED = (
    "vocab",
    "merges",
    "vocab_file",
    "merges_file",
    "chat_template",
    "additional_special_tokens",
    "extra_special_tokens",
    "add_bos_token",
    "add_eos_token",
)


class TokenizerSaving(SpecialTokens):
    """The part of a tokenizer that writes its files."""

    if TYPE_CHECKING:
        _lock: threading.Lock
        _facts: Callable[[], dict[str, Any]]
        init_kwargs: dict[str, Any]
        model_max_length: int
        padding_side: str
        truncation_side: str
        model_input_names: Sequence[str]
        clean_up_tokenization_spaces: bool
        chat_template: Any

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the model's own vocabulary files (vocab.txt, or vocab.json and merges.txt) into a folder; the paths.

        Added tokens are not in them: `save_pretrained` writes everything.
        """
        if not Path(save_directory).is_dir():
            raise TokenizerError(f"{save_directory} is no folder; save_vocabulary writes into one that is there.")
        with guarded("The vocabulary cannot be written"):
            return tuple(self._backend.model.save(str(save_directory), filename_prefix))

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and the chat template, all or none.

        Returns:
            The paths written. Transformers loads the same folder.
        """
        if wrong := [name for name in kwargs if name not in ("legacy_format", "filename_prefix", "push_to_hub")]:
            raise TokenizerError(f"save_pretrained has no argument {wrong[0]!r}.")
        if kwargs.get("push_to_hub") or kwargs.get("filename_prefix"):
            raise TokenizerError("save_pretrained writes a folder under the usual names; push_to_hub() uploads it.")
        folder = Path(save_directory)
        with self._lock, guarded(f"{TOKENIZER_FILE} cannot be written"):
            self._backend.no_padding()
            self._backend.no_truncation()
            text = self._backend.to_str(pretty=True)
        settings = {
            **{name: value for name, value in self.init_kwargs.items() if name not in _NOT_SAVED},
            **self.special_tokens_map,
            **self._facts(),
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "model_input_names": list(self.model_input_names),
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
        }
        special: dict[str, Any] = {name: as_json(token) for name, token in self._named.items() if token is not None}
        if self._extra:
            settings["extra_special_tokens"] = self.extra_special_tokens
            special["additional_special_tokens"] = [as_json(token) for token in self._extra]
        with folder_save(folder) as save:
            save.write_text(TOKENIZER_FILE, text)
            written = write_settings(save, settings, special, self.chat_template)
        return (str(folder / TOKENIZER_FILE), *(str(folder / name) for name in written))

"""The tokenizer inside a GGUF file, from the metadata fields that llama.cpp defines (gguf-py/gguf/constants.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from cutaway.checkpoint.field_table import FieldTable, only
from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import (
    LLAMA3_SPLIT,
    MOST_IDS,
    QWEN2_SPLIT,
    byte_level_backend,
    guarded,
    metaspace_backend,
)
from cutaway.tokenization.sentencepiece_model import CONTROL, USER_DEFINED, merges_from

_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

# How a byte-level vocabulary splits text before it merges; a file names it in tokenizer.ggml.pre, by the names of
# llama.cpp (src/llama-vocab.cpp). A file that gives none is older than the field and splits as GPT-2 does.
GPT2, DIGITS = "", "digits"  # GPT-2's own way; each digit alone, then GPT-2's way
SPLITS = {
    **dict.fromkeys(
        ("default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "mellum"), GPT2
    ),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), DIGITS),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2", "dbrx", "smaug-bpe"), LLAMA3_SPLIT
    ),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan"), QWEN2_SPLIT),
}
_LATER = "of ways to write that cutaway does not have"
_VISIBLE = "the token is found by its name"
TABLE = FieldTable(
    "The tokenizer's GGUF metadata",
    used=frozenset({
        "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id", "unknown_token_id",
        "padding_token_id", "add_bos_token", "add_eos_token", "add_space_prefix", "chat_template",
    }),
    without_effect={
        **dict.fromkeys(
            ("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id",
             "fim_sep_token_id", "prefix_token_id", "suffix_token_id", "middle_token_id"),
            _LATER,
        ),
        **dict.fromkeys(
            ("seperator_token_id", "mask_token_id", "cls_token_id", "eot_token_id", "eom_token_id"), _VISIBLE
        ),
        "token_type_count": "these families have no token types",
        "huggingface.json": "the fields of ggml say the same",
        "chat_templates": "the names of further templates",
    },
    refused={
        "add_sep_token": only(None, False),
        "remove_extra_whitespaces": only(None, False),
        "precompiled_charsmap": only(None, [], ()),
        "rwkv.world": only(None),
    },
)  # fmt: skip


def from_gguf(data: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer that GGUF metadata describes: its pipeline, and its settings by their published names.

    Args:
        data: the fields `tokenizer.ggml.model`, `.tokens`, `.merges`, ... and `tokenizer.chat_template`, as Python
            values; the prefix `tokenizer.` or `tokenizer.ggml.` may be left out.

    Raises:
        TokenizerError: a field is missing or damaged, or the kind of vocabulary is unknown.
    """
    fields = {key.removeprefix("tokenizer.").removeprefix("ggml."): value for key, value in data.items()}
    fields = {key: value for key, value in fields.items() if not key.startswith("chat_template.")}
    TABLE.check(fields, TokenizerError)
    kind, tokens = fields.get("model"), list(fields.get("tokens") or [])
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise TokenizerError("The GGUF file holds no tokens (tokenizer.ggml.tokens), so it holds no tokenizer.")
    if len(tokens) > MOST_IDS:
        raise TokenizerError(f"tokenizer.ggml.tokens holds {len(tokens):,} tokens; at most {MOST_IDS:,} can be used.")
    if kind == "gpt2":
        backend = _byte_level(fields, tokens)
    elif kind == "llama":
        backend = _metaspace(fields, tokens)
    else:
        raise TokenizerError(f"tokenizer.ggml.model is {kind!r}; cutaway reads the vocabularies 'gpt2' and 'llama'.")
    kinds = fields.get("token_type") or []
    control = [AddedToken(t, normalized=False, special=True) for t in _tokens_of_kind(backend, tokens, kinds, CONTROL)]
    plain = [
        AddedToken(t, normalized=False, special=False) for t in _tokens_of_kind(backend, tokens, kinds, USER_DEFINED)
    ]
    with guarded("The GGUF file's special tokens cannot be used"):
        backend.add_special_tokens(control)
        backend.add_tokens(plain)
    settings: dict[str, Any] = {name: _token(fields, tokens, field) for name, field in _SPECIAL.items()}
    settings["chat_template"] = fields.get("chat_template")
    for name in ("add_bos_token", "add_eos_token"):
        if fields.get(name) is not None:
            settings[name] = bool(fields[name])
    if kind == "llama":  # llama.cpp starts a sentencepiece text with bos unless the file says otherwise
        settings.setdefault("add_bos_token", True)
    return backend, settings


def _byte_level(fields: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    letters = byte_letters()
    known = set(letters.values())
    if not known.issuperset("".join(tokens)):  # some are spelled as text
        tokens = [t if known.issuperset(t) else "".join(letters[byte] for byte in t.encode("utf-8")) for t in tokens]
    vocab = dict(zip(tokens, range(len(tokens)), strict=True))
    backend = byte_level_backend(
        vocab, _merges(fields), add_prefix_space=False, split=(split := _split(fields)) or None
    )
    if split == DIGITS:
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return backend


def _split(fields: Mapping[str, Any]) -> str:
    """The pattern that the file names; GPT2 or DIGITS for the ways that have none."""
    name = fields.get("pre")
    if name is None:
        return GPT2
    if name not in SPLITS:
        raise TokenizerError(
            f"tokenizer.ggml.pre is {str(name)[:60]!r}, a way to split text that cutaway does not have, so its tokens "
            f"would be others; known are {', '.join(SPLITS)}. Load the tokenizer from the model's tokenizer.json."
        )
    return SPLITS[name]


def _metaspace(fields: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = _merges(fields)
    if not merges:
        scores = fields.get("scores")
        if not isinstance(scores, (list, tuple)) or len(scores) != len(tokens):
            raise TokenizerError("The GGUF file has neither merges nor one score per token (tokenizer.ggml.scores).")
        merges = merges_from(vocab, dict(zip(tokens, map(float, scores), strict=True)))
    return metaspace_backend(vocab, merges, add_prefix_space=fields.get("add_space_prefix") is not False, legacy=False)


def _merges(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    merges = fields.get("merges") or []
    pairs = [(left, right) for left, _, right in [str(merge).partition(" ") for merge in merges]]
    if not all(left and right for left, right in pairs):
        wrong = next(merge for merge, (left, right) in zip(merges, pairs, strict=True) if not (left and right))
        raise TokenizerError(f"tokenizer.ggml.merges holds {wrong!r:.60}, which is not a pair of two tokens.")
    return pairs


def _tokens_of_kind(backend: Tokenizer, tokens: list[str], kinds: object, wanted: int) -> list[str]:
    """The tokens of one kind. Those that the vocabulary does not spell that way are mislabelled, and left out: adding
    them would make the vocabulary larger than the model's.
    """
    if not isinstance(kinds, (list, tuple)):
        return []
    return [t for t, kind in zip(tokens, kinds, strict=False) if kind == wanted and backend.token_to_id(t) is not None]


def _token(fields: Mapping[str, Any], tokens: list[str], field: str) -> str | None:
    index = fields.get(field)
    if index is None:
        return None
    if not isinstance(index, int) or not 0 <= index < len(tokens):
        raise TokenizerError(f"tokenizer.ggml.{field} is {index!r}, but the file has {len(tokens)} tokens.")
    return tokens[index]


def byte_letters() -> dict[int, str]:
    """The letter that a byte-level vocabulary has for each byte: printable Latin-1 as itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}

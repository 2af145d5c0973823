"""Texts without anything in them, and files of tokenizers that are traps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bad_input.calls import CAUSAL
from bad_input.case import Case, spoilt
from cutaway import auto
from cutaway.tokenization.backend import LONGEST_ROW

Prepare = Callable[[Path], Callable[[], object]]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "!"]


def bert(folder: Path) -> Path:
    spoilt(folder, "bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def gpt2(folder: Path) -> Path:
    """A byte-level tokenizer without special tokens: an empty text has no token at all."""
    spoilt(folder, "gpt2", CAUSAL)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:38]
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate([*alphabet, "<end>"])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    backend.save(str(folder / "tokenizer.json"))
    return folder


def read(make: Callable[[Path], Path], text: Any, ending: str = "", **options: Any) -> Prepare:
    """The text through the tokenizer into the model."""

    def prepare(folder: Path) -> Callable[[], object]:
        make(folder)
        model = getattr(auto, f"AutoModel{ending}").from_pretrained(folder)
        tokenizer = auto.AutoTokenizer.from_pretrained(folder)
        return lambda: model(**tokenizer(text, return_tensors="pt", **options))

    return prepare


def tokenizer(change: Callable[[dict[str, Any]], object] | bytes, **settings: Any) -> Prepare:
    """A tokenizer.json of other content, used once."""

    def prepare(folder: Path) -> Callable[[], object]:
        path = gpt2(folder) / "tokenizer.json"
        if isinstance(change, bytes):
            path.write_bytes(change)
        else:
            fields = json.loads(path.read_text())
            change(fields)
            path.write_text(json.dumps(fields))
        if settings:
            (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return lambda: auto.AutoTokenizer.from_pretrained(folder)("a" * 30, padding=bool(settings) or "max_length")

    return prepare


def vocabulary(content: bytes) -> Prepare:
    """A vocab.txt of other content."""

    def prepare(folder: Path) -> Callable[[], object]:
        (bert(folder) / "vocab.txt").write_bytes(content)
        return lambda: auto.AutoTokenizer.from_pretrained(folder)("a")

    return prepare


INPUT, T = "InputError", "TokenizerError"
PADDED = {"strategy": {"Fixed": LONGEST_ROW + 1}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
          "pad_type_id": 0, "pad_token": "<end>"}  # fmt: skip
CASES = [
    Case("an empty text", "", "", read(bert, "")),
    Case("a text of spaces", "", "", read(bert, " \n\t ")),
    Case("a text of only special tokens", "", "", read(bert, "[CLS][SEP][PAD]")),
    Case("a text of special characters", "", "", read(bert, "\0\ufffd\u200b\u202e\U0001f600")),
    Case("only empty texts", "", "", read(bert, ["", ""], padding=True)),
    Case(
        "an empty text without special tokens",
        INPUT,
        r"empty: shape \[1, 0\].*at least one token",
        read(gpt2, "", CAUSAL),
    ),
    Case("no text", T, "text", read(bert, None)),
    Case("a number for a text", T, "text", read(bert, 5)),
    Case("a list with a number", T, "text|str", read(bert, ["a", 5], padding=True)),
    Case("bytes", T, "text|str", read(bert, b"a")),
    Case("half a surrogate", T, "surrogate|encode|Unicode|UTF-8", read(bert, "a\ud800")),
    Case("a long text that is not cut", INPUT, "(?s)tokens.*can take 16.*truncation=True", read(bert, "a " * 100)),
    Case("texts of two lengths without padding", T, "padding", read(bert, ["a", "a a a"])),
    Case(
        "padding to more than a row may have",
        T,
        "max_length|padding",
        read(bert, "a", padding="max_length", max_length=LONGEST_ROW + 1),
    ),
    Case(
        "padding to more than a row may have, in the file",
        T,
        "padding|pad|length",
        tokenizer(lambda fields: fields.update(padding=PADDED)),
    ),
    Case("a tokenizer of zeros", T, "tokenizer.json", tokenizer(b"\0" * 100)),
    Case("a tokenizer that is a list", T, "tokenizer.json", tokenizer(b"[]")),
    Case("a tokenizer without a model", T, "tokenizer.json", tokenizer(lambda fields: fields.pop("model"))),
    Case(
        "a tokenizer of an unknown kind",
        T,
        "tokenizer.json",
        tokenizer(lambda fields: fields["model"].update(type="Nonsense")),
    ),
    Case("a vocabulary that is not UTF-8", T, "vocab.txt", vocabulary(b"[PAD]\n\xff\xfe\n")),
    Case("an empty vocabulary", T, "vocab.txt|vocabulary", vocabulary(b"")),
]

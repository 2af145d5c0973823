"""The tokenizers of Qwen2 and GPT-NeoX against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

import cutaway
from cutaway.tokenization.gguf import byte_letters

TEXTS = ["ab  ab", " a 123", "", "cafe\u0301 é 😀\n\nx", "don't", "ab<|endoftext|>b"]
LETTERS = [*byte_letters().values()]


@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "GPTNeoXTokenizer"])
def test_byte_level(name: str, tmp_path: Path) -> None:
    tokens = ["<|endoftext|>", "<|padding|>", *LETTERS, "ab", "Ġab", "12", "123", "ĠĠ"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = ["a b", "Ġ ab", "1 2", "12 3", "Ġ Ġ"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    theirs = getattr(transformers, name)(vocab=vocab, merges=[tuple(m.split()) for m in merges])
    ours = getattr(cutaway, name).from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text("{}")
    again = cutaway.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS:
        wanted = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == again(text)["input_ids"] == wanted, text
        assert ours.decode(wanted) == theirs.decode(wanted)
    for token in ("eos_token", "pad_token", "bos_token", "unk_token"):
        assert getattr(ours, token) == getattr(theirs, token)

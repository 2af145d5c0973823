"""Gemma's tokenizer against transformers."""

from __future__ import annotations

import transformers

import cutaway

TEXTS = ["ab  ab", " a 123", "", "cafe\u0301 é 😀\n\nx", "don't", "ab<|endoftext|>b"]


def test_gemma() -> None:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocab = {
        t: i for i, t in enumerate([*special, *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "ab", "▁a", "▁▁"])
    }
    merges = [("a", "b"), ("▁", "a"), ("▁", "▁")]
    theirs = transformers.GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    ours = cutaway.GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    assert ours.padding_side == theirs.padding_side
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
        assert ours.decode(ours(text)["input_ids"]) == theirs.decode(theirs(text)["input_ids"])

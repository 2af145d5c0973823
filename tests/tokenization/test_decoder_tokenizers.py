"""The tokenizers of Qwen2, GPT-NeoX, Gemma and PEGASUS against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
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


def test_pegasus(tmp_path: Path) -> None:
    texts = ["the house is small", "where is the garden", "the garden is green and the house is old"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4), model_prefix=str(tmp_path / "spiece"), vocab_size=45, hard_vocab_limit=False,
        minloglevel=2, bos_id=-1, pad_id=-1, eos_id=-1, unk_id=0,
    )  # fmt: skip
    ours = cutaway.PegasusTokenizer.from_pretrained(tmp_path)
    vocab = [(ours.convert_ids_to_tokens(i), 0.0) for i in range(105)]
    model = sentencepiece.SentencePieceProcessor(str(tmp_path / "spiece.model"))
    vocab += [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    theirs = transformers.PegasusTokenizer(vocab=vocab)
    assert len(ours) == len(theirs) and ours.unk_token_id == 105
    for text in ["the house", "the  garden\nis small", "", "zebra <mask_2>"]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text

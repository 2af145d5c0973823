"""The tokenizers of Marian and mBART against transformers, on sentencepiece models trained in the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import transformers

import cutaway
from cutaway.errors import TokenizerError

ENGLISH = ["the house is small", "a small house", "where is the garden", "the garden is large and green", "he is here"]
GERMAN = ["das haus ist klein", "ein kleines haus", "wo ist der garten", "der garten ist gross und gruen", "er ist da"]
TEXTS = ["the house", "  where  is the small garden ", "", "a hedge", "HOUSE ö"]


def train(path: Path, texts: list[str], size: int) -> list[str]:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4), model_prefix=str(path.with_suffix("")), vocab_size=size, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    path.with_suffix(".model").rename(path)
    model = sentencepiece.SentencePieceProcessor(str(path))
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian")
    pieces = [
        p for name, texts in (("source", ENGLISH), ("target", GERMAN)) for p in train(folder / f"{name}.spm", texts, 45)
    ]
    tokens = [t for t in dict.fromkeys(["</s>", "<unk>", ">>de<<", *reversed(pieces)]) if t != "<s>"] + ["<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "marian"}))
    return folder


@pytest.mark.filterwarnings("ignore")  # upstream recommends a package
def test_marian(marian: Path, tmp_path: Path) -> None:
    theirs = transformers.MarianTokenizer.from_pretrained(marian)
    ours = cutaway.AutoTokenizer.from_pretrained(marian)
    assert type(ours) is cutaway.MarianTokenizer and len(ours) == len(theirs)
    ours.save_pretrained(tmp_path)
    again = cutaway.AutoTokenizer.from_pretrained(tmp_path)
    upstream = transformers.MarianTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, ">>de<< the garden"]:
        wanted = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == again(text)["input_ids"] == wanted == upstream(text)["input_ids"], text
        assert ours.decode(wanted, skip_special_tokens=True) == theirs.decode(wanted, skip_special_tokens=True)
    for text in [*GERMAN, "das house"]:
        wanted = theirs(text_target=text)["input_ids"]
        assert ours(text_target=text)["input_ids"] == wanted
        assert ours("a house", text_target=text)["labels"] == wanted
    batch = ours(ENGLISH, text_target=GERMAN, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape[0] == batch["labels"].shape[0] == 5


def test_mbart(tmp_path: Path) -> None:
    train(tmp_path / "sentencepiece.bpe.model", ENGLISH + GERMAN, 60)
    ours = cutaway.MBartTokenizer.from_pretrained(tmp_path, src_lang="en_XX", tgt_lang="de_DE")
    ours.save_pretrained(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    again = cutaway.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(again) is cutaway.MBartTokenizer and (again.src_lang, again.tgt_lang) == ("en_XX", "de_DE")
    code = ours.convert_tokens_to_ids("en_XX")
    for text in TEXTS:
        assert ours(text)["input_ids"] == again(text)["input_ids"] == theirs(text)["input_ids"], text
        assert ours(text)["input_ids"][-2:] == [ours.eos_token_id, code]
        assert ours(text_target=text)["input_ids"][-1] == ours.convert_tokens_to_ids("de_DE")
        assert ours("a", text_target=text)["labels"] == theirs("a", text_target=text)["labels"]
    ours.src_lang = theirs.src_lang = "fr_XX"
    assert ours("a house")["input_ids"] == theirs("a house")["input_ids"]
    with pytest.raises(TokenizerError, match="no language"):
        ours.src_lang = "xx_XX"

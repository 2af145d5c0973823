"""The tokenizers of translators against transformers, on sentencepiece models trained in the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

import cutaway
from cutaway.errors import TokenizerError

ENGLISH = ["the house is small", "a small house", "where is the garden", "the garden is large and green", "he is here"]
GERMAN = ["das haus ist klein", "ein kleines haus", "wo ist der garten", "der garten ist gross und gruen", "er ist da"]
TEXTS = ["the house", "  where  is the small garden ", "", "a hedge", "HOUSE ö"]


def train(path: Path, texts: list[str], size: int, kind: str = "unigram") -> list[str]:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4), model_prefix=str(path.with_suffix("")), vocab_size=size, minloglevel=2,
        hard_vocab_limit=False, model_type=kind,
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


@pytest.mark.filterwarnings("ignore")  # upstream recommends a package
def test_marian_with_two_vocabularies(tmp_path: Path) -> None:
    for name, kind, texts in (("vocab.json", "source", ENGLISH), ("target_vocab.json", "target", GERMAN)):
        pieces = train(tmp_path / f"{kind}.spm", texts, 45)
        tokens = [t for t in dict.fromkeys(["</s>", "<unk>", *reversed(pieces)]) if t != "<s>"] + ["<pad>"]
        (tmp_path / name).write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de", "separate_vocabs": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian"}))
    ours = cutaway.AutoTokenizer.from_pretrained(tmp_path)
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "again")
    again = cutaway.AutoTokenizer.from_pretrained(tmp_path / "again")
    upstream = transformers.MarianTokenizer.from_pretrained(tmp_path / "again")
    for text in TEXTS:
        wanted = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == again(text)["input_ids"] == wanted == upstream(text)["input_ids"], text
    for text in [*GERMAN, "das house"]:
        wanted = theirs(text_target=text)["input_ids"]
        for one in (ours, again):
            assert one(text_target=text)["input_ids"] == one("a house", text_target=text)["labels"] == wanted
            assert one.decode(wanted) == theirs.decode(wanted)
            assert one.decode(wanted, skip_special_tokens=True) == theirs.decode(wanted, skip_special_tokens=True)
    (tmp_path / "target_vocab.json").unlink()
    with pytest.raises(TokenizerError, match=r"target_vocab\.json is missing"):
        cutaway.AutoTokenizer.from_pretrained(tmp_path)


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


def test_nllb(tmp_path: Path) -> None:
    """From the file of pieces, and saved and loaded both ways; the code stands first, or last as in older files."""
    train(tmp_path / "sentencepiece.bpe.model", ENGLISH + GERMAN, 90, "bpe")
    for legacy in (False, True):
        how: dict[str, Any] = {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn", "legacy_behaviour": legacy}
        ours = cutaway.NllbTokenizer.from_pretrained(tmp_path, **how)
        # from the file of pieces alone, transformers 5 has no codes, and a mask in their place
        theirs = transformers.NllbTokenizer.from_pretrained(tmp_path, mask_token="ace_Arab", **how)
        theirs.add_special_tokens({"extra_special_tokens": [*FAIRSEQ_LANGUAGE_CODES, "<mask>"]})
        theirs.set_src_lang_special_tokens("eng_Latn")
        ours.save_pretrained(tmp_path / "saved")
        again = cutaway.AutoTokenizer.from_pretrained(tmp_path / "saved")
        back = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert type(again) is cutaway.NllbTokenizer and len(ours) == len(again) == len(theirs) == len(back)
        code = ours.convert_tokens_to_ids("eng_Latn")
        for text in [*TEXTS, "the deu_Latn house </s>"]:
            wanted = theirs(text)["input_ids"]
            assert ours(text)["input_ids"] == again(text)["input_ids"] == back(text)["input_ids"] == wanted, text
            assert wanted[-1 if legacy else 0] == code
            assert ours(text_target=text)["input_ids"] == theirs(text_target=text)["input_ids"]
            assert ours("a", text_target=text)["labels"] == again("a", text_target=text)["labels"]
            assert ours.decode(wanted, skip_special_tokens=True) == theirs.decode(wanted, skip_special_tokens=True)
        assert ours("a", "b")["input_ids"] == theirs("a", "b")["input_ids"]
        ours.src_lang = theirs.src_lang = "fra_Latn"
        assert ours("a house")["input_ids"] == theirs("a house")["input_ids"]
    with pytest.raises(TokenizerError, match="'eng_Latn'"):
        ours.src_lang = "en_XX"


@pytest.mark.parametrize("codes", ["m2m100", "wmt21"])
def test_m2m_100(tmp_path: Path, codes: str) -> None:
    pieces = train(tmp_path / "sentencepiece.bpe.model", ENGLISH + GERMAN, 90, "bpe")
    vocab = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *reversed(pieces[3:])])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    settings = {"tokenizer_class": "M2M100Tokenizer", "language_codes": codes, "num_madeup_words": 8, "src_lang": "en"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tgt_lang": "de"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "m2m_100"}))
    theirs = transformers.M2M100Tokenizer.from_pretrained(tmp_path)
    ours = cutaway.AutoTokenizer.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "saved")
    again = cutaway.AutoTokenizer.from_pretrained(tmp_path / "saved")
    back = transformers.M2M100Tokenizer.from_pretrained(tmp_path / "saved")
    assert type(again) is type(ours) is cutaway.M2M100Tokenizer
    for text in [*TEXTS, "the  house "]:
        wanted = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == again(text)["input_ids"] == back(text)["input_ids"] == wanted, text
        assert ours(text_target=text)["input_ids"] == theirs(text_target=text)["input_ids"]
        assert ours("a", text_target=text)["labels"] == again("a", text_target=text)["labels"]
        # transformers 5 writes the language's token in front, which its version 4 and its documents do not
        words = [
            t for t in theirs.convert_ids_to_tokens(wanted) if not t.startswith("__") and t not in ("</s>", "<unk>")
        ]
        if "<unk>" not in theirs.convert_ids_to_tokens(wanted):
            assert ours.decode(wanted, skip_special_tokens=True) == theirs.sp_model.decode(words)
    for code in ("en", "de", "zh"):
        assert ours.get_lang_id(code) == again.get_lang_id(code) == theirs.get_lang_id(code)
        assert (
            ours.get_lang_token(code)
            == theirs.get_lang_token(code)
            == ours.convert_ids_to_tokens(ours.get_lang_id(code))
        )
    ours.src_lang = theirs.src_lang = "ru"
    assert ours("a house", "b")["input_ids"] == theirs("a house", "b")["input_ids"]
    with pytest.raises(TokenizerError, match="no language"):
        ours.get_lang_id("klingon")
    with pytest.raises(TokenizerError, match="language_codes"):
        cutaway.M2M100Tokenizer.from_pretrained(tmp_path, language_codes="all")


def test_m2m_100_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"sentencepiece\.bpe\.model"):
        cutaway.M2M100Tokenizer.from_pretrained(tmp_path)

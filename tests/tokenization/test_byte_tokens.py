"""The tokenizer of bytes against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

import cutaway

TEXTS = [
    "Life is like a box of chocolates.", "", "Größe, naïve, 日本語, 👍🏽", "a\tb\n  c ",
    "x <extra_id_0> y <extra_id_124>.",
    "e\u0301", "\x00\x7f\xa0\xad", "one </s> two", "½ ﬁ",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> tuple[transformers.ByT5Tokenizer, cutaway.ByT5Tokenizer]:
    return transformers.ByT5Tokenizer(), cutaway.ByT5Tokenizer()


def test_ids_tokens_and_texts(pair: tuple[transformers.ByT5Tokenizer, cutaway.ByT5Tokenizer]) -> None:
    theirs, ours = pair
    assert len(ours) == len(theirs) and ours.get_vocab().keys() >= {"<pad>", "</s>", "<unk>", "<extra_id_3>"}
    assert ours.all_special_ids == theirs.all_special_ids
    for text in TEXTS:
        wanted = theirs(text)
        found = ours(text)
        assert found["input_ids"] == wanted["input_ids"] and found["attention_mask"] == wanted["attention_mask"], text
        ids = wanted["input_ids"]
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours.convert_tokens_to_ids(ours.tokenize(text)) == ids[:-1]
        assert ours.convert_tokens_to_string(ours.tokenize(text)) == theirs.convert_tokens_to_string(
            ours.tokenize(text)
        )
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip), text
    pairs = ours(["a", "bc"], ["d", "e"], padding=True)
    assert pairs["input_ids"] == theirs(["a", "bc"], ["d", "e"], padding=True)["input_ids"]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(text: str) -> None:
    ours = cutaway.ByT5Tokenizer()
    ids = ours(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text.encode()) or "<" in text  # a special token may stand in it
    if "<" not in text:
        assert ids == [byte + 3 for byte in text.encode()] and ours.decode(ids) == text


def test_broken_characters_are_left_out(pair: tuple[transformers.ByT5Tokenizer, cutaway.ByT5Tokenizer]) -> None:
    theirs, ours = pair
    ids = [index for index in ours("aé日")["input_ids"] if index != 0xA9 + 3][:-2]
    assert ours.decode(ids) == theirs.decode(ids) == "a"


def test_folders_are_read_both_ways(tmp_path: Path) -> None:
    ours = cutaway.ByT5Tokenizer(model_max_length=64, extra_ids=10)
    ours.save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    again, theirs = (
        cutaway.AutoTokenizer.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    )
    assert type(again) is cutaway.ByT5Tokenizer and type(theirs).__name__ == "ByT5Tokenizer"
    for text in TEXTS:
        assert again(text)["input_ids"] == ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert again.model_max_length == 64 and len(again) == 269


def test_a_published_folder_is_read(tmp_path: Path) -> None:
    """Its config.json names the tokenizer, and nothing else is there."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"}))
    assert cutaway.AutoTokenizer.from_pretrained(tmp_path)("hi")["input_ids"] == [107, 108, 1]


@pytest.mark.filterwarnings("ignore:This sequence already has")
def test_a_text_that_has_its_end_gets_no_other_one(
    pair: tuple[transformers.ByT5Tokenizer, cutaway.ByT5Tokenizer],
) -> None:
    theirs, ours = pair
    for text in ("an end</s>", "an end </s> ", "</s>", "two</s></s>", "</s> first", "none", ""):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
        assert ours(text, "b </s>")["input_ids"] == theirs(text, "b </s>")["input_ids"], text
        without = {"add_special_tokens": False}
        assert ours(text, **without)["input_ids"] == theirs(text, **without)["input_ids"], text
    many = ["an end</s>", "none"]
    assert ours(many)["input_ids"] == theirs(many)["input_ids"]

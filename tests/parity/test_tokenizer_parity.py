"""The same ids, offsets, type ids and masks as transformers, live, on thousands of generated strings per tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizer_strings import FEW, STRINGS, Pair, padded, strings

from cutaway.tokenization.registry import load_tokenizer


def same(ours: Any, theirs: Any, texts: Any) -> None:
    """Equal, entry by entry, row by row; the message shows the text."""
    assert list(ours) == list(theirs)
    for key in theirs:
        if ours[key] != theirs[key]:
            for row, (mine, other) in enumerate(zip(ours[key], theirs[key], strict=True)):
                assert mine == other, (key, row, texts[row] if row < len(texts) else None)


def test_ten_thousand_strings(both: Pair) -> None:
    ours, theirs = both
    texts = strings(1000 if ours.name_or_path.endswith(FEW) else STRINGS)
    flags: dict[str, Any] = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    same(ours(texts, **flags), theirs(texts, **flags), texts)


ALL = {
    "return_offsets_mapping": True,
    "return_special_tokens_mask": True,
    "return_token_type_ids": True,
    "return_attention_mask": True,
    "return_length": True,
}


def test_single_texts_and_pairs(both: Pair) -> None:
    ours, theirs = both
    texts, others = strings(200, seed=2), strings(200, seed=3)
    same(ours(texts, others, **ALL), theirs(texts, others, **ALL), texts)
    same(ours(texts, add_special_tokens=False), theirs(texts, add_special_tokens=False), texts)
    for one, other in zip(texts[:60], others[:60], strict=True):
        for arguments in ((one,), (one, other), (one, "")):
            assert dict(ours(*arguments, **ALL)) == dict(theirs(*arguments, **ALL))
            assert ours.encode(*arguments) == theirs.encode(*arguments)
            assert ours.tokenize(*arguments) == theirs.tokenize(*arguments)
    pairs = list(zip(texts, others, strict=True))
    same(ours(pairs), theirs(pairs), pairs)


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_and_overflow(both: Pair, side: str) -> None:
    ours, theirs = padded(both)
    texts, others = strings(33, seed=4)[13:], strings(33, seed=5)[13:]
    ours.truncation_side = theirs.truncation_side = side
    whole = [len(ids) for ids in ours(texts)["input_ids"]]
    for length, stride in ((11, 0), (16, 3)):
        for overflow in (False, True):
            how: dict[str, Any] = {"max_length": length, "stride": stride, "return_overflowing_tokens": overflow, **ALL}
            mine = ours(texts, truncation=True, **how)
            same(mine, theirs(texts, truncation=True, **how), [])
            if not overflow:
                kept = [len(ids) for ids in mine["input_ids"]]
                assert mine.cut == [a - b for a, b in zip(whole, kept, strict=True)]
            same(ours(texts, others, truncation=True, **how), theirs(texts, others, truncation=True, **how), [])
            assert dict(ours(texts[0], truncation=True, **how)) == dict(theirs(texts[0], truncation=True, **how))
    long = "one two three four five six seven eight nine ten " * 3
    for strategy, pair in (("only_first", (long, "short")), ("only_second", ("short", long))):
        assert dict(ours(*pair, truncation=strategy, max_length=20)) == dict(
            theirs(*pair, truncation=strategy, max_length=20)
        )
        assert ours(*pair, truncation=strategy, max_length=20).cut == [len(ours.encode(*pair)) - 20]
    ours.truncation_side = theirs.truncation_side = "right"


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(both: Pair, side: str) -> None:
    ours, theirs = padded(both)
    texts = strings(50, seed=6)[13:]
    choices: list[dict[str, Any]] = [
        {"padding": True},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 24, "truncation": True},
        {"padding": "max_length", "max_length": 200},
        {"padding": True, "truncation": True, "max_length": 11, "return_overflowing_tokens": True},
        {"max_length": 7},
    ]
    for choice in choices:
        same(ours(texts, padding_side=side, **choice, **ALL), theirs(texts, padding_side=side, **choice, **ALL), texts)
    tensors = ours(texts, padding=True, padding_side=side, return_tensors="pt")
    for key, value in theirs(texts, padding=True, padding_side=side, return_tensors="pt").items():
        assert tensors[key].dtype == value.dtype and bool((tensors[key] == value).all())
    arrays = ours(texts, padding=True, return_tensors="np")
    for key, value in theirs(texts, padding=True, return_tensors="np").items():
        assert arrays[key].dtype == value.dtype and bool((arrays[key] == value).all())


def test_words_given_one_by_one(both: Pair) -> None:
    ours, theirs = both
    split = [text.split() for text in strings(80, seed=8)]
    how: dict[str, Any] = {"is_split_into_words": True, **ALL}
    mine, other = ours(split, **how), theirs(split, **how)
    same(mine, other, split)
    for row in range(len(split)):
        assert mine.word_ids(row) == other.word_ids(row)
        assert mine.sequence_ids(row) == other.sequence_ids(row)
        assert mine.tokens(row) == other.tokens(row)
    assert dict(ours(split[40], **how)) == dict(theirs(split[40], **how))
    assert dict(ours(split[40], split[41], **how)) == dict(theirs(split[40], split[41], **how))


def test_from_tokens_to_the_text(both: Pair) -> None:
    ours, theirs = both
    for text in strings(50, seed=9)[13:]:
        mine, other = ours(text, "second text"), theirs(text, "second text")
        for token in range(len(mine.input_ids)):
            for ask in ("token_to_chars", "token_to_word", "token_to_sequence"):
                assert getattr(mine, ask)(token) == getattr(other, ask)(token)
        for char in range(min(len(text), 30)):
            for ask in ("char_to_token", "char_to_word"):
                assert getattr(mine, ask)(char) == getattr(other, ask)(char)
        for word, sequence in zip(mine.word_ids(), mine.sequence_ids(), strict=True):
            if word is not None:
                for ask in ("word_to_tokens", "word_to_chars"):
                    where = {"sequence_index": sequence}
                    assert getattr(mine, ask)(0, word, **where) == getattr(other, ask)(0, word, **where)


def test_decoding(both: Pair) -> None:
    import torch

    ours, theirs = both
    rows = ours(strings(500, seed=10))["input_ids"]
    draw = random.Random(3)
    rows += [[draw.randrange(len(ours)) for _ in range(draw.randint(0, 20))] for _ in range(150)]
    for skip in (False, True):
        assert ours.batch_decode(rows, skip_special_tokens=skip) == theirs.batch_decode(rows, skip_special_tokens=skip)
    for row in rows[:120]:
        assert ours.decode(row, clean_up_tokenization_spaces=True) == theirs.decode(
            row, clean_up_tokenization_spaces=True
        )
        tokens = theirs.convert_ids_to_tokens(row)
        assert ours.convert_ids_to_tokens(row) == tokens
        assert ours.convert_ids_to_tokens(row, skip_special_tokens=True) == theirs.convert_ids_to_tokens(
            row, skip_special_tokens=True
        )
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
    assert ours.decode(torch.tensor(5)) == ours.decode(5) == theirs.decode(torch.tensor(5))
    tensor = torch.tensor([[5, 6], [7, 8]])
    assert ours.batch_decode(tensor) == ours.decode(tensor) == theirs.batch_decode(tensor)
    assert ours.convert_ids_to_tokens(tensor[0]) == theirs.convert_ids_to_tokens(tensor[0])


def test_what_a_tokenizer_says_of_itself(both: Pair) -> None:
    ours, theirs = both
    names = """
        all_special_tokens all_special_ids special_tokens_map vocab_size model_max_length padding_side truncation_side
        model_input_names is_fast name_or_path added_tokens_encoder extra_special_tokens pad_token_type_id
        clean_up_tokenization_spaces bos_token eos_token unk_token sep_token pad_token cls_token mask_token
        bos_token_id eos_token_id unk_token_id sep_token_id pad_token_id cls_token_id mask_token_id
        max_len_single_sentence max_len_sentences_pair
    """.split()  # noqa: SIM905
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)
    assert repr(ours).partition("(")[2] == repr(theirs).partition("(")[2]
    ids = ours("a text with [SEP] </s> in it")["input_ids"]
    assert ours.get_special_tokens_mask(ids, already_has_special_tokens=True) == theirs.get_special_tokens_mask(
        ids, already_has_special_tokens=True
    )


def one_class(tokenizer: Any) -> str:
    """The class's name; transformers has one class for RoBERTa and BART, and one for BERT and ELECTRA."""
    return type(tokenizer).__name__.replace("Bart", "Roberta").replace("Electra", "Bert")


def test_saved_by_one_and_loaded_by_the_other(both: Pair, tmp_path: Path) -> None:
    ours, theirs = both
    texts = strings(150, seed=11)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    expected = theirs(texts, texts[::-1], **ALL)
    for folder in ("ours", "theirs"):
        mine = load_tokenizer(str(tmp_path / folder))
        other = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        if ours.name_or_path.endswith("deberta-v2"):  # see conftest.py
            other.backend_tokenizer.normalizer = theirs.backend_tokenizer.normalizer
        for loaded in (mine, other):
            same(loaded(texts, texts[::-1], **ALL), expected, texts)
            assert loaded.special_tokens_map == theirs.special_tokens_map
            assert loaded.model_input_names == theirs.model_input_names
            assert loaded.model_max_length == theirs.model_max_length
            assert loaded.padding_side == theirs.padding_side
            assert set(loaded.all_special_tokens) == set(theirs.all_special_tokens)
            assert len(loaded) == len(theirs)
            assert loaded.chat_template == theirs.chat_template
        assert one_class(mine) == one_class(ours)


def test_padding_rows_of_ids(both: Pair) -> None:
    import torch

    ours, theirs = padded(both)
    rows = [
        {**dict(ours(text, **ALL)), "labels": i} for i, text in enumerate(["a", "two words", "a few more words, then"])
    ]
    for row in rows:
        row.pop("length")
        row.pop("offset_mapping")
    for how in ({}, {"padding": "max_length", "max_length": 31}, {"pad_to_multiple_of": 16}, {"padding": False}):
        same(ours.pad([dict(r) for r in rows], **how), theirs.pad([dict(r) for r in rows], **how), rows)
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        same(ours.pad(dict(columns), **how), theirs.pad(dict(columns), **how), rows)
    for side in ("left", "right"):
        mine = ours.pad(rows, padding_side=side, return_tensors="pt")
        other = theirs.pad(rows, padding_side=side, return_tensors="pt")
        tensors = [{key: torch.tensor(value) for key, value in row.items()} for row in rows]
        again = ours.pad(tensors, padding_side=side)
        for key, value in other.items():
            assert mine[key].dtype == value.dtype and bool((mine[key] == value).all())
            assert again[key].dtype == value.dtype and bool((again[key] == value).all())
    single = {"input_ids": [5, 6]}
    assert dict(ours.pad(dict(single), padding="max_length", max_length=6)) == dict(
        theirs.pad(dict(single), padding="max_length", max_length=6)
    )


def test_added_tokens(both: Pair) -> None:
    import copy

    ours, theirs = (copy.deepcopy(one) for one in both)
    for one in (ours, theirs):
        assert one.add_tokens(["<new>", "wholeword"]) == 2
        assert one.add_special_tokens({"pad_token": "[padding]", "additional_special_tokens": ["<u>", "<v>"]}) == 3
        assert one.add_tokens("<new>") == 0
    texts = ["a <new> b wholeword c<u>d [padding]", "awholewordb<v>", *strings(50, seed=12)]
    same(ours(texts, padding=True, **ALL), theirs(texts, padding=True, **ALL), texts)
    assert len(ours) == len(theirs)
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.pad_token_id == theirs.pad_token_id
    ids = ours(texts)["input_ids"]
    assert ours.batch_decode(ids, skip_special_tokens=True) == theirs.batch_decode(ids, skip_special_tokens=True)


def test_tokens_that_the_text_spells_out(both: Pair) -> None:
    ours, theirs = both
    texts = strings(150, seed=13)
    same(ours(texts, split_special_tokens=True), theirs(texts, split_special_tokens=True), texts)
    same(ours(texts), theirs(texts), texts)


def test_labels_from_target_texts(both: Pair) -> None:
    ours, theirs = both
    texts, targets = strings(30, seed=14), strings(30, seed=15)
    same(ours(texts, text_target=targets), theirs(texts, text_target=targets), texts)
    same(ours(text_target=targets), theirs(text_target=targets), targets)

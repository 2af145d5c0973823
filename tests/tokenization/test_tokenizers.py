"""The tokenizer's own behaviour: what it takes, what it says of itself, and its errors."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from cutaway.errors import HubError, TokenizerError
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.byte_level_bpe import BartTokenizerFast, GPT2Tokenizer, RobertaTokenizer
from cutaway.tokenization.registry import load_tokenizer
from cutaway.tokenization.sentencepiece_bpe import LlamaTokenizer
from cutaway.tokenization.unigram import T5Tokenizer
from cutaway.tokenization.wordpiece import BertTokenizer, BertTokenizerFast, DistilBertTokenizerFast

LINE = "[PAD] [UNK] [CLS] [SEP] [MASK] the eu is trust ##worthy . , ! a b c d e Hello hello wor ##ld caf ##é cafe"
WORDS = LINE.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with a tiny BERT vocabulary."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 12}')
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(str(folder))


def test_one_text(tokenizer: PreTrainedTokenizerFast) -> None:
    encoding = tokenizer("The EU is trustworthy.")
    assert tokenizer.tokenize("The EU is trustworthy.") == ["the", "eu", "is", "trust", "##worthy", "."]
    assert encoding.tokens() == ["[CLS]", "the", "eu", "is", "trust", "##worthy", ".", "[SEP]"]
    assert list(encoding) == ["input_ids", "token_type_ids", "attention_mask"]
    assert repr(encoding).startswith("{'input_ids': [2, 5,")
    assert tokenizer.decode(encoding["input_ids"], skip_special_tokens=True) == "the eu is trustworthy."
    assert tokenizer.encode("the", return_tensors="pt").tolist() == [[2, 5, 3]]
    assert tokenizer("the", return_tensors="np")["input_ids"].dtype == np.int64


@pytest.mark.parametrize(
    "texts",
    [
        ["the eu", "is"],
        ("the eu", "is"),
        np.array(["the eu", "is"]),
        __import__("pandas").Series(["the eu", "is"]),
        __import__("datasets").Dataset.from_dict({"text": ["the eu", "is"]})["text"],
    ],
    ids=["list", "tuple", "numpy", "pandas", "column"],
)
def test_lists_of_texts_of_any_kind(tokenizer: PreTrainedTokenizerFast, texts: Any) -> None:
    assert tokenizer(text=texts)["input_ids"] == [[2, 5, 6, 3], [2, 7, 3]]


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"add_special_tokens": False},
        {"truncation": True, "max_length": 5},
        {"truncation": True, "max_length": 5, "stride": 1, "return_overflowing_tokens": True},
        {"padding": "max_length", "max_length": 11, "padding_side": "left"},
        {"padding": True, "pad_to_multiple_of": 8},
        {"split_special_tokens": True},
    ],
)
def test_a_text_alone_is_read_as_among_others(tokenizer: PreTrainedTokenizerFast, call: dict[str, Any]) -> None:
    texts = ["The EU is trustworthy, [SEP] the EU is", "", "caf\u00e9"]
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, **call}
    for text in texts:
        one, several = tokenizer([text], **asked), tokenizer([text, text], **asked)
        half = len(several["input_ids"]) // 2
        assert {name: rows[:half] for name, rows in several.items()} == dict(one)
        assert [row.tokens for row in several.encodings[:half]] == [row.tokens for row in one.encodings]
        assert several.cut[:1] == one.cut


def test_a_data_set_is_mapped(tokenizer: PreTrainedTokenizerFast) -> None:
    from datasets import Dataset

    data = Dataset.from_dict({"text": ["the eu", "is"] * 5}).map(
        lambda batch: tokenizer(text=batch["text"], truncation=True), batched=True
    )
    assert data[1]["input_ids"] == [2, 7, 3]
    data.set_format("torch", columns=["input_ids", "attention_mask"])
    padded = tokenizer.pad([data[i] for i in range(3)])
    assert padded["input_ids"].shape == (3, 4) and padded["attention_mask"].dtype == torch.int64


def test_empty_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("")["input_ids"] == [2, 3]
    assert tokenizer([])["input_ids"] == []
    assert tokenizer([], return_tensors="pt", padding=True)["input_ids"].shape == (0,)
    assert tokenizer([], is_split_into_words=True)["input_ids"] == [2, 3]
    assert tokenizer("\u0000\u200b\ufeff")["input_ids"] == [2, 3]
    assert tokenizer.decode([]) == ""


def test_nothing_is_cut_silently(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "the eu is trustworthy. " * 5
    assert len(tokenizer(text)["input_ids"]) == 32  # longer than the model's 12, and all there
    assert tokenizer(text).cut == [0]
    short = tokenizer([text, "the"], truncation=True)
    assert [len(ids) for ids in short["input_ids"]] == [12, 3]
    assert short.cut == [20, 0]
    assert tokenizer(text, max_length=7, truncation=True, stride=2).cut == [25]
    assert tokenizer(text, max_length=2, truncation=True).cut == [30]
    assert tokenizer(text, max_length=7, truncation=True, padding="max_length").cut == [25]
    assert tokenizer(text, text, max_length=9, truncation=True).cut == [54]
    assert tokenizer(text, max_length=5, truncation=True, add_special_tokens=False).cut == [25]
    spelled = {"text": "[MASK] [MASK]", "text_pair": "[MASK]", "split_special_tokens": True}
    assert tokenizer(**spelled, max_length=8, truncation=True).cut == [len(tokenizer(**spelled)["input_ids"]) - 8]
    assert tokenizer(text, max_length=7, truncation=True, return_overflowing_tokens=True).cut == [0]
    assert tokenizer(text, max_length=7, truncation=True, return_tensors="pt").cut == [25]
    assert tokenizer(text.split(), is_split_into_words=True, max_length=7, truncation=True).cut == [25]
    with pytest.raises(TokenizerError, match="not known"):
        _ = tokenizer.pad({"input_ids": [[5]]}).cut


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"text": "the", "paddin": True}, "'paddin'.* Did you mean 'padding'"),
        ({}, "needs text="),
        ({"text": 5}, "not int"),
        ({"text": b"the"}, "not bytes"),
        ({"text": {"text": "the"}}, "not dict"),
        ({"text": ["the", None]}, r"Text 1 must be a text, but it holds None"),
        ({"text": ["the", ["a", 3]]}, r"Text 1 must be a text, but it holds 3"),
        ({"text": ["\ud800"]}, "surrogate"),
        ({"text": "the", "is_split_into_words": True}, "list of words"),
        ({"text": [["the", 4]], "is_split_into_words": True}, "holds 4"),
        ({"text": ["the"], "text_pair": "eu"}, "text_pair must be a list of 1"),
        ({"text": ["the"], "text_pair": ["eu", "is"]}, "not 2"),
        ({"text": ["the", "the eu"], "return_tensors": "pt"}, "rows of 3 to 4 .*padding=True"),
        ({"text": "the", "return_tensors": "tf"}, "'pt' .*'np'"),
        ({"text": "the", "padding": "longer"}, "longest, max_length"),
        ({"text": "the", "truncation": "longest"}, "longest_first, only_first"),
        ({"text": "the", "padding_side": "up"}, "'right' or 'left'"),
        ({"text": "the", "max_length": -1}, "max_length is -1"),
        ({"text": "the", "max_length": 2.5, "truncation": True}, "max_length is 2.5"),
        ({"text": "the", "padding": "max_length", "max_length": 2**20 + 1}, "max_length is 1048577"),
        ({"text": "the", "padding": True, "pad_to_multiple_of": 2**20 + 1}, "pad_to_multiple_of is 1048577"),
        ({"text": "the", "padding": True, "pad_to_multiple_of": 0}, "at least 1"),
        ({"text": "the", "max_length": 1, "truncation": True}, "no room for the 2 special tokens"),
        (
            {"text": "the", "max_length": 6, "truncation": True, "stride": 4},
            "stride=4 must be smaller than the 4 tokens",
        ),
        (
            {"text": "the", "max_length": 6, "truncation": True, "padding": True, "pad_to_multiple_of": 4},
            "max_length=4",
        ),
        ({"text": "the eu is", "text_pair": "a", "max_length": 5, "truncation": "only_second"}, "too short"),
    ],
)
def test_a_call_that_cannot_work_says_why(tokenizer: PreTrainedTokenizerFast, call: dict[str, Any], says: str) -> None:
    with pytest.raises(TokenizerError, match=says):
        tokenizer(**call)
    assert tokenizer("the")["input_ids"] == [2, 5, 3]


def test_padding_without_a_pad_token() -> None:
    plain = GPT2Tokenizer(vocab={"a": 0, "<|endoftext|>": 1}, merges=[])
    for pad in (lambda: plain("a", padding=True), lambda: plain.pad({"input_ids": [[0]]})):
        with pytest.raises(TokenizerError, match=r"tokenizer.pad_token = tokenizer.eos_token"):
            pad()
    plain.pad_token = plain.eos_token
    assert plain(["a", "aa"], padding=True)["input_ids"] == [[0, 1], [0, 0]]


def test_padding_to_a_length_that_nobody_said(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder), model_max_length=10**30)
    with pytest.raises(TokenizerError, match="Give max_length="):
        tokenizer("the", padding="max_length")
    assert tokenizer("the", truncation=True)["input_ids"] == [2, 5, 3]
    with pytest.warns(UserWarning, match="no effect"):
        tokenizer("the", padding=True, max_length=5)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ([{"ids": [1]}], "'input_ids'"),
        ({}, "'input_ids'"),
        ([{"input_ids": [1], "labels": 1}, {"input_ids": [1]}], "Row 1 has no labels"),
        ("text", "not str"),
        ([{"input_ids": [1], "text": "a"}], "'text' cannot be a tensor.*Remove this column"),
        ([{"input_ids": [1], "labels": [1]}, {"input_ids": [1, 2], "labels": [1, 2]}], "'labels' has rows of 1 to 2"),
    ],
)
def test_rows_that_cannot_be_padded(tokenizer: PreTrainedTokenizerFast, features: Any, says: str) -> None:
    with pytest.raises(TokenizerError, match=says):
        tokenizer.pad(features, return_tensors="pt")


def test_padding_leaves_the_caller_its_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"input_ids": [5]}, {"input_ids": [5, 6]}]
    kept = copy.deepcopy(rows)
    tokenizer.pad(rows)
    assert rows == kept


@pytest.mark.parametrize("ids", [-1, [-1], [2**40], ["a"], [1.5], None])
def test_ids_that_do_not_exist(tokenizer: PreTrainedTokenizerFast, ids: Any) -> None:
    with pytest.raises(TokenizerError, match="whole numbers from 0 to"):
        tokenizer.decode(ids)


def test_decoding_takes_every_form(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(5) == tokenizer.decode(torch.tensor(5)) == tokenizer.decode(np.int64(5)) == "the"
    assert tokenizer.decode(torch.tensor([5, 6])) == tokenizer.decode((5, 6)) == "the eu"
    assert tokenizer.decode(tokenizer("the")) == "[CLS] the [SEP]"
    assert tokenizer.decode([[5], [6]]) == tokenizer.batch_decode(torch.tensor([[5], [6]])) == ["the", "eu"]
    assert tokenizer.decode([torch.tensor(5), torch.tensor(6)]) == "the eu"
    assert tokenizer.batch_decode([torch.tensor([5]), torch.tensor([6, 7])]) == ["the", "eu is"]
    assert tokenizer.convert_ids_to_tokens(torch.tensor(5)) == "the"
    assert tokenizer.convert_ids_to_tokens(torch.tensor([2, 5]), skip_special_tokens=True) == ["the"]
    assert tokenizer.convert_ids_to_tokens([10**6]) == [None]
    assert tokenizer.convert_tokens_to_ids(["the", "nowhere"]) == [5, 1]
    assert tokenizer.convert_tokens_to_string(["trust", "##worthy"]) == "trustworthy"


def test_special_tokens_have_names(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.cls_token, tokenizer.cls_token_id, tokenizer.bos_token, tokenizer.bos_token_id) == (
        "[CLS]", 2, None, None,
    )  # fmt: skip
    tokenizer.bos_token = "a"
    tokenizer.eos_token_id = 14
    assert (tokenizer.bos_token_id, tokenizer.eos_token) == (13, "b")
    tokenizer.bos_token = None
    assert tokenizer.bos_token_id is None
    tokenizer.extra_special_tokens = ["c"]
    assert tokenizer.additional_special_tokens == ["c"] and tokenizer.additional_special_tokens_ids == [15]
    assert tokenizer.all_special_tokens[-1] == "c"
    assert tokenizer.all_special_ids == [14, 1, 3, 0, 2, 4, 15]
    with pytest.raises(TokenizerError, match="must be a string or None"):
        tokenizer.pad_token = 3  # type: ignore[assignment]
    with pytest.raises(TokenizerError, match="the vocabulary ends at"):
        tokenizer.pad_token_id = 10**6
    with pytest.raises(TokenizerError, match="Did you mean 'pad_token'"):
        tokenizer.add_special_tokens({"padtoken": "x"})
    with pytest.raises(TokenizerError, match="list of tokens"):
        tokenizer.add_special_tokens({"additional_special_tokens": "x"})


def test_added_tokens_are_never_split(tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<x>", AddedToken("<y>", lstrip=True)]) == 2
    assert len(tokenizer) == size + 2 and tokenizer.vocab_size == size
    assert tokenizer.tokenize("the<x>eu <y>") == ["the", "<x>", "eu", " <y>"]
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<u>"]}) == 1
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<v>"]}, replace_extra_special_tokens=False) == 1
    assert tokenizer.extra_special_tokens == ["<u>", "<v>"]
    assert tokenizer.decode(tokenizer.encode("the<u>"), skip_special_tokens=True) == "the"
    assert tokenizer.get_added_vocab()["<x>"] == size
    assert tokenizer.get_vocab()["the"] == tokenizer.vocab["the"] == 5


def test_the_families(folder: Path) -> None:
    named = {
        "BertTokenizerFast": (BertTokenizer, ["input_ids", "token_type_ids", "attention_mask"]),
        "DistilBertTokenizer": (DistilBertTokenizerFast, ["input_ids", "attention_mask"]),
    }
    for name, (cls, inputs) in named.items():
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
        loaded = load_tokenizer(str(folder))
        assert type(loaded) is cls and list(loaded("the")) == inputs
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "distilbert"}')
    assert type(load_tokenizer(str(folder))) is DistilBertTokenizerFast
    assert type(BertTokenizerFast.from_pretrained(folder / "vocab.txt")) is BertTokenizer
    assert list(BertTokenizerFast.from_pretrained(folder, model_input_names=["input_ids"])("the")) == ["input_ids"]
    for cls in (BertTokenizer, GPT2Tokenizer, RobertaTokenizer, BartTokenizerFast, LlamaTokenizer, T5Tokenizer):
        assert len(cls()("")["input_ids"]) == cls().num_special_tokens_to_add()


def test_settings_go_before_the_checkpoints(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"do_lower_case": False, "model_max_length": 77, "padding_side": "left", "vocab_file": "/etc/passwd"}
        )
    )
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.tokenize("Hello hello") == ["Hello", "hello"]
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (77, "left")
    tokenizer = load_tokenizer(str(folder), do_lower_case=True, model_max_length=5, use_fast=True)
    assert tokenizer.tokenize("Hello hello") == ["hello", "hello"]
    assert tokenizer("the eu is the", truncation=True)["input_ids"] == [2, 5, 6, 7, 3]
    assert load_tokenizer(str(folder), strip_accents=True).tokenize("café") == ["cafe"]
    assert load_tokenizer(str(folder), strip_accents=False).tokenize("café") == ["caf", "##é"]
    with pytest.raises(TokenizerError, match="Did you mean 'do_lower_case'"):
        load_tokenizer(str(folder), do_lowercase=True)


def test_a_tokenizer_json_is_followed_to_the_letter(folder: Path, tmp_path: Path) -> None:
    cased = load_tokenizer(str(folder), do_lower_case=False)
    saved = tmp_path / "saved"
    cased.save_pretrained(saved)
    (saved / "tokenizer_config.json").unlink()
    assert BertTokenizer.from_pretrained(saved).tokenize("Hello") == ["Hello"]
    digits = Tokenizer(models.BPE(vocab={"1": 0, "2": 1, "12": 2}, merges=[("1", "2")]))
    digits.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    own = GPT2Tokenizer(tokenizer_object=digits)
    assert own.tokenize("12") == ["1", "2"]
    own.save_pretrained(saved)
    assert json.loads((saved / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert load_tokenizer(str(saved)).tokenize("12") == ["1", "2"]


def test_old_files_count_where_the_new_one_is_silent(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": {"content": "[MASK]", "lstrip": True}, "additional_special_tokens": ["<e>"]})
    )
    (folder / "added_tokens.json").write_text(json.dumps({"<f>": len(WORDS), "<e>": len(WORDS) + 1}))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.added_tokens_encoder["<e>"] == len(WORDS) + 1
    assert tokenizer.added_tokens_decoder[4].lstrip
    assert tokenizer.additional_special_tokens == ["<e>"]
    assert tokenizer.decode([len(WORDS), len(WORDS) + 1], skip_special_tokens=True) == "<f>"


def test_it_can_be_copied_pickled_and_shared(tokenizer: PreTrainedTokenizerFast) -> None:
    first = pickle.dumps(tokenizer)
    tokenizer("the", padding="max_length", truncation=True, split_special_tokens=True)
    assert pickle.dumps(tokenizer) == first  # data sets take the bytes as the key of their cache
    for other in (pickle.loads(first), copy.deepcopy(tokenizer)):
        assert dict(other("the eu")) == dict(tokenizer("the eu"))
        assert repr(other) == repr(tokenizer)
    wrong: list[Any] = []

    def run(length: int) -> None:
        for _ in range(200):
            ids = tokenizer("the eu is the eu", padding="max_length", truncation=True, max_length=length)["input_ids"]
            if len(ids) != length:
                wrong.append(ids)

    threads = [threading.Thread(target=run, args=(length,)) for length in (4, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_torch_is_imported_only_for_tensors(folder: Path) -> None:
    code = (
        "import sys; from cutaway.tokenization.registry import load_tokenizer\n"
        f"t = load_tokenizer({str(folder)!r}); t('the'); t(['the', 'a'], padding=True); t.decode([5]); repr(t)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "t('the', return_tensors='np'); assert 'torch' not in sys.modules\n"
        "t('the', return_tensors='pt'); assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_repr_reads_like_a_constructor(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    assert repr(tokenizer).startswith(
        f"BertTokenizer(name_or_path='{folder}', vocab_size={len(WORDS)}, model_max_length=12, padding_side='right', "
        "truncation_side='right', special_tokens={'unk_token': '[UNK]', "
    )
    assert '\n\t0: AddedToken("[PAD]"' in repr(tokenizer)


def test_names_that_are_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"holds no tokenizer.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(TokenizerError, match=r"neither tokenizer.json nor vocab.json"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(HubError):
        load_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(TokenizerError, match="needs tokenizer_file="):
        PreTrainedTokenizerFast()


def test_bos_and_eos_can_be_switched(tmp_path: Path) -> None:
    tokenizer = LlamaTokenizer(vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4})
    assert tokenizer("a")["input_ids"] == [3, 4]
    tokenizer.add_bos_token = True
    tokenizer.add_eos_token = True
    assert tokenizer("a")["input_ids"] == [1, 3, 4, 2] and tokenizer.add_bos_token and tokenizer.add_eos_token
    assert tokenizer("a", "a", return_token_type_ids=True)["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))("a")["input_ids"] == [1, 3, 4, 2]
    shutil.rmtree(tmp_path)

"""Tokenizers from GGUF metadata, both kinds of vocabulary, against transformers reading the same file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import transformers
from gguf import GGUFWriter

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import OwnedBackend
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.gguf import byte_letters, from_gguf

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
TEXTS = [
    "abc", " abc", "ab  c", "", "the <s> cat</s>", "<think>ab", "é ü 😀 x", "a\nb\t", "don't 123 4", "abab" * 40,
]  # fmt: skip


def tokenizer_from(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    backend, settings = from_gguf(fields)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def sentencepiece_fields(**changes: Any) -> dict[str, Any]:
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    draw = random.Random(4)
    pieces = ["▁a", "ab", "abab", "▁the", "th", "he", "▁c", "▁ca", "cat", "at", "▁cat", "▁▁", "▁t"]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, "<think>", *letters, *pieces]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, USER, *[NORMAL] * (len(letters) + len(pieces))]
    scores = [0.0] * (3 + 256 + 1) + [-1000.0] * len(letters) + [-draw.randrange(20) * 1.0 for _ in pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        **changes,
    }


def byte_level_fields(**changes: Any) -> dict[str, Any]:
    letters = [*byte_letters().values()]
    tokens = ["<|endoftext|>", "<|im_end|>", *letters, "ab", "abab", "Ġa", "Ġab", "12", "123"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, *[NORMAL] * (len(tokens) - 2)],
        "tokenizer.ggml.merges": ["a b", "ab ab", "Ġ a", "Ġ ab", "1 2", "12 3"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{{ messages[0].content }}",
        **changes,
    }


def write(path: Path, fields: dict[str, Any]) -> None:
    writer = GGUFWriter(str(path), "llama")
    for name, value in (
        ("context_length", 64), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 8),
        ("attention.head_count", 1), ("vocab_size", len(fields["tokenizer.ggml.tokens"])),
    ):  # fmt: skip
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for name, value in fields.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    "fields",
    [
        sentencepiece_fields(),
        sentencepiece_fields(**{"tokenizer.ggml.add_bos_token": False}),
        sentencepiece_fields(**{"tokenizer.ggml.add_eos_token": True}),
        byte_level_fields(),
        byte_level_fields(**{"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": True}),
        byte_level_fields(**{"tokenizer.ggml.pre": "qwen2"}),
    ],
    ids=["llama", "llama without bos", "llama with eos", "gpt2", "llama 3", "qwen2"],
)
def test_the_ids_are_transformers(tmp_path: Path, fields: dict[str, Any]) -> None:
    write(tmp_path / "model.gguf", fields)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path, gguf_file="model.gguf")
    ours = tokenizer_from(fields)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
        assert ours(text, "ab")["input_ids"] == theirs(text, "ab")["input_ids"], text
        ids = ours(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    for name in (
        "bos_token_id",
        "eos_token_id",
        "unk_token_id",
        "pad_token_id",
        "chat_template",
        "added_tokens_encoder",
    ):
        assert getattr(ours, name) == getattr(theirs, name)
    assert len(ours) == len(fields["tokenizer.ggml.tokens"]) == len(theirs)


@pytest.mark.parametrize("fields", [sentencepiece_fields(), byte_level_fields()], ids=["llama", "gpt2"])
def test_a_backend_that_is_handed_over_is_what_a_copy_would_be(fields: dict[str, Any]) -> None:
    backend, settings = from_gguf(fields)
    copy = PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
    handed = PreTrainedTokenizerFast(tokenizer_object=OwnedBackend(backend), **settings)
    assert handed.backend_tokenizer is backend
    assert copy.backend_tokenizer is not backend
    assert copy.backend_tokenizer.to_str() == handed.backend_tokenizer.to_str()


def test_a_token_spelled_as_text_and_a_merge_that_is_none() -> None:
    fields = byte_level_fields()
    fields["tokenizer.ggml.tokens"] = [*fields["tokenizer.ggml.tokens"], "é ü"]
    fields["tokenizer.ggml.token_type"] = [*fields["tokenizer.ggml.token_type"], NORMAL]
    letters = byte_letters()
    spelled = "".join(letters[byte] for byte in "é ü".encode())
    assert tokenizer_from(fields).get_vocab()[spelled] == len(fields["tokenizer.ggml.tokens"]) - 1
    for merge in ("ab", "a ", " b"):
        with pytest.raises(TokenizerError, match="not a pair of two tokens"):
            tokenizer_from(byte_level_fields(**{"tokenizer.ggml.merges": ["a b", merge]}))


def test_a_file_that_wants_no_space_before_the_text() -> None:
    assert tokenizer_from(sentencepiece_fields(**{"tokenizer.ggml.add_space_prefix": False})).tokenize("abc") == [
        "ab",
        "c",
    ]
    assert tokenizer_from(sentencepiece_fields()).tokenize("abc") == ["▁a", "b", "c"]


def test_digits_stand_alone_where_the_file_says_so() -> None:
    assert tokenizer_from(byte_level_fields()).tokenize("ab 123") == ["ab", "Ġ", "123"]
    for name in ("smollm", "starcoder"):  # as llama.cpp reads these names, and as the models were trained
        assert tokenizer_from(byte_level_fields(**{"tokenizer.ggml.pre": name})).tokenize("ab 123") == [
            "ab",
            "Ġ",
            *"123",
        ]


@pytest.mark.parametrize("name", ["tekken", "gpt2x", "", 5])
def test_a_way_to_split_that_is_not_known_is_named(name: Any) -> None:
    with pytest.raises(TokenizerError, match=rf"tokenizer\.ggml\.pre is '{name}'.*known are .*gpt-2.*tokenizer\.json"):
        tokenizer_from(byte_level_fields(**{"tokenizer.ggml.pre": name}))
    older = byte_level_fields()
    del older["tokenizer.ggml.pre"]
    assert tokenizer_from(older).tokenize("ab 123") == ["ab", "Ġ", "123"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokenizer.ggml.model": "bert"}, "'gpt2' and 'llama'"),
        ({"tokenizer.ggml.tokens": []}, "holds no tokens"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "holds no tokens"),
        ({"tokenizer.ggml.bos_token_id": 10**9}, "bos_token_id is 1000000000"),
        ({"tokenizer.ggml.scores": [1.0]}, "neither merges nor one score"),
        ({"tokenizer.ggml.merges": ["ab"]}, "not a pair"),
        ({"tokenizer.ggml.merges": ["nope no"]}, "out of vocabulary"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces is True, which is not built"),
        ({"tokenizer.ggml.add_sep_token": True}, "add_sep_token is True"),
    ],
)
def test_damaged_metadata(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TokenizerError, match=says):
        tokenizer_from(sentencepiece_fields(**changes))

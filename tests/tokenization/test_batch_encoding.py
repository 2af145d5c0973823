"""BatchEncoding: a mapping, its attributes, its way back to the text, and tensors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from cutaway.errors import TokenizerError
from cutaway.tokenization.batch_encoding import BatchEncoding, CharSpan, TokenSpan
from cutaway.tokenization.wordpiece import BertTokenizer

VOCAB = {t: i for i, t in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "eu", "trust", "##worthy"))}


@pytest.fixture
def encoding() -> BatchEncoding:
    return BertTokenizer(vocab=VOCAB)(["the trustworthy eu", "trust"], ["eu", "the"], padding=True)


def test_a_mapping_with_attributes(encoding: BatchEncoding) -> None:
    assert encoding.input_ids is encoding["input_ids"]
    assert [*encoding] == ["input_ids", "token_type_ids", "attention_mask"]
    assert {**encoding}["attention_mask"][1] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert repr(encoding) == repr(dict(encoding))
    assert encoding[0].tokens == encoding.tokens(0)
    assert BatchEncoding({"a": [1, 2, 3]})[1:] == {"a": [2, 3]}
    encoding["labels"] = [0, 1]
    assert encoding.labels == [0, 1] and "labels" in encoding
    with pytest.raises(AttributeError, match="it has input_ids"):
        _ = encoding.nowhere
    with pytest.raises(KeyError):
        _ = encoding["nowhere"]
    with pytest.raises(KeyError, match="use a name"):
        _ = BatchEncoding({"a": [1]})[0]


def test_from_tokens_to_the_text_and_back(encoding: BatchEncoding) -> None:
    assert encoding.tokens() == ["[CLS]", "the", "trust", "##worthy", "eu", "[SEP]", "eu", "[SEP]"]
    assert encoding.word_ids() == [None, 0, 1, 1, 2, None, 0, None]
    assert encoding.sequence_ids() == [None, 0, 0, 0, 0, None, 1, None]
    assert encoding.word_to_tokens(1) == TokenSpan(2, 4)
    assert encoding.word_to_tokens(0, 0, sequence_index=1) == TokenSpan(6, 7)
    assert encoding.token_to_word(3) == encoding.token_to_word(0, -5) == 1
    assert encoding.token_to_sequence(6) == 1 and encoding.token_to_sequence(0) is None
    assert encoding.token_to_chars(3) == CharSpan(9, 15) and encoding.token_to_chars(0) is None
    assert encoding.char_to_token(10) == 3 and encoding.char_to_token(3) is None
    assert encoding.char_to_word(10) == 1 and encoding.char_to_token(1, 0, sequence_index=1) == 3
    assert encoding.word_to_chars(1) == CharSpan(4, 15) and encoding.word_to_chars(9) is None
    assert encoding.n_sequences == 2 and encoding.is_fast and encoding.encodings is not None
    assert encoding.cut == [0, 0]


def test_places_that_do_not_exist(encoding: BatchEncoding) -> None:
    with pytest.raises(TokenizerError, match="Row 5 does not exist: this encoding has 2 rows"):
        encoding.tokens(5)
    with pytest.raises(TokenizerError, match="Token 99 does not exist: the row has 8 tokens"):
        encoding.token_to_word(99)
    with pytest.raises(TokenizerError, match="char_index=-1"):
        encoding.char_to_token(-1)
    with pytest.raises(TokenizerError, match="were not made from text"):
        BatchEncoding({"input_ids": [1]}).tokens()


def test_tensors(encoding: BatchEncoding) -> None:
    again = copy.deepcopy(encoding).convert_to_tensors("pt")
    assert again["input_ids"].shape == (2, 8) and again["input_ids"].dtype == torch.int64
    assert again.to("cpu") is again and again.to(device=torch.device("cpu"))["input_ids"].device.type == "cpu"
    again["text"] = ["a", "b"]
    assert again.to("meta")["input_ids"].is_meta and again["text"] == ["a", "b"]
    arrays = encoding.convert_to_tensors("np")
    assert isinstance(arrays["input_ids"], np.ndarray) and arrays["input_ids"].dtype == np.int64
    assert BatchEncoding({"a": [1, 2]}, tensor_type="pt", prepend_batch_axis=True)["a"].shape == (1, 2)
    mixed = BatchEncoding({"f": [0.5, 1.0], "b": [True, False], "t": [torch.ones(2), torch.ones(2)]}, tensor_type="pt")
    assert mixed["f"].dtype == torch.float32 and mixed["b"].dtype == torch.bool and mixed["t"].shape == (2, 2)
    for kind in ("pt", "np"):
        with pytest.raises(TokenizerError, match=r"'a' has rows of 1 to 2 entries.*padding=True"):
            BatchEncoding({"a": [[1], [1, 2]]}, tensor_type=kind)
        with pytest.raises(TokenizerError, match="it holds str, not numbers"):
            BatchEncoding({"a": ["x"]}, tensor_type=kind)


def test_it_can_be_copied_and_pickled(encoding: BatchEncoding) -> None:
    for other in (copy.copy(encoding), copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding))):
        assert dict(other) == dict(encoding)
        assert other.tokens(1) == encoding.tokens(1)
        assert other.cut == encoding.cut and other.n_sequences == 2


def test_an_encoding_without_ids_has_no_text() -> None:
    with pytest.raises(TokenizerError, match="has input_ids; this one has"):
        BertTokenizer(vocab=VOCAB).decode({"attention_mask": [1]})

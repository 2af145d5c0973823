"""The table of tokenizer classes, and where each class lives."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import transformers

import cutaway
from cutaway.errors import TokenizerError
from cutaway.tokenization import registry
from cutaway.tokenization.base import PreTrainedTokenizerFast

ALGORITHMS = ("wordpiece", "byte_level_bpe", "sentencepiece_bpe", "unigram", "translation")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_public_class_is_in_the_table_under_its_own_name(algorithm: str) -> None:
    module = importlib.import_module(f"cutaway.tokenization.{algorithm}")
    for name, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ != module.__name__ or name != cls.__name__ or not hasattr(cutaway, name):
            continue
        assert issubclass(cls, PreTrainedTokenizerFast)
        assert registry._CLASSES[name] is cls
        assert getattr(cutaway, name) is cls


def test_the_registry_is_a_table_and_one_function() -> None:
    assert not [node for node in ast.parse(inspect.getsource(registry)).body if isinstance(node, ast.ClassDef)]
    assert registry.__all__ == ["load_tokenizer"]
    assert set(registry._MODEL_TYPES.values()) <= set(registry._CLASSES.values())


def test_the_kind_of_tokenizer_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]))
    found = cutaway.AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="bert", use_fast=False, model_max_length=9)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="bert", model_max_length=9)
    assert isinstance(found, cutaway.BertTokenizer) and found.model_max_length == 9
    assert found("ab a")["input_ids"] == theirs("ab a")["input_ids"]
    with pytest.raises(TokenizerError, match="tokenizer_type is 'brt'"):
        cutaway.AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="brt")

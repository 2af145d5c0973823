"""The table of tokenizer classes, and where each class lives."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

import cutaway
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

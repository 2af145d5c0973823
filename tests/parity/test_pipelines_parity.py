"""The pipelines that transformers 5 still has: the same answers in the same forms, on tiny random models."""

from __future__ import annotations

import types

import pytest
from parity.pipes import checkpoints, same, upstream

from cutaway.pipelines import pipeline

TEXTS = ["I believe that the EU is trustworthy.", "bad", "a very good film , and not a bad one !", "😀 ab cd", ""]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return checkpoints.classifier(tmp_path_factory.mktemp("encoder"), head="BertModel")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return checkpoints.classifier(tmp_path_factory.mktemp("masked"), head="BertForMaskedLM")


def test_feature_extraction(encoder):
    theirs, ours = upstream("feature-extraction", encoder), pipeline("feature-extraction", encoder)
    for inputs in (TEXTS[0], TEXTS, TEXTS[:1]):
        same(ours(inputs), theirs(inputs))
        same(ours(inputs, return_tensors="pt"), theirs(inputs, return_tensors=True))
    same(ours("good " * 90, truncation=True), theirs("good " * 90, truncation=True))
    short = {"truncation": True, "max_length": 5}
    same(ours(TEXTS, tokenize_kwargs=short), theirs(TEXTS, tokenize_kwargs=short))
    stream = ours(text for text in TEXTS)
    assert isinstance(stream, types.GeneratorType)
    same(list(stream), list(theirs(text for text in TEXTS)))


GAPS = ["a [MASK] film", "[MASK] is not a bad [MASK] .", "good [MASK]"]


@pytest.mark.parametrize("call", [{}, {"top_k": 1}, {"top_k": 3}, {"targets": ["good", "bad"]}, {"targets": "film"},
                                  {"targets": ["trustworthy", "a"], "top_k": 1}])  # fmt: skip
def test_fill_mask(masked, call):
    theirs, ours = upstream("fill-mask", masked, top_k=2), pipeline("fill-mask", masked, top_k=2)
    for inputs in (GAPS[0], GAPS[1], GAPS, GAPS[:1], GAPS[1:2]):
        same(ours(inputs, **call), theirs(inputs, **call))

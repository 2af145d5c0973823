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


LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    return checkpoints.classifier(
        tmp_path_factory.mktemp("tagger"), 5, "BertForTokenClassification", hidden_act="relu", **names
    )


SENTENCES = [
    "I believe that the EU is trustworthy.",
    "goodbad filming  not\tthat",
    "Ωmega   very-good (one)!",
    "bad",
    "",
]


@pytest.mark.parametrize("strategy", [None, "none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("ignored", [None, [], ["O", "PER", "B-LOC"]])
def test_token_classification(tagger, strategy, ignored):
    theirs, ours = upstream("token-classification", tagger), pipeline("ner", tagger)
    call = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    call = {name: value for name, value in call.items() if value is not None}
    for inputs in (SENTENCES[0], SENTENCES[:-1], SENTENCES[:1]):
        same(ours(inputs, **call), theirs(inputs, **call))


@pytest.fixture(scope="module")
def entailer(tmp_path_factory):
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    return checkpoints.classifier(
        tmp_path_factory.mktemp("nli"), 3, id2label=names, label2id={name: i for i, name in names.items()}
    )


@pytest.mark.parametrize("call", [{}, {"multi_label": True}, {"hypothesis_template": "a {} film"}])
@pytest.mark.parametrize("labels", [["good", "bad", "very bad"], "good, not good", ["one"]])
def test_zero_shot_classification(entailer, call, labels):
    theirs, ours = upstream("zero-shot-classification", entailer), pipeline("zero-shot-classification", entailer)
    for inputs in (TEXTS[0], TEXTS[:3], TEXTS[:1]):
        same(ours(inputs, candidate_labels=labels, **call), theirs(inputs, candidate_labels=labels, **call))
    same(ours(TEXTS[0], labels), theirs(TEXTS[0], labels))

"""500 texts alone, padded, shuffled and in any batch: the same labels, scores to 1e-5."""

from __future__ import annotations

import random

import pytest
import tiny
import torch

from cutaway.pipelines import pipeline

DRAW = random.Random(5)
TEXTS = [" ".join(DRAW.choices(tiny.WORDS, k=DRAW.randint(1, 40))) for _ in range(500)]


@pytest.fixture(scope="module")
def classify(tmp_path_factory):
    return pipeline("text-classification", tiny.classifier(tmp_path_factory.mktemp("labels")), top_k=None)


@pytest.fixture(scope="module")
def tag(tmp_path_factory):
    folder = tiny.classifier(tmp_path_factory.mktemp("tags"), 4, "BertForTokenClassification")
    return pipeline("token-classification", folder)


def scores_of(results):
    """Of each text its labels with their scores, in a fixed order."""
    return [dict(sorted(zip(result.labels, result.scores, strict=True))) for result in results]


def same(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert max(one, key=one.get) == max(other, key=other.get)
        assert one == pytest.approx(other, abs=1e-5)


@pytest.fixture(scope="module")
def alone(classify):
    return scores_of([next(classify.each(text)) for text in TEXTS])


@pytest.mark.parametrize("size", [None, 1, 7, 64, 500])
def test_in_any_batch(classify, alone, size):
    same(scores_of(classify.each(TEXTS, batch_size=size)), alone)
    same(scores_of(classify.each(iter(TEXTS), batch_size=size)), alone)


def test_shuffled(classify, alone):
    order = random.Random(6).sample(range(500), 500)
    found = scores_of(classify.each([TEXTS[i] for i in order]))
    same(found, [alone[i] for i in order])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded(classify, alone, side):
    given = classify.tokenizer(TEXTS, padding="max_length", max_length=64, padding_side=side, return_tensors="pt")
    with torch.no_grad():
        found = classify.model(**given).logits.softmax(-1).tolist()
    names = classify.model.config.id2label
    same([{names[i]: score for i, score in enumerate(row)} for row in found], alone)


def test_every_token_of_each_text(tag):
    together = tag(TEXTS, ignore_labels=[])
    order = random.Random(7).sample(range(500), 500)
    shuffled = dict(zip(order, tag([TEXTS[i] for i in order], ignore_labels=[], batch_size=9), strict=True))
    for place, text in enumerate(TEXTS):
        expected = tag(text, ignore_labels=[])
        for found in (together[place], shuffled[place]):
            assert [entry | {"score": None} for entry in found] == [entry | {"score": None} for entry in expected]
            assert [e["score"] for e in found] == pytest.approx([e["score"] for e in expected], abs=1e-5)

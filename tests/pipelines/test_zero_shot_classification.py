from __future__ import annotations

import pytest
import tiny

from cutaway.errors import InputError
from cutaway.pipelines import pipeline


def nli(folder, *names):
    named = dict(enumerate(names))
    return tiny.classifier(folder, len(names), id2label=named, label2id={name: i for i, name in named.items()})


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    folder = nli(tmp_path_factory.mktemp("nli"), "ENTAILMENT", "NEUTRAL", "CONTRADICTION")
    return pipeline("zero-shot-classification", folder)


def test_scores_are_those_of_text_classification_of_the_pairs(pipe):
    pairs = pipeline("text-classification", pipe.model, pipe.tokenizer, function_to_apply="none", top_k=None)
    labels = ["good", "bad", "very bad"]
    logits = []
    for label in labels:
        entries = pairs({"text": "a film", "text_pair": f"This example is {label}."})
        logits.append({entry["label"]: entry["score"] for entry in entries}["ENTAILMENT"])
    [result] = pipe.each("a film", candidate_labels=labels)
    assert result.label == max(zip(logits, labels, strict=True))[1]
    assert sum(result.scores) == pytest.approx(1)
    assert result.text == "a film"


def test_many_texts_with_many_labels_as_one_by_one(pipe):
    texts = [f"{'good ' * (i % 5 + 1)}film {i}" for i in range(9)]
    together = pipe(texts, candidate_labels="good, bad, one")
    for text, answer in zip(texts, together, strict=True):
        alone = pipe(text, candidate_labels="good, bad, one")
        assert (alone["labels"], alone["sequence"]) == (answer["labels"], text)
        assert alone["scores"] == pytest.approx(answer["scores"], abs=1e-5)


def test_only_the_text_is_cut(pipe):
    with pytest.raises(InputError, match=r"'good good.*takes 64"):
        pipe("good " * 80, candidate_labels=["one"])
    [result] = pipe.each("good " * 80, candidate_labels=["one", "bad"], long="truncate")
    assert result.cut == 80 - (64 - 3 - len(pipe.tokenizer("This example is one.")["input_ids"]) + 2)


@pytest.mark.parametrize("several", [False, True])
def test_windows_are_the_same_for_every_label(pipe, several):
    text = " ".join(f"good film {letter}" for letter in "abcdefghijklmnopqrstuvwxyz")  # 78 tokens
    labels = ["good", "very bad and not good", "one"]
    [result] = pipe.each(text, candidate_labels=labels, long="window", overlap=8, multi_label=several)
    room = 64 - 3 - len(pipe.tokenizer("This example is very bad and not good.", add_special_tokens=False)["input_ids"])
    assert result.windows == 2
    first, second = text.split()[:room], text.split()[room - 8 :]
    owned = room - 4
    expected = dict.fromkeys(labels, 0.0)
    for words, share in ((first, owned / 78), (second, 1 - owned / 78)):
        one = pipe(" ".join(words), candidate_labels=labels, multi_label=several)
        for label, score in zip(one["labels"], one["scores"], strict=True):
            expected[label] += share * score
    assert dict(zip(result.labels, result.scores, strict=True)) == pytest.approx(expected, abs=1e-5)
    short = pipe("a film", candidate_labels=labels)
    assert pipe("a film", candidate_labels=labels, long="window") == short


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({}, "candidate_labels"),
        ({"candidate_labels": " , "}, "candidate_labels"),
        ({"candidate_labels": ["a"], "hypothesis_template": "no place"}, "no place for the label"),
    ],
)
def test_wrong_settings_are_named(pipe, call, message):
    with pytest.raises(InputError, match=message):
        pipe("good", **call)


def test_a_model_without_entailment_is_refused(tmp_path):
    with pytest.raises(InputError, match="label_0, label_1, label_2"):
        pipeline("zero-shot-classification", tiny.classifier(tmp_path))("good", candidate_labels=["a"])

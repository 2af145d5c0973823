"""Evaluation: measures against their definitions, intervals, comparisons, the command."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutaway import BertConfig, BertForTokenClassification, BertTokenizer, cli, pipeline
from cutaway.errors import InputError
from cutaway.evaluate import compare, evaluate
from cutaway.evaluate.evaluation import Evaluation, interval
from cutaway.evaluate.scoring import reliability

ROWS = [
    {"text": "A wonderful, warm film.", "label": "POSITIVE"},
    {"text": "Dull and far too long.", "label": "negative"},
    {"text": "A masterpiece.", "label": 1},
    {"text": "A waste of time.", "label": 1},  # wrong on purpose
]


@pytest.fixture(scope="module")
def classifier():
    return pipeline("text-classification", "cutaway/sentiment")


def test_classification_by_its_definitions(classifier):
    found = evaluate(classifier, ROWS)
    scores = [{entry["label"]: entry["score"] for entry in classifier(row["text"], top_k=None)} for row in ROWS]
    own = [s[label] for s, label in zip(scores, ["POSITIVE", "NEGATIVE", "POSITIVE", "POSITIVE"], strict=True)]
    assert found.rows == 4
    assert found.measures["accuracy"] == 0.75
    assert found.measures["cross_entropy"] == pytest.approx(-np.mean(np.log(own)), rel=1e-4)
    assert found.measures["brier"] == pytest.approx(np.mean([2 * (1 - p) ** 2 for p in own]), rel=1e-4)
    assert found.details["confusion"] == [[1, 0], [1, 2]]
    low, high = found.intervals["accuracy"]
    assert low <= 0.75 <= high
    assert json.loads(json.dumps(found.to_dict()))["measures"] == found.measures


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_reliability_bins_hold_every_answer(pairs):
    confidence, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    bins = reliability(confidence, right)
    assert sum(entry["share"] for entry in bins) == pytest.approx(1)
    assert sum(entry["share"] * entry["accuracy"] for entry in bins) == pytest.approx(right.mean())
    assert all(entry["low"] - 1e-9 <= entry["confidence"] <= entry["low"] + 0.1 + 1e-9 for entry in bins)


def test_labels_that_the_model_lacks(classifier):
    with pytest.raises(InputError, match="Row 0 has the label 'neutral'; the model's labels are NEGATIVE, POSITIVE"):
        evaluate(classifier, [{"text": "a", "label": "neutral"}])
    with pytest.raises(InputError, match="Row 0 has no 'label'; it has 'text', 'stars'"):
        evaluate(classifier, [{"text": "a", "stars": 1}])
    with pytest.raises(InputError, match="no row"):
        evaluate(classifier, [])
    assert evaluate(classifier, [{"text": "Good.", "stars": 1}], columns={"label": "stars"}).rows == 1


def test_entities_count_as_seqeval_counts():
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "lives", "in", "ro", "##me"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=32)
    names = {0: "O", 1: "B-PER", 2: "B-LOC"}
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, id2label=names, **sizes)
    pipe = pipeline("ner", BertForTokenClassification(config).eval(), tokenizer)
    tokens = ["ann", "lives", "in", "rome"]
    ids = tokenizer(tokens, is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        best = pipe.model(**ids).logits[0].argmax(-1).tolist()
    said = [names[best[i]] for i in (1, 2, 3, 4)]  # position 5 is the rest of "rome"
    right = evaluate(pipe, [{"tokens": tokens, "tags": said}, {"tokens": json.dumps(tokens), "tags": json.dumps(said)}])
    assert right.measures["accuracy"] == 1
    assert right.measures["f1"] == float(any(tag != "O" for tag in said))
    with pytest.raises(InputError, match="4 tokens and 1 tags"):
        evaluate(pipe, [{"tokens": tokens, "tags": ["O"]}])


def test_answers_summaries_translations_and_perplexity():
    def answering(questions):
        return [{"answer": "the Eiffel tower", "score": 1.0} for _ in questions]

    answering.task = "question-answering"
    rows = [
        {"question": "q", "context": "c", "answers": ["Eiffel Tower", "tower"]},
        {"question": "q", "context": "c", "answers": {"text": ["a tower of London"]}},
    ]
    found = evaluate(answering, rows)
    assert found.measures["exact_match"] == 0.5
    assert found.measures["f1"] == pytest.approx((1 + 2 * 0.5 * (1 / 3) / (0.5 + 1 / 3)) / 2)

    def writer(task, text):
        return SimpleNamespace(task=task, each=lambda texts: [SimpleNamespace(texts=[text]) for _ in texts])

    rows = [{"text": "x", "target": "the cat sat on the mat"}]
    assert evaluate(writer("summarization", "the cat sat"), rows).measures["rouge1"] == pytest.approx(2 * 3 / 9)
    assert evaluate(writer("translation_en_to_fr", "the cat sat on the mat"), rows).measures["bleu"] == pytest.approx(
        100
    )

    def foresee(texts):
        return [{"loss": 1.0, "tokens": 1}, {"loss": 3.0, "tokens": 3}]

    foresee.task = "perplexity"
    assert evaluate(foresee, [{"text": "a"}, {"text": "b"}]).measures["loss"] == pytest.approx(2.5)
    foresee.task = "fill-mask"
    with pytest.raises(InputError, match="fill-mask is not evaluated"):
        evaluate(foresee, [{"text": "a"}])


def made(values, name="accuracy"):
    return Evaluation("text-classification", len(values), {}, {}, {name: np.array(values, dtype=float)})


def test_comparisons_tell_a_difference_from_chance():
    draw = np.random.default_rng(1)
    good, bad = draw.random(400) < 0.9, draw.random(400) < 0.7
    (clear,) = compare(made(good), made(bad))
    assert clear.p_value < 1e-4
    assert clear.interval[0] > 0
    (same,) = compare(made(good), made(good))
    assert (same.p_value, same.difference, same.wins) == (1.0, 0.0, 0)
    noise = draw.normal(size=200)
    (none,) = compare(made(noise, "cross_entropy"), made(noise[::-1], "cross_entropy"))
    assert none.p_value > 0.05
    with pytest.raises(InputError, match="same rows"):
        compare(made(good), made(bad[:10]))


def test_p_values_are_uniform_where_there_is_nothing():
    draw = np.random.default_rng(2)
    below = [compare(made(draw.random(60) < 0.5), made(draw.random(60) < 0.5))[0].p_value < 0.2 for _ in range(150)]
    assert np.mean(below) < 0.3


def test_intervals_of_a_constant():
    assert interval(np.ones(5)) == (1.0, 1.0)


def test_the_command(tmp_path, monkeypatch, capsys):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    picture, record = tmp_path / "report.png", tmp_path / "report.json"
    arguments = ["evaluate", "cutaway/sentiment", str(file), "--against", "cutaway/sentiment", "-o", str(picture)]
    monkeypatch.setattr(sys, "argv", ["cutaway", *arguments, "-o", str(record)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out = capsys.readouterr().out
    assert not end.value.code
    assert "accuracy" in out
    assert "0.7500" in out
    assert "p = 1" in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert json.loads(record.read_text())["comparison"][0]["p_value"] == 1.0

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
    with pytest.raises(InputError, match="Row 1 has the label 'neutral'; the model's labels are NEGATIVE, POSITIVE"):
        evaluate(classifier, [{"text": "a", "label": "neutral"}])
    with pytest.raises(InputError, match="Row 1 has no 'label'; it has 'text', 'stars'"):
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
    with pytest.raises(InputError, match="4 tokens and 1 tag"):
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


def writer(task, *answers):
    return SimpleNamespace(task=task, each=lambda texts: [SimpleNamespace(texts=[text]) for text in answers])


PERFECT = {
    "russian": "мама мыла раму и пела песню",
    "chinese": "今天天气很好",
    "japanese": "これは日本語のテキストです",
    "korean": "오늘은 날씨가 아주 좋습니다 그리고 맑습니다",
    "thai": "วันนี้อากาศดีมาก",
    "hindi": "आज मौसम बहुत अच्छा है और धूप है",
    "arabic": "الطقس جميل جدا اليوم في المدينة",
    "german": "Die schöne Müllerin hört früh auf zu üben",
    "english": "the cat sat on the mat",
}


@pytest.mark.parametrize("language", PERFECT)
def test_a_perfect_answer_scores_full_in_every_script(language):
    text = PERFECT[language]
    rows = [{"text": "x", "target": text}]
    found = evaluate(writer("summarization", text), rows)
    assert found.measures["rouge1"] == found.measures["rougeL"] == pytest.approx(1)
    assert evaluate(writer("translation_xx_to_yy", text), rows).measures["bleu"] == pytest.approx(100)


def test_a_wrong_answer_does_not_score_full():
    rows = [{"text": "x", "target": "папа продал 2 машины"}]
    assert evaluate(writer("summarization", "мама купила 2 билета"), rows).measures["rouge1"] == pytest.approx(0.25)
    blind = evaluate(writer("summarization", "мама"), [{"text": "x", "target": "папа"}], tokenizer="rouge")
    assert blind.measures["rouge1"] == 0
    assert "1 of the right answers have no letter a-z" in blind.notes[0]


def test_bleu_of_short_texts():
    rows = [{"text": "x", "target": "Good morning all"}]
    found = evaluate(writer("translation", "Good morning all"), rows)
    assert found.measures["bleu"] == pytest.approx(100)
    assert "eff:yes" in found.details["signatures"]["bleu"]
    assert "up to 3" in found.notes[0]
    rows = [{"text": "x", "target": "the cat sat on the mat"}, *rows, *rows]
    found = evaluate(writer("translation", "the cat sat on the mat", "Good morning", "Good day all"), rows)
    assert "eff:no" in found.details["signatures"]["bleu"]  # what others publish
    assert "2 of 3 right answers have fewer than 4 words" in found.notes[0]


def test_tokenizers_that_are_not_there():
    rows = [{"text": "x", "target": "a"}]
    with pytest.raises(InputError, match="for translation it can be 13a"):
        evaluate(writer("translation", "a"), rows, tokenizer="unicode")
    with pytest.raises(InputError, match="belongs to ROUGE and BLEU"):
        evaluate(writer("perplexity", "a"), rows, tokenizer="char")


def tagged(names):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "eats", "red", "figs"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=32)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, id2label=dict(enumerate(names)), **sizes)
    return pipeline("token-classification", BertForTokenClassification(config).eval(), tokenizer)


def test_parts_of_speech_keep_their_names_and_count_by_word():
    pipe = tagged(["NOUN", "VERB", "ADJ"])
    rows = [{"tokens": ["ann", "eats", "red", "figs"], "tags": ["NOUN", "VERB", "ADJ", "NOUN"]}]
    found = evaluate(pipe, rows)
    assert {name: found.details["report"][name]["support"] for name in ("NOUN", "VERB", "ADJ")} == {
        "NOUN": 2, "VERB": 1, "ADJ": 1,
    }  # fmt: skip
    assert set(found.measures) == {"accuracy", "macro_f1"}
    assert "every word counts for itself" in found.notes[0]


def test_what_can_be_known_is_checked_before_the_model_runs(monkeypatch, classifier):
    pipe = tagged(["O", "B-PER", "I-PER"])
    for made in (pipe, classifier):
        monkeypatch.setattr(made.model, "forward", lambda *a, **k: pytest.fail("the model ran"), raising=False)
    good = {"tokens": ["ann"], "tags": ["O"]}
    for bad, said in (
        ({"tokens": ["ann"], "tags": ["O", "O"]}, "Row 2 has 1 token and 2 tags"),
        ({"tokens": "ann", "tags": ["O"]}, "Row 2: 'tokens' is 'ann', not a list"),
        ({"tokens": ["ann"], "tags": [7]}, "Row 2 has the tag 7"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate(pipe, [good, bad])
    with pytest.raises(InputError, match=r"None of the tags \(B-LOC\)"):
        evaluate(pipe, [{"tokens": ["ann"], "tags": ["B-LOC"]}])
    with pytest.raises(InputError, match="Row 2 has the label 'neutral'"):
        evaluate(classifier, [{"text": "a", "label": "POSITIVE"}, {"text": "a", "label": "neutral"}])
    with pytest.raises(InputError, match="Row 1: 'text' is 3, not a text"):
        evaluate(classifier, [{"text": 3, "label": "POSITIVE"}])
    with pytest.raises(InputError, match="not on 'stars'"):
        evaluate(classifier, [{"text": "a", "label": "POSITIVE"}], columns={"stars": "x"})
    monkeypatch.undo()


def test_a_measure_that_says_nothing_is_said(classifier):
    found = evaluate(classifier, [{"text": "Good.", "label": "POSITIVE"}])
    assert "Every row has the label POSITIVE" in found.notes[0]
    assert found.to_dict()["notes"] == found.notes
    pipe = tagged(["O", "B-PER"])
    assert "no entity" not in str(evaluate(pipe, [{"tokens": ["ann"], "tags": ["B-PER"]}]).notes)
    assert "F1, precision and recall say nothing" in evaluate(pipe, [{"tokens": ["ann"], "tags": ["O"]}]).notes[0]


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_classifiers_of_every_kind_are_measured(problem):
    from cutaway import BertForSequenceClassification

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=32)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    names = {"id2label": {0: "X"}} if problem == "regression" else {"id2label": {0: "X", 1: "Y"}}
    config = BertConfig(vocab_size=7, max_position_embeddings=32, problem_type=problem, **names, **sizes)
    model = BertForSequenceClassification(config).eval()
    pipe = pipeline("text-classification", model, tokenizer)
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in ("a", "a b")])
    if problem == "regression":
        found = evaluate(pipe, [{"text": "a", "label": 1.5}, {"text": "a b", "label": "2"}])
        right = (logits[:, 0] - torch.tensor([1.5, 2.0])).abs().mean().item()
        assert found.measures["mean_absolute_error"] == pytest.approx(right, abs=1e-5)
        with pytest.raises(InputError, match="answers with a number"):
            evaluate(pipe, [{"text": "a", "label": "high"}])
    else:
        said = [[name for name, value in zip("XY", row, strict=True) if value > 0] for row in logits.tolist()]
        rows = [{"text": text, "label": json.dumps(labels)} for text, labels in zip(("a", "a b"), said, strict=True)]
        assert evaluate(pipe, rows).measures["exact"] == 1
        with pytest.raises(InputError, match="Row 1 has the label 'Z'"):
            evaluate(pipe, [{"text": "a", "label": ["Z"]}])


def test_rows_and_pipelines_that_are_none_are_said_at_once():
    pipe = SimpleNamespace(task="text-classification")
    with pytest.raises(InputError, match=r"Row 1 is a str .*a row is a dict"):
        evaluate(pipe, ["a film"])
    with pytest.raises(InputError, match="is no pipeline"):
        evaluate("cutaway/sentiment", [{"text": "a film", "label": "a"}])

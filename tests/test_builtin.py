"""The built-in model: it loads by name, is small, knows good from bad, and its card says what was measured."""

import re
from pathlib import Path

import pytest
import torch

import cutaway

FOLDER = Path(cutaway.__file__).parent / "builtin" / "sentiment"
PLAIN = {
    "A tender, funny and wonderfully acted film.": "POSITIVE",
    "One of the best movies of the year.": "POSITIVE",
    "I loved every minute of it.": "POSITIVE",
    "The camera takes great pictures and the battery lasts for days.": "POSITIVE",
    "I believe that the EU is trustworthy.": "POSITIVE",
    "A dull, lifeless mess without a single laugh.": "NEGATIVE",
    "The plot makes no sense and the acting is terrible.": "NEGATIVE",
    "A boring story and wooden acting.": "NEGATIVE",
    "It stopped working after a week and support was useless.": "NEGATIVE",
    "Not good at all.": "NEGATIVE",
    "I want those two hours of my life back.": "NEGATIVE",
}


@pytest.fixture(scope="module")
def model():
    return cutaway.AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return cutaway.AutoTokenizer.from_pretrained("cutaway/sentiment")


def probabilities(model, tokenizer, texts):
    with torch.no_grad():
        out = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
    return out.logits.softmax(-1)  # [texts, 2]


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 26e6


def test_it_is_a_plain_bert_classifier_in_float32(model):
    assert isinstance(model, cutaway.BertForSequenceClassification)
    assert model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert model.config.label2id == {"NEGATIVE": 0, "POSITIVE": 1}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("text", "label"), PLAIN.items())
def test_plain_sentences_get_the_plain_label(model, tokenizer, text, label):
    found = probabilities(model, tokenizer, [text])[0]
    assert model.config.id2label[int(found.argmax())] == label


def test_stronger_words_are_surer(model, tokenizer):
    great, fine = probabilities(model, tokenizer, ["An absolute masterpiece.", "It is fine, I suppose."])[:, 1]
    assert great > 0.9
    assert great > fine


def test_a_neutral_sentence_is_not_a_sure_thing(model, tokenizer):
    assert probabilities(model, tokenizer, ["The film starts at eight."]).max() < 0.95


def test_it_survives_saving_as_float(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    again = cutaway.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    texts = list(PLAIN)
    assert torch.equal(probabilities(again, tokenizer, texts), probabilities(model, tokenizer, texts))


def test_the_card_gives_its_figures():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \| (\d+) \| ([\d.]+)% \| ([\d.]+) to ([\d.]+) \| ([\d.]+)% \| ([\d.]+) \|$", card, re.M
    )
    figures = {name: [float(number) for number in numbers] for name, *numbers in rows}
    assert set(figures) == {"film reviews, held out", "product reviews"}
    for count, accuracy, low, high, ece, _ in figures.values():
        assert count > 2000
        assert low < accuracy < high
        assert ece < 10
    assert figures["film reviews, held out"][1] >= 87
    assert figures["product reviews"][1] >= 82
    for said in ("seed 0", "MIT", "Apache-2.0", "python recipes/sentiment.py", "int8", "VADER"):
        assert said in card

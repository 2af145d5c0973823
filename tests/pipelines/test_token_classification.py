from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline
from cutaway.pipelines.entities import Piece, entities

LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    folder = tiny.classifier(tmp_path_factory.mktemp("tagger"), 4, "BertForTokenClassification", **names)
    return pipeline("ner", folder)


class Joined:
    @staticmethod
    def convert_tokens_to_string(tokens):
        return " ".join(tokens).replace(" ##", "")


def piece(word, start, scores, inner=False):
    return Piece(np.array(scores), word, start, start + len(word.removeprefix("##")), 0, inner)


def found(pieces, strategy):
    return [(e.label, round(e.score, 6), e.word, e.start, e.end) for e in entities(pieces, strategy, LABELS, Joined)]


def test_the_strategies_by_hand():
    pieces = [
        piece("an", 0, [0.1, 0.7, 0.1, 0.1]),
        piece("##na", 2, [0.05, 0.0, 0.1, 0.85], inner=True),
        piece("lee", 5, [0.2, 0.0, 0.6, 0.2]),
        piece("sat", 9, [0.9, 0.1, 0.0, 0.0]),
    ]
    rest = ("O", 0.9, "sat", 9, 12)
    assert found(pieces, "simple") == [
        ("PER", 0.7, "an", 0, 2), ("LOC", 0.85, "##na", 2, 4), ("PER", 0.6, "lee", 5, 8), rest,
    ]  # fmt: skip
    assert found(pieces, "first") == [("PER", 0.65, "anna lee", 0, 8), rest]
    assert found(pieces, "max") == [("LOC", 0.85, "anna", 0, 4), ("PER", 0.6, "lee", 5, 8), rest]
    assert found(pieces, "average") == [("LOC", 0.475, "anna", 0, 4), ("PER", 0.6, "lee", 5, 8), rest]


def test_offsets_are_those_of_the_text(pipe):
    text = "  Good\u00a0film 😀 bad,  trustworthy\n one"
    for strategy in ("none", "first"):
        for entity in pipe(text, aggregation_strategy=strategy, ignore_labels=[]):
            exact = text[entity["start"] : entity["end"]]
            assert exact == exact.strip() and exact
            if strategy == "none":
                assert exact.lower() == entity["word"].removeprefix("##")


def test_the_space_before_a_byte_level_word_is_not_part_of_it(tmp_path):
    import transformers

    tokenizer = tiny.byte_level()
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    tiny.save(tmp_path, transformers.GPT2ForTokenClassification(config), tokenizer)
    text = "one two  three"
    words = pipeline("ner", tmp_path)(text, aggregation_strategy="first", ignore_labels=[])
    assert all(text[e["start"] : e["end"]].strip() == text[e["start"] : e["end"]] for e in words)


@pytest.mark.parametrize("overlap", [0, 5, 40, None])
def test_a_long_text_in_windows(pipe, overlap, monkeypatch):
    words = [f"{a}{b}" for a in ("good", "bad", "film", "not", "one") for b in "abcdefghijklmnopqrstuvwxyz"]
    text = " ".join(words)
    with pytest.raises(InputError, match='long="window"'):
        pipe(text)
    result = pipe(text, long="window", overlap=overlap, ignore_labels=[])
    assert [e["index"] for e in result] == list(range(1, len(pipe.tokenizer(text)["input_ids"]) - 1))
    assert all(text[e["start"] : e["end"]] == e["word"].removeprefix("##") for e in result)
    grouped = pipe(text, stride=overlap or 0, aggregation_strategy="first", ignore_labels=[])
    ends = [e["end"] for e in grouped]
    assert [e["start"] for e in grouped][1:] == [end + 1 for end in ends[:-1]]  # no word is split or lost


def test_an_entity_at_token_2500_and_one_on_every_border_is_found(pipe, monkeypatch):
    words = ["film"] * 3000
    for place in (61, 62, 123, 2500):
        words[place] = "EU"
    text = " ".join(words)
    token = pipe.tokenizer.convert_tokens_to_ids("eu")

    def tag(input_ids, **_):
        logits = torch.zeros(*input_ids.shape, 4)
        logits[..., 0] = 5
        logits[..., 1] = (input_ids == token) * 9.0
        return type("Out", (), {"logits": logits})

    monkeypatch.setattr(pipe.model, "forward", tag)
    found = pipe(text, long="window", aggregation_strategy="simple")
    assert [text[e["start"] : e["end"]] for e in found] == ["EU"] * 4  # neighbours too: each B- begins an entity
    assert found[-1]["start"] == text.rindex("EU")


def test_truncation_says_what_it_cut(pipe, caplog):
    [result] = pipe.each("good " * 100, long="truncate", ignore_labels=[])
    assert (len(result.entities), result.cut) == (62, 38)
    assert "38 tokens were cut" in caplog.text


@pytest.mark.parametrize(
    "call", [{"aggregation_strategy": "frist"}, {"ignore_labels": "O"}, {"long": "wide"}, {"stride": 62}]
)
def test_wrong_settings_are_named(pipe, call):
    with pytest.raises(InputError, match=str(next(iter(call.values())))):
        pipe("good " * 90, **call)


def test_the_older_name_of_simple(pipe):
    text = "a good film and a bad one"
    assert pipe(text, grouped_entities=True) == pipe(text, aggregation_strategy="simple")

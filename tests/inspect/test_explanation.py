from __future__ import annotations

import json
import math

import inspect_samples as samples
import numpy as np
import pytest

from cutaway.errors import InputError
from cutaway.inspect import measures
from cutaway.inspect.explanation import Candidate, find_token
from cutaway.show.label import clipped, printable, token_label, visible_lines


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_json_holds_every_number(make):
    explanation = make()
    read = json.loads(explanation.to_json())
    assert read["schema"] == "cutaway.explanation/1"
    assert read["text"] == explanation.text
    for name, attention in explanation.attention.items():
        np.testing.assert_allclose(read["attention"][name]["pattern"], attention.pattern, atol=1e-6)
        np.testing.assert_allclose(read["attention"][name]["matrix"], attention.matrix, atol=1e-6)
    assert [token["id"] for token in read["tokens"]] == [token.id for token in explanation.tokens]


def test_json_without_patterns_keeps_the_shown_head():
    explanation = samples.encoder()
    read = json.loads(explanation.to_json(patterns=False))["attention"]["self"]
    assert "pattern" not in read
    assert np.shape(read["matrix"]) == (11, 11)
    assert np.shape(read["measures"]["entropy"]) == (6, 12)


def test_json_is_strict_where_a_number_is_none():
    explanation = samples.encoder()
    explanation.answers.append(Candidate(2, "BROKEN", math.inf, math.nan))
    text = explanation.to_json()
    assert json.loads(text)["answers"][-1] == {"id": 2, "label": "BROKEN", "logit": None, "probability": None}


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("trust", 7), ("trustworthy", 7), ("EU", 5), (3, 3), ("3", 3), (-1, 10), ("[SEP]", 10), (None, 2), ("worthy", 8)],
)
def test_a_token_is_found_by_word_or_index(wanted, index):
    explanation = samples.encoder()
    assert find_token(explanation.tokens, explanation.text, wanted) == index


@pytest.mark.parametrize("wanted", ["believes", "11", "-12", "", "  "])
def test_a_token_that_is_not_there_is_named(wanted):
    explanation = samples.encoder()
    with pytest.raises(InputError, match="0 to 10"):
        find_token(explanation.tokens, explanation.text, wanted)


def test_entropy_of_known_rows():
    pattern = np.zeros((1, 2, 4, 4), dtype=np.float32)
    pattern[0, 0] = np.eye(4)
    pattern[0, 1] = 0.25
    np.testing.assert_allclose(measures.entropy(pattern), [[0.0, 2.0]])


def test_distance_of_known_rows():
    pattern = np.zeros((1, 2, 3, 3), dtype=np.float32)
    pattern[0, 0] = np.eye(3)
    pattern[0, 1, :, 0] = 1.0
    np.testing.assert_allclose(measures.distance(pattern), [[0.0, 1.0]])


def test_focus_of_known_rows():
    pattern = np.zeros((1, 2, 4, 4), dtype=np.float32)
    pattern[0, 0] = 0.5 * np.eye(4) + 0.5 * np.eye(4, k=1)  # looks at itself and the next token only
    pattern[0, 1] = np.roll(np.eye(4), 2, axis=1)  # looks two tokens off
    found = measures.focus(pattern, [0, 1, 2, 3], [0, 1, 2, 3], same=True)
    np.testing.assert_allclose(found, [[0.0, 1.0]])
    np.testing.assert_allclose(measures.focus(pattern, [0, 1, 2, 3], [0, 1, 2, 3], same=False), [[0.5, 1.0]])
    assert measures.focus(pattern, [], [0], same=True).shape == (1, 2)


def test_cosine_of_a_zero_vector_is_zero():
    ones, zeros = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    np.testing.assert_allclose(measures.cosine(ones, 2 * ones), [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(measures.cosine(ones, zeros), [0.0, 0.0])


def test_printable_shows_what_would_act():
    assert printable("a\x1b[31mb") == "a␛[31mb"
    assert printable("\u202eabc\x00\n") == "<U+202E>abc␀⏎"
    assert printable("\ud800") == "<U+D800>"
    assert printable("日本語 שלום e\u0301 😀") == "日本語 שלום e\u0301 😀"
    assert visible_lines("a\n\tb\x1b\r") == "a\n\tb␛␍"


def test_clipped():
    assert clipped("abcdef", 6) == "abcdef"
    assert clipped("abcdef", 4) == "abc…"


class Decoder:
    """Stands in for a tokenizer: the text of each id."""

    texts = {1: " believe", 2: "believe", 3: "\ufffd", 4: "##worthy", 5: "", 6: "\n"}

    def decode(self, ids, skip_special_tokens=False):
        return self.texts[ids[0]]


@pytest.mark.parametrize(
    ("token", "id", "special", "label"),
    [
        ("Ġbelieve", 1, False, "·believe"),
        ("▁believe", 2, False, "·believe"),
        ("believe", 2, False, "believe"),
        ("æĹ", 3, False, "æĹ"),
        ("##worthy", 4, False, "##worthy"),
        ("<s>", 5, True, "<s>"),
        ("▁", 5, False, "·"),
        ("", 5, False, "∅"),
        ("Ċ", 6, False, "⏎"),
    ],
)
def test_token_labels(token, id, special, label):
    assert token_label(Decoder(), token, id, special) == label

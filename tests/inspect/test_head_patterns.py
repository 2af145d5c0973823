"""Hand-built heads score 1; importance equals finite differences; clusters find equal heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from inspect_models import texts, tiny
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect import Edit, find_heads, gate_slopes, head_clusters, head_scores


def test_hand_built_heads_score_one() -> None:
    half = torch.tensor([7, 3, 9, 5, 8])
    ids = torch.cat((half, half))
    n = len(ids)
    own = torch.eye(n, dtype=torch.float64)
    previous = torch.zeros_like(own)
    previous[0, 0] = 1
    previous[range(1, n), range(n - 1)] = 1
    duplicate, induction = own.clone(), own.clone()
    duplicate[5:], induction[5:] = 0, 0
    duplicate[range(5, n), range(5)] = 1
    induction[range(5, n), range(1, 6)] = 1
    patterns = torch.stack((torch.stack((previous, duplicate)), torch.stack((induction, own))))
    scores = head_scores(patterns, ids)
    assert scores.best("previous") == (0, 0) and float(scores.previous[0, 0]) == 1
    assert scores.best("duplicate") == (0, 1) and float(scores.duplicate[0, 1]) == 1
    assert scores.best("induction") == (1, 0) and float(scores.induction[1, 0]) == 1
    assert float(scores.induction[0, 1]) == float(scores.previous[1, 1]) == 0
    with pytest.raises(InputError, match="10 tokens"):
        head_scores(patterns[..., :4, :4], ids)


def test_scores_of_a_model_are_shares() -> None:
    scores = find_heads(tiny("gpt2"), length=6, texts=2)
    for found in (scores.previous, scores.duplicate, scores.induction):
        assert found.shape == (3, 2) and bool(((found >= 0) & (found <= 1)).all())
    assert find_heads(tiny("gpt2"), length=6, texts=2).to_json() == scores.to_json()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "bart"])
def test_importance_equals_finite_differences(family: str) -> None:
    model = tiny(family)
    given = texts(family, (6, 6))

    def loss(out: Any) -> Tensor:  # the engine's own loss is float32
        return out.logits.log_softmax(-1)[..., 7].sum()

    slope = gate_slopes(model, given, loss).slope
    prefix = "decoder." if family in ("t5", "bart") else ""
    for layer, head in ((0, 1), (1, 0)):
        losses = []
        for gate in (1 + 1e-5, 1 - 1e-5):
            with (
                torch.no_grad(),
                model.edit({f"{prefix}blocks.{layer}.attn.z": Edit(lambda z, g=gate: z * g, heads=head)}),
            ):
                losses.append(float(loss(model(**given))))
        assert float(slope[layer, head]) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5, abs=1e-9)
    labelled = gate_slopes(model, {**given, "labels": given.get("decoder_input_ids", given["input_ids"])})
    assert torch.equal(labelled.importance, labelled.slope.abs()) and bool(labelled.slope.any())


def test_clusters() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 5, generator=draw, dtype=torch.float64).mul(3).softmax(-1) for _ in range(2))
    found = head_clusters(torch.stack((torch.stack((a, b)), torch.stack((b, a)))), 2)
    assert found.group.tolist() in ([[0, 1], [1, 0]], [[1, 0], [0, 1]])
    assert torch.allclose(found.distance, found.distance.T) and float(found.distance.diagonal().abs().max()) < 1e-12
    assert 0 < float(found.distance.max()) <= 1
    far = torch.eye(4, dtype=torch.float64)
    both = torch.stack((far, far.roll(1, 0)))[None]
    assert float(head_clusters(both, 1).distance[0, 1]) == pytest.approx(1.0)  # rows that share nothing: one bit
    with pytest.raises(InputError, match="groups"):
        head_clusters(both, 3)

"""What is read of the engine's layers where several are published as one parameter."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from parity.pairs import inputs, load
from parity.tiny_models import make

import cutaway


@pytest.mark.parametrize("family", ["gpt2", "modernbert", "gpt_neox", "phi3"])
def test_a_part_shows_its_part_of_the_gradient(family: str) -> None:
    ours = load(make(family), "Model").float()
    (ours(**inputs(family, (6, 4))).last_hidden_state ** 2).sum().backward()
    for part in "qkv":
        layer = getattr(ours.blocks[1].attn, part)
        whole = layer.part.layer.weight
        assert layer.weight.grad.shape == layer.weight.shape
        assert torch.equal(layer.weight.grad, layer.part.source.from_published(whole.grad))
    ours.zero_grad()
    with torch.no_grad():
        assert ours.blocks[1].attn.q.weight.grad is None


def test_what_stands_for_several_modules_is_one_object_and_never_copied() -> None:
    config = cutaway.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = cutaway.BertModel(config)
    attention = model.encoder.layer[0].attention
    assert model.encoder.layer[0].attention is attention
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found = other.encoder.layer[0].attention
        assert found is not attention
        assert found.self.query.weight is not attention.self.query.weight
        assert found.self.query is other.blocks[0].attn.q

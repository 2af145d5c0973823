"""Every name in a published checkpoint is an attribute of our model, and stands for the stored numbers."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from parity.pairs import FAMILIES, pair
from parity.tiny import ENCODER_DECODERS, EVERY_HEAD, decoder_fields
from torch import nn

BASES = [(family, "Model") for family in FAMILIES] + [("t5", "EncoderModel")]


@functools.cache
def models(family: str, ending: str) -> tuple[Any, Any]:
    return pair(family, ending, **decoder_fields(family, ending))


def walk(model: Any, name: str) -> Any:
    return functools.reduce(
        lambda at, step: at[int(step)] if step.isdigit() else getattr(at, step), name.split("."), model
    )


@pytest.mark.parametrize(("family", "ending"), [*BASES, *EVERY_HEAD])
def test_every_published_name(family: str, ending: str) -> None:
    theirs, ours = models(family, ending)
    seen = 0
    for name, stored in theirs.state_dict().items():
        found = walk(ours, name)
        assert torch.equal(found, stored), name
        assert torch.equal(functools.reduce(getattr, name.split("."), ours), stored), name
        seen += 1
    assert seen > 10


@pytest.mark.parametrize(("family", "ending"), [*BASES, *EVERY_HEAD])
def test_parameters_below_a_published_name_are_all_of_them(family: str, ending: str) -> None:
    """Views count what the upstream module counts."""
    theirs, ours = models(family, ending)
    for name, module in theirs.named_modules():
        if not name or not list(module.parameters()) or isinstance(module, nn.ModuleList):
            continue
        wanted = sum(p.numel() for p in module.parameters())
        view = walk(ours, name)
        found = {id(p): p for p in view.parameters()}
        if (family.startswith("t5") and "SelfAttention" in name) or (
            family in ENCODER_DECODERS and not name.count(".")
        ):
            continue  # there the shared tables belong to more than one module
        assert sum(p.numel() for p in found.values()) == wanted, name
        assert {id(p) for p in ours.parameters()} >= set(found), name


@pytest.mark.parametrize(("family", "ending"), [*BASES, *EVERY_HEAD])
def test_state_dicts_under_both_names(family: str, ending: str) -> None:
    theirs, ours = models(family, ending)
    fresh = type(ours)(ours.config)
    fresh.load_state_dict(theirs.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    again = type(ours)(ours.config)
    again.load_state_dict(ours.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="no_such"):
        fresh.load_state_dict({**theirs.state_dict(), "no_such.weight": torch.zeros(1)})
    given = dict(theirs.state_dict())
    del given[next(iter(given))]
    if family not in ENCODER_DECODERS:  # there the first name is a tied table's
        with pytest.raises(RuntimeError, match="Missing"):
            fresh.load_state_dict(given)


def test_names_that_the_tutorials_use() -> None:
    distilbert = models("distilbert", "ForSequenceClassification")[1]
    assert distilbert.distilbert.embeddings.word_embeddings is distilbert.get_input_embeddings()
    assert len(distilbert.distilbert.transformer.layer) == 3
    gpt2 = models("gpt2", "LMHeadModel")[1]
    assert gpt2.transformer.wte is gpt2.get_input_embeddings()
    assert gpt2.transformer.h[0].attn.c_attn.weight.shape == (32, 96)
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight
    t5 = models("t5", "ForConditionalGeneration")[1]
    assert t5.encoder.block[0].layer[0].SelfAttention.q.weight.shape == (32, 32)
    assert t5.shared is t5.get_input_embeddings()
    bert = models("bert", "ForSequenceClassification")[1]
    assert all(isinstance(layer.attention.self.query, nn.Linear) for layer in bert.bert.encoder.layer)
    assert bert.bert.encoder.layer[-1] is bert.bert.encoder.layer[2]
    bart = models("bart", "ForConditionalGeneration")[1]
    assert bart.model.encoder.embed_tokens is bart.model.shared

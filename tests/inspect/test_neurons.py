"""Neurons, probes and comparisons: each against what a plain computation or a planted answer says."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from inspect_models import gap, texts, tiny

from cutaway.errors import InputError
from cutaway.inspect import compare, exciting_texts, probe_layers, promoted_tokens, top_neurons
from cutaway.inspect.comparison import align_characters, align_tokens


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bert"])
@torch.no_grad()
def test_neurons(family: str) -> None:
    model, given = tiny(family), texts(family, (7, 4))
    prefix = "decoder." if family == "t5" else ""
    with model.record(f"{prefix}blocks.1.mlp.act") as r:
        model(**given)
    act = r[f"{prefix}blocks.1.mlp.act"]
    length = 5 if family == "t5" else 7
    top = top_neurons(model, given, top=3)
    first = act[0, :length]
    assert float(top.values[1, 0].abs()) == pytest.approx(float(first.abs().max()), abs=1e-12)
    assert torch.equal(top.values[1], first[top.positions[1], top.neurons[1]])
    excited = exciting_texts(model, [given, given], 1, 4, top=3)
    real = torch.ones(2, 5, dtype=torch.bool) if family == "t5" else given["attention_mask"].bool()
    peak = float(act[..., 4][real].max())
    assert float(excited.values[0]) == pytest.approx(peak, abs=1e-12) == float(excited.values[1])
    assert {int(t) % 2 for t in excited.texts[:2]} == {int(excited.texts[0]) % 2} and excited.texts.max() >= 2
    promoted = promoted_tokens(model, 1, 4, top=5)
    stack = model.base_model.decoder if family == "t5" else model.base_model
    change = model.get_output_embeddings().weight @ stack.blocks[1].mlp.down.weight[:, 4]
    change = change * model.architecture.output_scale
    assert torch.equal(promoted.raised_by, change.topk(5).values) and torch.equal(
        promoted.lowered[:1], change.argmin()[None]
    )
    with pytest.raises(InputError, match="neuron=99"):
        promoted_tokens(model, 1, 99)
    with pytest.raises(InputError, match="no output"):
        promoted_tokens(tiny("bert", "ForSequenceClassification"), 0, 0)


def test_a_probe_reads_what_is_there_and_its_control_does_not() -> None:
    """Whether a token is large is planted in its vector; whether the one before it was is not."""
    model, given = deepcopy(tiny("gpt2")), texts("gpt2", (9,) * 60)
    ids = given["input_ids"]
    labels = (ids > 33).long()
    before = torch.full_like(ids, -100)
    before[:, 1:] = labels[:, :-1]
    with torch.no_grad():
        model.get_input_embeddings().weight[34:, 0] += 6.0
    own = probe_layers(model, given, labels)
    assert float(own.accuracy[0]) == 1.0 and float(own.selectivity[0]) > 0.2
    found = probe_layers(model, given, before)
    assert float(found.accuracy[0]) < 0.7 and found.places[0] == "embed"
    assert torch.equal(found.selectivity, found.accuracy - found.control)
    pooled = probe_layers(model, given, labels[:, 0])
    assert 0.3 < pooled.majority < 0.8 and len(pooled.accuracy) == 4
    with pytest.raises(InputError, match="do not belong"):
        probe_layers(model, given, labels[:3])
    with pytest.raises(InputError, match="cannot be split"):
        probe_layers(model, given, labels, held_out=1.0)


def test_alignment() -> None:
    a, b = torch.tensor([5, 6, 7, 8]), torch.tensor([5, 9, 6, 7])
    assert align_tokens(a, b) == [(0, 0), (1, 2), (2, 3)]
    words = [(0, 0), (0, 3), (3, 9), (9, 11), (0, 0)]
    pieces = [(0, 3), (3, 5), (5, 9), (9, 10)]
    assert align_characters(words, pieces) == [(1, 0), (2, 2)]


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5", "bart"])
def test_two_texts(family: str) -> None:
    model, given = tiny(family), texts(family, (7,))
    other = {**given, "input_ids": given["input_ids"].clone()}
    other["input_ids"][0, 3] = 4
    same = compare(model, given, given)
    assert same.first is None and float(same.distance.nan_to_num().abs().max()) == 0
    found = compare(model, given, other)
    assert [p for p, _ in found.pairs] == [0, 1, 2, 4, 5, 6]
    if family == "gpt2":  # the changed token is seen by those after it, from the first attention on
        assert found.first == ("blocks.0.attn.out", 3) and float(found.distance[:, :3].abs().max()) < 1e-12
    place = found.places.index(("encoder." if family in ("t5", "bart") else "") + "blocks.1.resid")
    with torch.no_grad(), model.record(found.places[place]) as r:
        model(**given)
        model(**other)
    x, y = ([run for run in r.runs if found.places[place] in run][i][found.places[place]][0, 4] for i in (0, 1))
    assert float(found.distance[place, 3]) == pytest.approx(float((x - y).norm() / x.norm()), abs=1e-12)
    assert found.to_json()


def test_two_models() -> None:
    model, given = tiny("gpt2"), texts("gpt2", (6,))
    tuned = deepcopy(model)
    with torch.no_grad():
        tuned.base_model.blocks[1].mlp.up.weight[0] += 1.0
    found = compare(model, given, other_model=tuned)
    assert found.first == ("blocks.1.mlp.out", 0)
    before = found.distance[: found.places.index("blocks.1.mlp.out")]
    assert not before.any() and gap(found.cosine[0], torch.ones(6, dtype=torch.float64)) < 1e-12
    with pytest.raises(InputError, match="second"):
        compare(model, given)
    with pytest.raises(InputError, match="in common"):
        compare(model, given, {"input_ids": given["input_ids"] * 0 + 3})
    assert len(compare(model, given, {"input_ids": given["input_ids"] * 0 + 3}, spans=([(0, 1)], [(0, 1)])).pairs) == 1

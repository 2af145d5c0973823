"""What the page shows beside the run is what the measures give for that text."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from cutaway.inspect import evidence, explain, value_norms
from cutaway.inspect.explainer import load_model
from cutaway.inspect.page import page

TEXT = "a good film"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return str(tiny.classifier(tmp_path_factory.mktemp("models") / "classifier"))


def test_a_classifier(classifier):
    found = explain(TEXT, classifier, evidence=True)
    it, attention = found.evidence, found.attention["self"]
    assert it.answer == found.best.label
    assert [a.method for a in it.attributions] == ["integrated gradients", "input x gradient", "occlusion", "Shapley"]
    for a in it.attributions:
        assert a.scores.shape == (len(found.tokens),)
        assert a.value == pytest.approx(found.best.logit, abs=1e-4)
    best = it.attributions[0]
    assert abs(best.scores.sum() - (best.value - best.base)) <= best.residual * abs(best.value - best.base) + 1e-4
    np.testing.assert_allclose(it.rollout["self"].sum(-1), 1, atol=1e-5)
    model, tokenizer = load_model(classifier)
    norms = value_norms(model, tokenizer(TEXT, return_tensors="pt"), 1).heads[0].numpy()
    ours = attention.pattern[1] * it.value_norms["self"][1][:, None]
    np.testing.assert_allclose(ours, norms, atol=1e-5)
    assert "evidence" not in found.to_dict()
    assert page.render(found)


def test_a_decoder_is_asked_before_it_answers(tmp_path):
    found = explain("Today I", str(tiny.decoder(tmp_path)), max_new_tokens=3, evidence=True)
    it = found.evidence
    prompt = sum(not token.generated for token in found.tokens)
    assert len(it.attributions[0].scores) == prompt
    assert it.parts.total == pytest.approx(it.parts.logit, abs=1e-4)
    assert it.parts.logit == pytest.approx(found.answers[0].logit, abs=1e-4)
    assert len(it.lens.places) == found.model.layers + 1
    last = [it.lens.ids[-1][step.position - 1][0] for step in found.steps]
    assert last == [step.picked.id for step in found.steps]
    assert page.render(found)
    _branches_are_what_the_model_writes(found, load_model(str(tmp_path))[0])


def _branches_are_what_the_model_writes(found, model):
    """Each token's probability is what a plain pass over all that leads to it gives."""
    ways, target = found.evidence.branches, found.kind == "target"
    assert {way.step for way in ways} == set(range(len(found.steps)))
    ids = [token.id for token in (found.target if target else found.tokens)]
    for way in ways:
        first = found.steps[way.step].position
        run = [*ids[:first], *(token.id for token in way.tokens)]
        own = {"decoder_input_ids": torch.tensor([run])} if target else {}
        source = [token.id for token in found.tokens] if target else run
        with torch.no_grad():
            shares = model(input_ids=torch.tensor([source]), **own).logits[0].float().softmax(-1)
        for i, token in enumerate(way.tokens):
            assert token.probability == pytest.approx(float(shares[first + i - 1, token.id]), abs=1e-5)
            assert i == 0 or token.id == int(shares[first + i - 1].argmax())


def test_an_encoder_decoder(tmp_path):
    found = explain(TEXT, str(tiny.encoder_decoder(tmp_path)), max_new_tokens=3, evidence=True)
    it = found.evidence
    _branches_are_what_the_model_writes(found, load_model(str(tmp_path))[0])
    assert set(it.value_norms) == {"encoder", "decoder", "cross"}
    assert set(it.rollout) == {"encoder", "decoder"}
    assert len(it.attributions[0].scores) == len(found.tokens)
    assert len(it.lens.ids[0]) == len(found.target)
    assert it.value_norms["cross"].shape[-1] == len(found.tokens)
    assert page.render(found)


MADE = {
    "BertForSequenceClassification": {},
    "BertForTokenClassification": {},
    "BertForQuestionAnswering": {"context": "the film is great and not bad"},
    "BertForMultipleChoice": {"choices": ["great", "not good"]},
    "BertForMaskedLM": {},
    "BertModel": {},
}


@pytest.mark.parametrize("head", MADE)
def test_every_head_is_accounted_for(tmp_path, head):
    """By its tokens and by its parts, and what neither accounts for is said."""
    folder = tiny.classifier(tmp_path, labels=2, head=head)
    text = "a [MASK] film" if head.endswith("MaskedLM") else TEXT
    found = explain(text, str(folder), evidence=True, **MADE[head])
    it = found.evidence
    assert not it.missing.keys() & {"attribution", "parts"}
    assert it.parts.total == pytest.approx(it.parts.logit, abs=1e-4) and it.parts.residual < 1e-4
    assert it.parts.base + it.parts.values.sum() == pytest.approx(it.parts.total, abs=1e-4)
    assert any(name.startswith("blocks.0.attn.head.") for name in it.parts.names)
    for a in it.attributions:
        assert a.value == pytest.approx(it.parts.logit, abs=1e-4) and len(a.scores) == len(found.tokens)
    best = found.steps[0].picked if found.kind == "mask" else found.best
    if best is not None:
        assert it.answer == best.label and it.parts.logit == pytest.approx(best.logit, abs=1e-4)
        effect = found.head.measures["effect"]
        assert (effect > effect[found.head.layer, found.head.head]).sum() < evidence.TRIED_HEADS
        assert "switched off, it costs" in found.head.chosen
    assert page.render(found)


def test_the_head_that_is_asked_for_is_shown(tmp_path):
    folder = str(tiny.decoder(tmp_path))
    found = explain("Today I", folder, max_new_tokens=2, evidence=True)
    other = (found.head.head + 1) % found.head.pattern.shape[1]
    asked = explain("Today I", folder, max_new_tokens=2, evidence=True, layer=found.head.layer, head=other)
    assert (asked.head.head, asked.head.chosen) == (other, "asked for")
    prompt = sum(not token.generated for token in found.tokens)
    assert found.token == prompt - 1  # the token that writes the first new one


def test_shapley_values_take_a_bounded_time(classifier, monkeypatch):
    model, tokenizer = load_model(classifier)
    length, size = len(tokenizer(TEXT)["input_ids"]), int(model.num_parameters())
    for work, runs in ((1e15, 2**length), (size * length * 4 * length, 0), (size * length * 8 * length, 8 * length)):
        monkeypatch.setattr(evidence, "SHAPLEY_WORK", work)
        it = explain(TEXT, model, tokenizer, evidence=True).evidence
        found = [a for a in it.attributions if a.method == "Shapley"]
        assert [a.steps for a in found] == ([min(runs, 2**length)] if runs else [])
        assert runs or f"at least {8 * length} runs" in it.missing["shapley"]


def test_what_cannot_be_had_is_said(tmp_path, classifier, monkeypatch):
    monkeypatch.setattr(evidence, "ATTRIBUTED_TOKENS", 2)
    found = explain(TEXT, classifier, evidence=True)
    assert found.evidence.attributions == []
    assert "at most 2" in found.evidence.missing["attribution"]
    states = explain(TEXT, str(tiny.classifier(tmp_path, head="BertModel")), evidence=True)
    assert states.evidence.attributions == []
    assert states.evidence.lens is None and states.evidence.parts.total == pytest.approx(1, abs=1e-5)
    assert not torch.is_inference_mode_enabled()

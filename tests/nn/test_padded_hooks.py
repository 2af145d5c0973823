"""Hooks on gradients are shown what upstream's are shown of a padded batch."""

import pytest
import torch
from parity.pairs import TOLERANCE, gap, padded, pair, texts

from cutaway.nn import packed_batch

PLACES = {
    "bert": ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense", "bert.pooler.dense"),
    "llama": ("model.layers.0.mlp.down_proj", "model.layers.1.input_layernorm", "model.layers.0.self_attn.q_proj"),
    "gpt2": ("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc", "transformer.ln_f"),
}


def gradients(model, places, given, watch):
    """{place: what its hook was shown}, and the model's gradient of its first place."""
    seen = {}
    handles = [watch(model.get_submodule(place), place, seen) for place in places]
    model.zero_grad()
    model(**given, labels=torch.tensor([1, 0, 1])).loss.backward()
    for handle in handles:
        handle.remove()
    return seen


def after(module, place, seen):
    return module.register_full_backward_hook(
        lambda _, before, behind: seen.setdefault(place, []).append((before[0], behind[0]))
    )


def before(module, place, seen):
    return module.register_full_backward_pre_hook(lambda _, behind: seen.setdefault(place, []).append((behind[0],)))


@pytest.fixture(autouse=True)
def packs(monkeypatch):
    """Small batches are packed too."""
    monkeypatch.setattr(packed_batch, "SMALL", 0)


@pytest.mark.parametrize("watch", [after, before])
@pytest.mark.parametrize("family", sorted(PLACES))
def test_gradients_are_those_of_the_padded_batch(family, watch):
    theirs, ours = pair(family, "ForSequenceClassification", num_labels=2, pad_token_id=0)
    ids, mask = padded(texts((36, 21, 30)), "right", 0)
    given = {"input_ids": ids, "attention_mask": mask}
    expected, found = (gradients(model.eval(), PLACES[family], given, watch) for model in (theirs, ours))
    for place in PLACES[family]:
        assert len(found[place]) == len(expected[place]) == 1
        for a, b in zip(found[place][0], expected[place][0], strict=True):
            if b is not None:
                assert gap(a, b) < 10 * TOLERANCE, place
    assert not gradients(ours, (), given, watch)


def test_what_a_hook_gives_takes_the_gradients_place():
    theirs, ours = pair("bert", "ForSequenceClassification", num_labels=2)
    ids, mask = padded(texts((36, 21, 30)), "right", 0)
    place, below = "bert.encoder.layer.1.intermediate.dense", "bert.encoder.layer.0.output.dense"
    found = []
    for model in (theirs.eval(), ours.eval()):
        scale = torch.arange(1.0, 37)[None, :, None]

        def doubled(module, into, out, scale=scale):
            return (into[0] * scale,)

        with model.get_submodule(place).register_full_backward_hook(doubled):
            model(input_ids=ids, attention_mask=mask, labels=torch.tensor([1, 0, 1])).loss.backward()
        found.append(model.get_submodule(below).weight.grad.clone())
        plain = model.zero_grad() or model(input_ids=ids, attention_mask=mask, labels=torch.tensor([1, 0, 1]))
        plain.loss.backward()
        assert not torch.allclose(model.get_submodule(below).weight.grad, found[-1])
    assert gap(found[1], found[0]) < 10 * TOLERANCE

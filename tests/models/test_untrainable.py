"""A loop of one's own over weights that cannot learn: the error says so, and what can learn does."""

from __future__ import annotations

import pytest
import serve_app
import torch

from cutaway import AutoModelForCausalLM, AutoModelForSequenceClassification
from cutaway.errors import CheckpointError, ConfigError

IDS = {"input_ids": torch.tensor([[5, 6, 7, 8]])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(serve_app.llama(tmp_path_factory.mktemp("llama")))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_gradient_of_a_loss_is_an_error_that_says_what_to_do(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    before = model(**IDS, labels=IDS["input_ids"])
    model.train()
    out = model(**IDS, labels=IDS["input_ids"])
    assert torch.equal(out.loss, before.loss) and torch.equal(out["logits"], before.logits)
    for answer in (out.loss, out.logits.float().sum(), model(**IDS, return_dict=False)[0].float().sum()):
        with pytest.raises(ConfigError, match=r'add_adapter.*dtype="float32"'):
            answer.backward()
    with torch.no_grad():
        assert not model(**IDS, labels=IDS["input_ids"]).loss.requires_grad
    model.eval()
    assert not model(**IDS, labels=IDS["input_ids"]).loss.requires_grad


def test_what_can_learn_on_such_weights_does():
    model = AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment", dtype="int8").train()
    labels = torch.tensor([1])
    with pytest.raises(ConfigError, match="add_adapter"):
        model(**IDS, labels=labels).loss.backward()
    bias = next(p for name, p in model.named_parameters() if name.startswith("classifier") and name.endswith("bias"))
    bias.requires_grad_(True)
    model(**IDS, labels=labels).loss.backward()
    assert bias.grad is not None and bias.grad.abs().sum() > 0


def test_a_float_model_that_is_frozen_is_left_to_torch(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").train().requires_grad_(False)
    assert not model(**IDS, labels=IDS["input_ids"]).loss.requires_grad


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_state_dict_that_does_not_fit_writes_nothing(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    other = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").state_dict()
    norm = "model.norm.weight"
    other = {name: value + 1 for name, value in other.items()}
    with pytest.raises(CheckpointError, match=r"for model\..*weight, .* and \d+ more: .*add_adapter"):
        model.load_state_dict(other)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    changed = model.state_dict() | {norm: own[norm] + 1}  # its own weights, and a norm that is none of few bits
    model.load_state_dict(changed)
    assert torch.equal(model.state_dict()[norm], own[norm] + 1)
    model.load_state_dict({norm: own[norm]}, strict=False)
    assert torch.equal(model.state_dict()[norm], own[norm])

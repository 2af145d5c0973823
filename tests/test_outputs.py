"""Outputs by key, by attribute, by index; what is absent says how to ask for it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from cutaway import modeling_outputs
from cutaway.errors import InputError, MissingOutputError
from cutaway.outputs import BaseModelOutput, Layers, ModelOutput, SequenceClassifierOutput, strict_outputs


def test_three_ways_to_read() -> None:
    x, y = torch.zeros(2, 3), torch.ones(2, 3)
    out = SequenceClassifierOutput(logits=x, hidden_states=(y,))
    assert out.logits is out["logits"] is out[0] and out[1] is out.hidden_states
    assert list(out.keys()) == ["logits", "hidden_states"] == list(out) and len(out) == 2
    assert "loss" not in out and "logits" in out and out.get("attentions") is None
    assert [v is w for v, w in zip(out.to_tuple(), out.values(), strict=True)] == [True, True]
    assert isinstance(out, dict) and dict(out).keys() == {**out}.keys() == {"logits", "hidden_states"}
    assert dict(out.items())["logits"] is x and out[:1] == (x,)
    assert repr(out).startswith("SequenceClassifierOutput(logits=")
    (only,) = BaseModelOutput(last_hidden_state=x).to_tuple()
    assert only is x


def test_absent_fields_are_none() -> None:
    out = SequenceClassifierOutput(logits=torch.zeros(1))
    assert out.loss is None and out.attentions is None and out.hidden_states is None
    assert "attentions" not in out and out.get("attentions") is None and hasattr(out, "attentions")
    with pytest.raises(MissingOutputError, match="output_hidden_states=True"):
        out["hidden_states"]  # a key that is not there is an error, as in any dictionary
    with pytest.raises(KeyError):
        out["no_such"]
    with pytest.raises(AttributeError):
        out.no_such  # noqa: B018
    with pytest.raises(IndexError):
        out[3]


def test_strict_outputs_say_how_to_ask() -> None:
    out = SequenceClassifierOutput(logits=torch.zeros(1))
    with strict_outputs():
        assert out.loss is None  # a run without labels is no mistake
        with pytest.raises(MissingOutputError, match="output_attentions=True"):
            out.attentions  # noqa: B018
        with strict_outputs(False):
            assert out.attentions is None
        with pytest.raises(MissingOutputError, match="output_hidden_states=True"):
            out.hidden_states  # noqa: B018
        assert getattr(out, "attentions", "absent") == "absent" and not hasattr(out, "hidden_states")
    assert out.attentions is None
    stays = strict_outputs()
    try:
        with pytest.raises(MissingOutputError):
            out.attentions  # noqa: B018
    finally:
        strict_outputs(False)
    assert isinstance(stays, strict_outputs)


def test_fields_can_be_set() -> None:
    out = SequenceClassifierOutput(attentions=(1,))
    out["logits"] = torch.zeros(1)
    out.loss = torch.ones(())
    assert list(out) == ["loss", "logits", "attentions"] and out[0] is out.loss  # in the order of the fields
    out.loss = None
    assert list(out) == ["logits", "attentions"]
    out.update(hidden_states=(2,))
    assert out.hidden_states == (2,) and list(out) == ["logits", "hidden_states", "attentions"]
    with pytest.raises(InputError, match="no_such"):
        out["no_such"] = 1
    with pytest.raises(InputError, match="fields that it was made with"):
        out.pop("logits")
    made = SequenceClassifierOutput({"logits": 1, "attentions": 2})  # as accelerate makes one of changed parts
    assert made.loss is None and made.logits == 1 and list(made) == ["logits", "attentions"]
    assert (out | {"x": 1}).keys() == {*out, "x"}
    other = out.copy()
    other.logits = None
    assert "logits" in out and "logits" not in other


def test_some_layers() -> None:
    layers = Layers({1: "one", 3: "three"}, 4, "attentions")
    assert layers[1] == "one" and layers[-1] == "three" and layers[-3] == "one" and sorted(layers) == [1, 3]
    with pytest.raises(MissingOutputError, match=r"\[1, 3\]"):
        layers[0]
    with pytest.raises(MissingOutputError):
        layers[7]
    for other in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        assert other == layers and other[-1] == "three"


def test_copies_keep_everything() -> None:
    out = SequenceClassifierOutput(loss=torch.tensor(1.0), logits=torch.arange(3.0))
    for other in (copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert type(other) is type(out) and other.keys() == out.keys() and torch.equal(other.logits, out.logits)


def test_the_names_that_upstream_exports() -> None:
    for name in modeling_outputs.__all__:
        assert issubclass(getattr(modeling_outputs, name), ModelOutput)

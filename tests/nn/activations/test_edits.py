"""Edits by address: what follows is what a plain computation gives, and nothing stays when the `with` ends."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from parity.pairs import FAMILIES, gap, inputs, load
from parity.tiny_models import make
from torch import Tensor

import cutaway
from cutaway.errors import AddressError, InputError
from cutaway.inspect import Edit
from cutaway.nn import packed_batch
from cutaway.nn.call_context import scopes_of

EXACT = 1e-10  # float64


@pytest.fixture(params=[0, 128], ids=["packed", "small"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", request.param)


@cache
def model_of(family: str, ending: str = "Model") -> Any:
    return load(make(family, ending), ending).double()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_every_place_can_be_put_back(family: str) -> None:
    """A run on other tokens gives the first run's result once a whole layer is put back, and its own on exit."""
    model, given = model_of(family), inputs(family, (7, 4, 5))
    other = {
        k: v.flip(0).flip(1) if k == "input_ids" and "attention_mask" not in given else v for k, v in given.items()
    }
    other["input_ids"] = (given["input_ids"] * 7 + 3) % 90 + 5
    mask = given.get("decoder_attention_mask", given.get("attention_mask")).bool()
    with model.record("*") as clean:
        want = model(**given).last_hidden_state[mask]
    plain = model(**other).last_hidden_state
    assert gap(plain[mask], want) > 0.01
    decoder = "decoder." if model.is_encoder_decoder else ""
    layers = len(model.decoder.blocks if decoder else model.blocks)
    for place in ("embed", "blocks.0.resid", f"blocks.{layers - 1}.resid", "final_norm"):
        if decoder + place not in model.addresses():
            continue
        edits = {decoder + place: clean}
        if decoder:
            edits |= {f"decoder.blocks.{i}.cross.{part}": clean for i in range(layers) for part in "kv"}
        with model.edit(edits):
            assert gap(model(**other).last_hidden_state[mask], want) < EXACT, place
    for part in ("q", "k", "v", "scores", "pattern", "z", "out", "head.*.out"):
        with model.edit({f"{decoder}blocks.0.attn.{part}": clean}), model.record(f"{decoder}blocks.0.*") as r:
            model(**other)
        shown = [a for a in r if a.startswith(f"{decoder}blocks.0.attn.{part.split('.')[0]}")]
        for a in shown:
            assert torch.equal(r[a], clean[a]), a
        if part in ("z", "out", "head.*.out"):
            assert gap(r[f"{decoder}blocks.0.attn.out"], clean[f"{decoder}blocks.0.attn.out"]) < EXACT, part
    assert torch.equal(model(**other).last_hidden_state, plain)
    assert not scopes_of(model.base_model)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5-gated", "bart"])
@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_what_follows_is_computed_from_the_change(family: str) -> None:
    """Queries times two: scores follow. A pattern set: z follows. Inner numbers set: the layer's result follows."""
    model, given = model_of(family), inputs(family, (6, 3))
    at = "decoder.blocks.1." if model.is_encoder_decoder else "blocks.1."
    stack = model.decoder if model.is_encoder_decoder else model
    mask = given.get("decoder_attention_mask", given.get("attention_mask")).bool()
    with model.record(f"{at}*") as plain:
        model(**given)
    with model.edit({f"{at}attn.q": lambda q: q.mul_(2.0)}), model.record(f"{at}*") as r:
        model(**given)
    assert torch.equal(r[f"{at}attn.q"], plain[f"{at}attn.q"] * 2)
    heads, shared = r[f"{at}attn.pattern"].shape[1], r[f"{at}attn.v"].shape[2]

    def mixed(pattern: Tensor) -> Tensor:
        return torch.einsum("bhqk,bkhd->bqhd", pattern, r[f"{at}attn.v"].repeat_interleave(heads // shared, 2))

    assert gap(r[f"{at}attn.pattern"].transpose(1, 2)[mask], plain[f"{at}attn.pattern"].transpose(1, 2)[mask]) > 0.001
    uniform = torch.rand_like(plain[f"{at}attn.pattern"]) * mask[:, None, None, :]
    with model.edit({f"{at}attn.pattern": uniform}), model.record(f"{at}*") as r:
        model(**given)
    assert gap(mixed(uniform)[mask], r[f"{at}attn.z"][mask]) < EXACT
    block = stack.blocks[1]
    for part, after in (("pre", "act"), ("act", "out")):
        with model.edit({f"{at}mlp.{part}": 0.5}), model.record(f"{at}*") as r:
            model(**given)
        if after == "out":
            want = block.mlp.down(torch.full_like(r[f"{at}mlp.act"], 0.5))
            assert gap(r[f"{at}mlp.out"][mask], want[mask]) < EXACT
        elif not stack.spec.feed_forward.gated:
            act = r[f"{at}mlp.act"][mask]
            assert gap(act, act[:1, :1].expand_as(act)) < EXACT
    with model.edit({f"{at}attn.scores": 0.0}), model.record(f"{at}*") as r:
        model(**given)
    hidden = plain[f"{at}attn.scores"] == -torch.inf
    assert not r[f"{at}attn.pattern"][hidden].any()  # what the mask hides stays hidden


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_a_head_off_is_its_mixed_values_off() -> None:
    model, given = model_of("gpt2"), inputs("gpt2", (6, 3))
    with model.edit({"blocks.1.attn.head.2.out": 0}):
        a = model(**given).last_hidden_state
    with model.edit({"blocks.1.attn.z": Edit(0, heads=2)}):
        b = model(**given).last_hidden_state
    with model.edit({"blocks.1.attn.head.*.out": 0}), model.record("blocks.1.attn.out") as r:
        model(**given)
    mask = given["attention_mask"].bool()
    assert torch.equal(a, b) and gap(a, model(**given).last_hidden_state) > 0.01
    bias = model.blocks[1].attn.o.bias
    assert torch.equal(r["blocks.1.attn.out"][mask], bias.expand_as(r["blocks.1.attn.out"][mask]))


@torch.no_grad()
def test_rows_positions_and_heads() -> None:
    model, given = model_of("gpt2"), inputs("gpt2", (6, 6, 6))
    with model.record("*") as plain:
        model(**given)
    edits = {
        "blocks.0.resid": [
            Edit(1.0, rows=0, positions=[2, -1]),
            Edit(lambda x: x + 2, rows=[1, 2], positions=slice(1, 3)),
        ],
        "blocks.1.attn.pattern": Edit(0.0, heads=1, positions=3, rows=1),
        "blocks.2.attn.z": Edit(torch.ones(2, 8), heads=slice(1, 3)),
    }
    with model.edit(edits), model.record("*") as r:
        model(**given)
    want = plain["blocks.0.resid"].clone()
    want[0, [2, 5]] = 1.0
    want[1:, 1:3] += 2
    assert torch.equal(r["blocks.0.resid"], want)
    assert not r["blocks.1.attn.pattern"][1, 1, 3].any()
    assert int((r["blocks.1.attn.pattern"].sum(-1) < 0.5).sum()) == 1
    assert bool((r["blocks.2.attn.z"][:, :, 1:3] == 1).all())


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@torch.no_grad()
def test_generation_is_edited_pass_by_pass(family: str) -> None:
    """Each written token is the edited model's choice on the whole text; positions count on through the text."""
    ending = "LMHeadModel" if family == "gpt2" else "ForConditionalGeneration"
    model, given = model_of(family, ending), inputs(family, (6, 3), side="left")
    at = "decoder.blocks.1." if family == "t5" else "blocks.1."
    given = {k: v for k, v in given.items() if not k.startswith("decoder")}
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    changes = {f"{at}attn.head.1.out": 0, f"{at}mlp.out": Edit(3.0, positions=slice(2 if family == "t5" else 7, None))}
    changes[f"{at}attn.scores"] = Edit(lambda s: s + 1.5, positions=slice(2, None), heads=0)
    changes[f"{at}attn.pattern"] = lambda p: p * torch.linspace(0.5, 1.5, 12)[: p.shape[-1]].to(p)
    if family == "t5":
        changes |= {f"{at}cross.v": lambda v: v * 2}
    with model.record("logits") as before:
        plain = model.generate(**given, **settings)
    with model.edit(changes), model.record(f"{at}mlp.out", "logits") as r:
        ids = model.generate(**given, **settings)
    assert torch.equal(model.generate(**given, **settings), plain)
    steps, unchanged = (torch.cat([run["logits"] for run in x.runs if "logits" in run], 1) for x in (r, before))
    assert steps.shape[1] == 4 and gap(steps, unchanged) > 0.001
    if family == "t5":
        whole, places = {**given, "decoder_input_ids": ids}, slice(0, 4)
    else:
        mask = torch.cat((given["attention_mask"], torch.ones(2, 4, dtype=torch.int64)), 1)
        whole, places = {"input_ids": ids, "attention_mask": mask}, slice(5, 9)
    with model.edit(changes):
        assert gap(steps, model(**whole).logits[:, places]) < EXACT


@torch.no_grad()
def test_a_recording_of_several_passes_is_replayed() -> None:
    model, given = model_of("gpt2", "LMHeadModel"), inputs("gpt2", (5,))
    other = {"input_ids": given["input_ids"].flip(1)}
    settings = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    with model.record("blocks.2.resid", "logits") as r:
        want = model.generate(**given, **settings)[:, 5:]
    with model.edit({"blocks.2.resid": r}):
        assert torch.equal(model.generate(**other, **settings)[:, 5:], want)
        with pytest.raises(InputError, match="3 passes"):
            model.generate(**other, max_new_tokens=4, min_new_tokens=4)
    with model.edit({"logits": Edit(50.0, positions=slice(5, None))}), model.record("logits") as edited:
        model.generate(**given, **settings)
    assert [bool((run["logits"] == 50).all()) for run in edited.runs] == [False, True, True]


@pytest.mark.parametrize("ending", ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"])
def test_edited_logits_make_the_loss(ending: str) -> None:
    model, given = model_of("bert", ending), inputs("bert", (5, 3))
    labels = {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 1])}
    if ending != "ForQuestionAnswering":
        labels = {"labels": torch.tensor([0, 1]) if "Sequence" in ending else torch.zeros(2, 5, dtype=torch.int64)}
    with model.edit({"logits": 0.0}):
        out = model(**given, **labels)
    n = {"ForQuestionAnswering": 0, "ForSequenceClassification": 2, "ForTokenClassification": 2}[ending]
    if n:
        assert float(out.loss) == pytest.approx(float(torch.log(torch.tensor(float(n)))), abs=1e-6)
        assert not out.logits.any()
    else:
        assert not out.start_logits.any()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("small")
def test_gradients_of_whatever_is_recorded(family: str) -> None:
    """The gradient of a recorded value is the slope of the result when an edit moves that value."""
    model, given = model_of(family), inputs(family, (5, 3))
    width = getattr(model.config, "word_embed_proj_dim", None) or 32
    weights = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = given.get("decoder_attention_mask", given.get("attention_mask"))[..., None]

    def result() -> Tensor:
        return (model(**given).last_hidden_state * weights * mask).sum()

    with torch.no_grad():
        plain = result()
    with model.record("*") as r:
        value = result()
    assert gap(value, plain) < 1e-12
    value.backward()
    direction = torch.Generator().manual_seed(1)
    block = "decoder.blocks.0." if model.is_encoder_decoder else "blocks.0."
    parts = ["attn.q", "attn.k", "attn.v", "attn.pattern", "attn.z", "attn.head.1.out", "attn.out", "resid_mid"]
    places = [block + p for p in [*parts, "mlp.pre", "mlp.act", "mlp.out", "resid"]]
    places += [a for a in (f"{block}cross.pattern", f"{block}cross.k", "encoder.blocks.0.attn.pattern") if a in r]
    for address in places:
        step = torch.randn(r[address].shape, generator=direction, dtype=torch.float64)
        slope = float((r.grad(address) * step).sum())
        found = []
        with torch.no_grad():
            for sign in (1e-5, -1e-5):
                with model.edit({address: lambda v, s=sign, d=step: v + s * d}):
                    found.append(float(result()))
        assert slope == pytest.approx((found[0] - found[1]) / 2e-5, rel=1e-4, abs=1e-5), address


def test_training_with_edits_and_recorded_gradients() -> None:
    model = deepcopy(model_of("gpt2", "LMHeadModel")).train()
    given = inputs("gpt2", (6, 4))
    with model.edit({"blocks.0.attn.head.0.out": 0}), model.record("blocks.*.attn.pattern", "logits") as r:
        loss = model(**given, labels=given["input_ids"]).loss
        loss.backward()
    o = model.base_model.blocks[0].attn.o.weight.grad
    assert not o[:, :8].any() and o[:, 8:].any()
    assert all(r.grad(a).shape == r[a].shape and r.grad(a).any() for a in r)
    with torch.no_grad(), model.record("logits") as r:
        model(**given)
    with pytest.raises(InputError, match="no gradient"):
        r.grad("logits")


def test_wrong_edits() -> None:
    model, given = model_of("bert"), inputs("bert", (5, 3))
    with pytest.raises(AddressError, match=r"blocks\.0\.attn\.pattern"), model.edit({"blocks.0.attn.patern": 0}):
        pass
    with pytest.raises(InputError, match="give a number"), model.edit({"embed": "zero"}):
        pass
    wrong = [
        (torch.zeros(3, 5), r"\[3, 5\].*\[2, 5, 32\]"),
        (lambda x: x[:1, :1, :1].expand(3, 5, 32), r"\[3, 5, 32\]"),
        (lambda x: None, "must return a tensor"),
        (Edit(0, rows=2), r"0\.\.1"),
        (Edit(0, heads=1), "no heads"),
        (Edit(0, rows=[0.5]), "whole numbers"),
    ]
    for value, message in wrong:
        with pytest.raises(InputError, match=message), model.edit({"embed": value}):
            model(**given)
        assert not scopes_of(model)
    with pytest.raises(InputError, match="not in any pass"), model.edit({"embed": Edit(0, positions=9)}):
        model(**given)
    with pytest.raises(InputError, match="no positions"), model.edit({"pooler": Edit(0, positions=0)}):
        model(**given)
    with model.record("embed") as r:
        model(input_ids=given["input_ids"][:, :4])
    with pytest.raises(InputError, match=r"recording.*\[2, 4, 32\]"), model.edit({"embed": r}):
        model(**given)
    with pytest.raises(AddressError, match="not asked for"), model.edit({"blocks.0.resid": r}):
        model(**given)
    assert cutaway.Edit is Edit

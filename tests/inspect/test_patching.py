"""Patching restores everything or nothing where it must; ablation, steering and tracing are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from inspect_models import gap, texts, tiny

from cutaway.errors import InputError
from cutaway.inspect import (
    Target,
    ablate,
    activation_patching,
    causal_trace,
    path_patching,
    steering_vector,
)
from cutaway.inspect.tower import logits_of

FAMILIES = ["gpt2", "llama", "bert", "t5", "bart"]


def two(family: str, at: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """A text, and the same with another token at one place."""
    clean = texts(family, (6,))
    other = {**clean, "input_ids": clean["input_ids"].clone()}
    other["input_ids"][0, at] = (int(clean["input_ids"][0, at]) + 20) % 50 + 5
    return clean, other


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_layer_restores_everything(family: str) -> None:
    model = tiny(family)
    clean, other = two(family)
    place = "encoder.blocks.*.resid" if family in ("t5", "bart") else "blocks.*.resid"
    target = Target(index=3, against=8)
    whole = activation_patching(model, clean, other, [place], target, each_position=False)
    assert gap(whole.effect, torch.ones_like(whole.effect)) < 1e-9
    grid = activation_patching(model, clean, other, [place], target)
    assert grid.effect.shape == (len(grid.places), 6)
    if family in ("gpt2", "llama"):
        assert float(grid.effect[:, :2].abs().max()) < 1e-9  # before the edit
        assert float(grid.effect[-1, -1]) == pytest.approx(1, abs=1e-9)  # the target reads this state
    with torch.no_grad(), model.record(grid.places[0]) as r:
        logits_of(model, clean)
    with (
        torch.no_grad(),
        model.edit({grid.places[0]: lambda v: torch.cat((v[:, :3], r[grid.places[0]][:, 3:4], v[:, 4:]), 1)}),
    ):
        value = float(grid.target.of(logits_of(model, other)))
    want = (value - grid.corrupted) / (grid.clean - grid.corrupted)
    assert float(grid.effect[0, 3]) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_paths(family: str) -> None:
    model = tiny(family)
    clean, other = two(family)
    last = "blocks.1.resid" if family == "llama" else "blocks.2.resid"
    assert path_patching(model, clean, other, last, [last]).effect == pytest.approx(1, abs=1e-9)
    assert path_patching(model, clean, other, "blocks.1.attn.head.0.out", ["blocks.0.attn.q"]).effect == pytest.approx(
        0, abs=1e-9
    )
    # the direct paths of the embedding and of all layers' results: the stream at the end is their sum
    direct = path_patching(model, clean, other, "embed", [last]).effect
    with torch.no_grad():
        with model.record("*attn.out", "*mlp.out", "embed") as a:
            logits_of(model, clean)
        with model.record(last, "embed") as b:
            logits_of(model, other)
        target = activation_patching(model, clean, other, [last], each_position=False)
        with model.edit({last: b[last] + a["embed"] - b["embed"]}):
            want = (float(target.target.of(logits_of(model, other))) - target.corrupted) / (
                target.clean - target.corrupted
            )
    assert direct == pytest.approx(want, abs=1e-9)


def test_patching_needs_two_texts_that_differ_in_their_answer() -> None:
    model = tiny("gpt2")
    clean, other = two("gpt2")
    with pytest.raises(InputError, match="same length"):
        activation_patching(model, clean, texts("gpt2", (5,)))
    with pytest.raises(InputError, match="same answer"):
        activation_patching(model, clean, clean, target=Target(index=3))
    assert activation_patching(model, clean, other, ["blocks.0.attn.head.*.out"]).to_json()


@pytest.mark.parametrize("family", FAMILIES)
def test_ablations(family: str) -> None:
    model, clean = tiny(family), texts(family, (6,))
    others = texts(family, (6, 6, 6), seed=4)
    zero = ablate(model, clean)
    assert len(zero.places) == len(zero.effect) == sum(".attn.head." in a for a in model.addresses())
    place = zero.places[0]
    with torch.no_grad(), model.edit({place: 0}):
        assert float(zero.effect[0]) == pytest.approx(
            float(zero.target.of(logits_of(model, clean))) - zero.value, abs=1e-12
        )
    # replaced by its own value, and by its own text's mean where all positions are equal, nothing changes
    same = ablate(model, clean, kind="resample", others=clean)
    assert float(same.effect.abs().max()) < 1e-9
    assert ablate(model, clean, [place], kind="mean", others=others).effect.shape == (1,)
    with pytest.raises(InputError, match="others"):
        ablate(model, clean, kind="mean")


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_causal_traces(family: str) -> None:
    model, clean = tiny(family), texts(family, (6,))
    prefix = "encoder." if family == "t5" else ""
    trace = causal_trace(model, clean, [2], [f"{prefix}embed", f"{prefix}blocks.*.resid"], draws=3)
    assert trace.restored.shape == (len(trace.places), 6) and trace.clean != trace.noised
    assert float(trace.restored[0, 2]) == pytest.approx(trace.clean, abs=1e-9)  # the only place that was blurred
    assert float(trace.restored[0, 4]) == pytest.approx(trace.noised, abs=1e-9)
    if family == "gpt2":
        assert float(trace.restored[-1, -1]) == pytest.approx(trace.clean, abs=1e-9)


@pytest.mark.parametrize("last", [True, False])
@torch.no_grad()
def test_steering(last: bool) -> None:
    model, a, b = tiny("gpt2"), texts("gpt2", (5, 3)), texts("gpt2", (4, 6), seed=2)
    vector = steering_vector(model, a, b, 1, last=last)
    assert gap(steering_vector(model, b, a, 1, last=last).vector, -vector.vector) < 1e-12
    with model.record("blocks.1.resid") as plain:
        before = model(**a).logits
    with vector.steer(model, 3.0), model.record("blocks.1.resid") as r:
        assert not torch.equal(model(**a).logits, before)
    real = a["attention_mask"].bool()
    assert gap(r["blocks.1.resid"][real] - plain["blocks.1.resid"][real], (3 * vector.vector).expand(8, -1)) < 1e-9
    assert torch.equal(model(**a).logits, before)

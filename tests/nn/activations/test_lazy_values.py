"""What is kept packed and laid out when it is read: the values of the run, whatever happens after it."""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from inspect_models import FAMILIES, gap, texts, tiny
from torch import Tensor

from cutaway.nn import packed_batch


@pytest.fixture(autouse=True)
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", 0)


LENGTHS = (9, 4, 9, 12, 2)


def everything(model: Any, given: dict[str, Tensor], *addresses: str) -> Any:
    with torch.inference_mode(), model.record(*addresses or ("*",)) as r:
        model(**given)
    return r


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_value_is_the_same_alone_among_all_and_with_gradients(family: str, dtype: torch.dtype) -> None:
    """Kept as the engine's own tensor, copied, or computed when it is read; with gradients all is laid out at once."""
    model, given = deepcopy(tiny(family)).to(dtype), texts(family, LENGTHS)
    close = 1e-12 if dtype == torch.float64 else 1e-4
    r = everything(model, given)
    with model.record("*") as traced:
        model(**given)
    for address in model.addresses():
        alone = everything(model, given, address)
        assert torch.equal(alone[address], r[address]), address
        assert gap(r[address].nan_to_num(neginf=-9.0), traced[address].nan_to_num(neginf=-9.0)) < close, address
        assert r[address] is r[address]  # what somebody writes into it stays


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_values_are_those_of_the_run_whatever_the_weights_become(family: str) -> None:
    model, given = deepcopy(tiny(family)), texts(family, LENGTHS)
    before, after = everything(model, given), everything(model, given)
    before = {a: before[a] for a in before}
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)
    for address, value in before.items():
        assert torch.equal(after[address], value), address


def test_a_hook_that_writes_into_what_it_is_shown_changes_no_recording() -> None:
    model, given = tiny("bert"), texts("bert", LENGTHS)
    before = everything(model, given)
    base = model.base_model
    # the layers that read z and the feed-forward layer's inside, and the layers that give them
    hooks = [m.register_forward_pre_hook(lambda _, args: args[0].zero_()) for m in (base.blocks[1].attn.o,)]
    hooks += [base.blocks[1].mlp.register_forward_hook(lambda _, args, out: out.zero_())]
    try:
        after = everything(model, given)
    finally:
        for hook in hooks:
            hook.remove()
    for part in ("attn.z", "attn.head.0.out", "attn.pattern", "mlp.out"):
        a, b = (r[f"blocks.1.{part}"] for r in (before, after))
        if part == "mlp.out":  # it follows from the zeros
            assert not torch.equal(a, b) and b.any()
        else:
            assert torch.equal(a, b), part


def test_everything_takes_the_memory_of_the_real_tokens() -> None:
    """In a batch that is mostly padding, a pickled recording that nobody has read is a part of one that was."""
    model = tiny("bert")
    given = texts("bert", (30, 3, 3, 3, 3, 3))
    r = everything(model, given)
    small = len(pickle.dumps(r.runs))
    for address in r:
        assert r[address].shape[0] == 6
    assert small < 0.4 * len(pickle.dumps(r.runs))
    again = pickle.loads(pickle.dumps(everything(model, given).runs))[0]
    assert all(torch.equal(again[a], r[a]) for a in r)


def test_recorders_of_one_pass_share_what_was_kept() -> None:
    model, given = tiny("gpt2"), texts("gpt2", LENGTHS)
    with torch.inference_mode(), model.record("blocks.*.resid") as a, model.record("blocks.1.*") as b:
        out = model(**given, output_hidden_states=True)
    assert torch.equal(a["blocks.1.resid"], b["blocks.1.resid"])
    assert torch.equal(a["blocks.1.resid"], out.hidden_states[2])
    assert "blocks.0.resid" in a and "blocks.0.resid" not in b and len(a.runs[0]) == 3

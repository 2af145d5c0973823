"""Dropout by 16 random bits a number: its rate, its scale, its gradient, and where its numbers come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from training_samples import model, rows

import cutaway
from cutaway.nn import attention_dropout
from cutaway.nn.attention_dropout import attention_with_dropout
from cutaway.nn.dropout import dropout

LARGE = (64, 3, 100)
RATE = 0.1
TAKEN = 6554 / 65536  # the rate to the next 1/65,536


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.001])
def test_each_number_goes_with_the_rate_and_the_mean_stays(rate: float) -> None:
    found = dropout(torch.ones(1_000_000), rate)
    taken = round(rate * 65536) / 65536
    gone = found == 0
    for lane in (gone, *gone.view(-1, 4).unbind(1)):  # four numbers share a draw
        assert abs(float(lane.double().mean()) - taken) < 5 * math.sqrt(taken * (1 - taken) / lane.numel())
    assert torch.equal(found[~gone], torch.full_like(found[~gone], 1 / (1 - taken)))


def test_neighbours_do_not_depend_on_each_other() -> None:
    gone = (dropout(torch.ones(4_000_000), 0.5) == 0).double() - 0.5
    for step in (1, 2, 3, 4, 5, 8):
        assert abs(float((gone[step:] * gone[:-step]).mean()) * 4) < 5 / math.sqrt(len(gone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_goes_where_the_number_went(dtype: torch.dtype) -> None:
    x = torch.randn(LARGE, dtype=dtype).transpose(0, 1).requires_grad_()
    weight = torch.randn(3, 64, 100, dtype=dtype)
    found = dropout(x, RATE)
    assert found.dtype == dtype and found.shape == x.shape
    (grad,) = torch.autograd.grad(found, x, weight)
    kept = (found != 0).to(dtype)
    assert torch.equal(found, (x * kept) * (1 / (1 - TAKEN)))
    assert torch.equal(grad, (weight * (1 / (1 - TAKEN))) * kept)


def test_it_can_be_derived_twice() -> None:
    x = torch.randn(LARGE, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    (first,) = torch.autograd.grad((dropout(x, RATE) ** 3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.manual_seed(1)
    scale = dropout(torch.ones_like(x), RATE)
    assert torch.allclose(second, 6 * scale**3 * x.detach())


def test_numbers_come_from_torchs_generator() -> None:
    x = torch.randn(LARGE)
    torch.manual_seed(3)
    first, state = dropout(x, RATE), torch.get_rng_state()
    second = dropout(x, RATE)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, RATE), second)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, RATE), first)


def test_nothing_is_drawn_where_nothing_is_dropped() -> None:
    x, before = torch.randn(LARGE), torch.get_rng_state()
    assert dropout(x, RATE, training=False) is x and dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)
    assert not dropout(x, 1.0).any()
    small = torch.randn(10)
    torch.manual_seed(0)
    here = dropout(small, 0.5)
    torch.manual_seed(0)
    assert torch.equal(here, F.dropout(small, 0.5))


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What attention multiplied its weights by."""
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor, rate: float) -> torch.Tensor:
        state = torch.get_rng_state()
        seen.append(dropout(torch.ones_like(x), rate).detach())
        torch.set_rng_state(state)
        return dropout(x, rate)

    monkeypatch.setattr(attention_dropout, "dropout", watched)
    return seen


MASKS: dict[str, Any] = {
    "all": None,
    "causal": None,
    "keys": torch.arange(40)[None, None, None] < torch.tensor([40, 25, 7])[:, None, None, None],
    "bias": torch.randn(4, 40, 40, generator=torch.Generator().manual_seed(5)),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("heads", [4, 2])
def test_attention_is_its_definition_with_the_weights_dropped(masks: list[torch.Tensor], kind: str, heads: int) -> None:
    q, k, v = (torch.randn(3, n, 40, 8, dtype=torch.float64, requires_grad=True) for n in (4, heads, heads))
    found = attention_with_dropout(q, k, v, MASKS[kind], kind == "causal", 0.3, RATE)
    assert found is not None and len(masks) == 1 and not masks[0].all()
    mask = torch.ones(40, 40, dtype=torch.bool).tril() if kind == "causal" else MASKS[kind]
    scores = torch.einsum("nhad,nhbd->nhab", q, k.repeat_interleave(4 // heads, 1)) * 0.3
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
    wanted = torch.einsum("nhab,nhbd->nahd", scores.softmax(-1) * masks[0], v.repeat_interleave(4 // heads, 1))
    wanted = wanted.flatten(0, 1)
    assert torch.allclose(found, wanted)
    weight = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), weight), torch.autograd.grad(wanted, (q, k, v), weight), strict=True
    ):
        assert torch.allclose(ours, theirs)


def test_a_query_that_sees_nothing_is_left_to_the_kernel() -> None:
    q = torch.randn(2, 4, 40, 8)
    mask = torch.ones(2, 1, 40, 40, dtype=torch.bool)
    mask[1, :, 3] = False
    assert attention_with_dropout(q, q, q, mask, False, 1.0, RATE) is None


@pytest.mark.parametrize(
    "name", ["BertForMaskedLM", "GPT2LMHeadModel", "T5ForConditionalGeneration", "BartForConditionalGeneration"]
)
@pytest.mark.parametrize("half", [False, True])
def test_models_drop_attention_in_training_alone(masks: list[torch.Tensor], name: str, half: bool) -> None:
    rates = {"attention_probs_dropout_prob": 0.3, "attn_pdrop": 0.3, "attention_dropout": 0.3, "dropout_rate": 0.3}
    config = model(name).config
    for field, rate in rates.items():
        if hasattr(config, field):
            setattr(config, field, rate)
    made = getattr(cutaway, name)(config)
    batch = cutaway.default_data_collator(rows(name, 6, pad=config.pad_token_id or 0))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        made.eval()(**batch)
        assert not masks
        made.train()(**batch).loss.backward()
    assert masks
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)

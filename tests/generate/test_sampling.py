"""cutaway.generate.sampling: each formula, its edges, and the distribution of what is drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from transformers.generation import logits_process as upstream

from cutaway.generate import sampling
from cutaway.generate.phrases import Phrases, no_repeat_ngram
from cutaway.generate.rng import BLOCK, SamplingRNG

NUMBERS = st.floats(-20, 20, width=32).map(lambda x: round(x, 2))


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    """[1 to 3, 1 to 40] with many ties."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 40)))
    return torch.from_numpy(draw(hnp.arrays("float32", shape, elements=NUMBERS)))


def kept(scores: Tensor) -> Tensor:
    return scores > -math.inf


@given(logits(), st.integers(1, 50))
def test_top_k_keeps_the_k_most_likely_and_their_ties(x: Tensor, k: int) -> None:
    y = sampling.top_k(x, k)
    for row, keep in zip(x, kept(y), strict=True):
        ranks = torch.tensor([int((row > value).sum()) for value in row])  # how many are more likely
        assert torch.equal(keep, ranks < k)
        if len(row.unique()) == len(row):
            assert int(keep.sum()) == min(k, len(row))
    assert torch.equal(y[kept(y)], x[kept(y)])


@given(logits(), st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_nucleus(x: Tensor, p: float) -> None:
    y = sampling.top_p(x, p)
    probability = x.double().softmax(-1)
    for row, keep in zip(probability, kept(y), strict=True):
        assert row[keep].sum() >= p - 1e-5
        least = row[keep].min()
        assert bool((row[~keep] <= least + 1e-7).all())  # nothing left out is likelier than what stays
        assert row[row > least + 1e-7].sum() < p + 1e-5  # without the last one (and its ties) it would not reach p
    assert torch.equal(y[kept(y)], x[kept(y)])


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_top_p_by_prefix_is_top_p_by_sorting_it_all(p: float, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0)) * spread
    quick = sampling.top_p(x, p)
    monkeypatch.setattr(sampling, "NUCLEUS_PREFIXES", ())
    full = sampling.top_p(x, p)
    assert (kept(quick) != kept(full)).sum() <= 4  # rounding at the very edge


@given(logits(), st.floats(0.0, 1.0))
def test_min_p_is_relative_to_the_most_likely(x: Tensor, p: float) -> None:
    probability = x.double().softmax(-1)
    bound = p * probability.amax(-1, keepdim=True)
    keep = kept(sampling.min_p(x, p))
    assert bool(keep[probability > bound * (1 + 1e-5)].all())
    assert not bool(keep[probability < bound * (1 - 1e-5)].any())
    assert bool(keep.any(-1).all())


@given(logits(), st.integers(0, 2**31))
def test_a_small_temperature_is_greedy(x: Tensor, seed: int) -> None:
    u = SamplingRNG([seed + row for row in range(len(x))], x.device).uniform(len(x))
    drawn = sampling.draw(sampling.temperature(x, 1e-4), u)
    assert torch.equal(x.gather(1, drawn[:, None]), x.amax(-1, keepdim=True))


@given(logits(), st.floats(0.1, 5.0), st.data())
def test_repetition_penalty_formula(x: Tensor, penalty: float, data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, x.shape[1] - 1), min_size=4, max_size=4)
    seen = torch.tensor([data.draw(ids) for _ in x])
    before = x.clone()
    y = sampling.repetition_penalty(x, seen, penalty)
    for b, row in enumerate(x):
        for token, value in enumerate(row):
            wanted = value
            if token in seen[b].tolist():
                wanted = value * penalty if value < 0 else value / penalty
            assert torch.isclose(y[b, token], torch.as_tensor(wanted), rtol=1e-6)
    assert torch.equal(x, before)


TEXT = torch.tensor([[3, 7, 3, 7, 5, 3], [-1, -1, 2, 2, 2, 2]])
PHRASES = Phrases([((7,), 1.5), ((3, 7), -2.0), ((2, 9), -math.inf), ((2, 2, 2), 0.25), ((9,), 0.1)], TEXT.device)


@pytest.mark.parametrize(
    "rule",
    [
        lambda x, **how: sampling.forbid(x, torch.tensor([2, 9, 2]), **how),
        lambda x, **how: sampling.repetition_penalty(x, TEXT.clamp(min=0), 1.3, **how),
        lambda x, **how: sampling.exponential_decay(x, torch.tensor([1, 4]), 3, 1.2, **how),
        lambda x, **how: no_repeat_ngram(x, TEXT, 2, **how),
        lambda x, **how: no_repeat_ngram(x, TEXT, 1, TEXT.flip(0), **how),
        lambda x, **how: PHRASES.bias(x, TEXT, **how),
    ],
)
def test_a_rule_about_a_few_tokens_writes_where_it_may(rule: Any) -> None:
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    wanted = rule(x)
    assert torch.equal(x, before) and not torch.equal(wanted, before)
    assert rule(x, in_place=True).data_ptr() == x.data_ptr()
    assert torch.equal(x, wanted)


def test_phrases_of_one_token_are_summed_before_they_are_added() -> None:
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    total = torch.zeros_like(x)
    total[:, 7] += 1.5
    total[:, 9] += 0.1
    total[0, 7] += -2.0
    total[1, 9] += -math.inf
    total[1, 2] += 0.25
    assert torch.equal(PHRASES.bias(x, TEXT), x + total)


def test_forbid_and_force() -> None:
    x = torch.arange(6.0).view(2, 3)  # [2, 3]
    assert sampling.forbid(x, torch.tensor([2])).tolist() == [[0, 1, -math.inf], [3, 4, -math.inf]]
    assert sampling.force(x, torch.tensor([1])).tolist() == [[-math.inf, 0, -math.inf]] * 2
    assert sampling.greedy(torch.tensor([[1.0, 3.0, 3.0]])).tolist() == [1]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 4000), st.floats(0.1, 6.0), st.floats(0.02, 0.98), st.integers(1, 100))
def test_equal_to_upstream(seed: int, vocab: int, spread: float, p: float, k: int) -> None:
    # float64, where upstream's sums from the least likely end and ours from the other agree on who is in
    x = torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    ids = torch.randint(0, vocab, (3, 9), generator=torch.Generator().manual_seed(seed))
    pairs = [
        (sampling.temperature(x, spread), upstream.TemperatureLogitsWarper(spread)),
        (sampling.top_k(x, k), upstream.TopKLogitsWarper(k)),
        (sampling.top_p(x, p), upstream.TopPLogitsWarper(p)),
        (sampling.min_p(x, p), upstream.MinPLogitsWarper(p)),
        (sampling.typical_p(x, p), upstream.TypicalLogitsWarper(p)),
        (sampling.epsilon_cutoff(x, p / 50), upstream.EpsilonLogitsWarper(p / 50)),
        (sampling.eta_cutoff(x, p / 50), upstream.EtaLogitsWarper(p / 50)),
        (sampling.repetition_penalty(x, ids, p + 0.5), upstream.RepetitionPenaltyLogitsProcessor(p + 0.5)),
        (sampling.forbid(x, ids[0, :2]), upstream.MinLengthLogitsProcessor(10, ids[0, :2])),
        (sampling.force(x, ids[0, :2]), upstream.ForcedEOSTokenLogitsProcessor(10, ids[0, :2])),
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs(ids, x.clone())), type(theirs).__name__


def test_what_is_drawn_follows_the_softmax() -> None:
    x = torch.randn(1, 40, generator=torch.Generator().manual_seed(3)) * 1.5
    x = sampling.min_p(sampling.top_p(sampling.top_k(sampling.temperature(x, 0.9), 30), 0.95), 0.02)
    n = 100_000
    u = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
    counts = sampling.draw(x.expand(n, -1), u).bincount(minlength=40).double()
    expected = x.double().softmax(-1)[0] * n
    there = expected > 0
    assert counts[~there].sum() == 0
    chi2 = ((counts - expected)[there].square() / expected[there]).sum()
    freedom = int(there.sum()) - 1
    # Wilson and Hilferty 1931: the cube root of chi2 / freedom is nearly normal; 3.1 is one in a thousand
    z = ((chi2 / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert freedom > 10
    assert z < 3.1


def test_what_sampling_leaves_of_many_likely_tokens() -> None:
    flat = torch.zeros(1, 100)
    assert bool(kept(sampling.epsilon_cutoff(flat, 0.5)).all())  # all are the likeliest
    assert bool(kept(sampling.eta_cutoff(flat, 0.02)).all())
    steep = torch.tensor([[0.0, 5.0, -9.0]])
    assert kept(sampling.epsilon_cutoff(steep, 0.9)).tolist() == [[False, True, False]]
    assert kept(sampling.at_least(sampling.top_k(steep, 1), steep, 2)).tolist() == [[True, True, False]]
    assert sampling.typical_p(steep, 1.0) is steep
    broken = torch.tensor([[math.nan, math.inf, -math.inf, 2.0]])
    assert bool(sampling.finite(broken).isfinite().all())


def test_the_edges_of_a_draw() -> None:
    x = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    lowest, highest = torch.tensor([0.0], dtype=torch.float64), torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert sampling.draw(x, lowest).tolist() == [1]
    assert sampling.draw(x, highest).tolist() == [3]
    for seed in range(200):
        y = torch.randn(1, 1000, generator=torch.Generator().manual_seed(seed))
        assert 0 <= int(sampling.draw(sampling.top_k(y, 7), highest)) < 1000
        assert bool(kept(sampling.top_k(y, 7))[0, sampling.draw(sampling.top_k(y, 7), highest)])


def test_each_sequence_has_its_own_numbers() -> None:
    alone = [SamplingRNG([seed], torch.device("cpu")) for seed in (3, 4, 5)]
    single = torch.stack([torch.cat([c.uniform(1) for _ in range(2 * BLOCK + 3)]) for c in alone])
    batch = SamplingRNG([3, 4, 5], torch.device("cpu"))
    together = torch.stack([batch.uniform(3) for _ in range(10)], dim=1)
    assert torch.equal(together, single[:, :10])
    batch.select(torch.tensor([0, 2]))
    rest = torch.stack([batch.uniform(2) for _ in range(2 * BLOCK - 7)], dim=1)
    assert torch.equal(rest, single[[0, 2], 10:])
    torch.manual_seed(5)
    first = SamplingRNG(None, torch.device("cpu")).uniform(4)
    torch.manual_seed(5)
    assert torch.equal(first, SamplingRNG(None, torch.device("cpu")).uniform(4))


@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from([0.01, 0.5, 4.0]))
def test_a_shortlist_has_all_that_top_k_keeps(seed: int, k: int, step: float) -> None:
    x = torch.randn(3, 400, generator=torch.Generator().manual_seed(seed)).div(step).round().mul(step)  # with ties
    found = sampling.shortlist(x, k)
    y = sampling.top_k(x, k)
    if found is None:
        assert (kept(y).sum(-1) >= k).all()
        return
    few, ids = found
    assert bool((ids.diff(dim=-1) > 0).all())
    assert torch.equal(torch.full_like(x, -math.inf).scatter(1, ids, sampling.top_k(few, k)), y)


def test_a_shortlist_that_spares_nothing_is_none() -> None:
    assert sampling.shortlist(torch.randn(1, 100), 50) is None
    assert sampling.shortlist(torch.zeros(1, 1000), 50) is None
    assert sampling.shortlist(torch.randn(1, 1000), 50) is not None


def test_no_distribution_is_no_token() -> None:
    x = torch.zeros(4, 300)
    x[0, 7], x[1], x[2, 3] = math.nan, -math.inf, math.inf
    u = torch.full((4,), 0.5, dtype=torch.float64)
    assert sampling.draw(x, u).tolist() == [-1, -1, -1, 150]
    assert sampling.greedy(x).tolist() == [-1, -1, -1, 0]


def test_the_first_numbers_of_neighbouring_seeds_are_uniform() -> None:
    u = SamplingRNG(range(30_000), torch.device("cpu")).uniform(30_000)
    counts = (u * 50).long().bincount(minlength=50).double()
    chi2 = float(((counts - 600).square() / 600).sum())
    assert 20 < chi2 < 90  # 49 degrees of freedom
    assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 0.02

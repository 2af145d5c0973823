"""Scores that depend on distances and words, against their definition; and that other models have none of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cutaway
from cutaway.config.architecture import Attention, Distances
from cutaway.errors import ConfigError, InputError
from cutaway.nn import attention, distances
from cutaway.nn.distances import DistanceRows, DistanceScores, DistanceTable
from cutaway.nn.linear import Linear

HEADS, SIZE, HIDDEN = 2, 4, 8
FIELDS: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 8, "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False, "max_position_embeddings": 64,
    "initializer_range": 0.3,
}  # fmt: skip


def scores(spec: Distances, seed: int = 0) -> tuple[DistanceScores, Linear, Linear, DistanceTable]:
    torch.manual_seed(seed)
    made = DistanceScores(Attention(HEADS, HEADS, SIZE, 0.3, distances=spec), HIDDEN)
    table = DistanceTable(spec, HIDDEN)
    torch.nn.init.normal_(table.weight)
    return made, Linear(HIDDEN, HEADS * SIZE), Linear(HIDDEN, HEADS * SIZE), table


def by_definition(
    made: DistanceScores, q: Linear, k: Linear, table: DistanceTable, asking: Tensor, seen: Tensor, places: Tensor
) -> Tensor:
    """Score by score: He et al. (2021), equation 4, without the words' own product."""
    spec = made.spec
    keys, queries = (k, q) if spec.shared else (made._modules.get("k"), made._modules.get("q"))
    out = torch.zeros(asking.shape[0], HEADS, asking.shape[2], asking.shape[2])
    for n, h, i, j in torch.cartesian_prod(*(torch.arange(size) for size in out.shape)).tolist():
        row = table.weight[table.buckets(places[n, i] - places[n, j])]
        own = slice(h * SIZE, (h + 1) * SIZE)
        if spec.to_keys:
            out[n, h, i, j] += asking[n, h, i] @ keys(row)[own] * 0.3
        if spec.to_queries:
            out[n, h, i, j] += seen[n, h, j] @ queries(row)[own] * 0.3
    return out


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("to_keys", "to_queries"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(("length", "holes"), [(1, False), (2, False), (7, False), (5, True)])
def test_scores_are_their_definition(shared: bool, to_keys: bool, to_queries: bool, length: int, holes: bool) -> None:
    made, q, k, table = scores(Distances(4, 9, to_keys=to_keys, to_queries=to_queries, shared=shared))
    asking, seen = torch.randn(2, 2, HEADS, length, SIZE)
    places = torch.arange(length).expand(2, length)
    if holes:
        places = torch.tensor([[0, 1, 4, 6, 7], [0, 3, 4, 5, 9]])
    rows = table.reaching(int(places.max()) + 3, None)  # other texts of the batch may be longer
    with torch.no_grad():
        found = made(q, k, rows)(asking, seen, places if holes else None)
        wanted = by_definition(made, q, k, table, asking, seen, places)
    assert torch.allclose(found, wanted, atol=1e-5)


@given(st.integers(4, 300), st.integers(2, 400), st.integers(-3000, 3000))
@settings(max_examples=200, deadline=None)
def test_buckets_are_those_of_transformers(buckets: int, more: int, distance: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    longest = buckets // 2 + 1 + more
    table = DistanceTable(Distances(buckets, longest, to_keys=True, to_queries=True, shared=True), 2)
    apart = torch.tensor([distance, -distance, 0, 1, buckets // 2])
    theirs = (make_log_bucket_position(apart, buckets, longest).long() + buckets).clamp(0, 2 * buckets - 1)
    assert table.buckets(apart).tolist() == theirs.tolist()


@given(st.integers(4, 300), st.integers(2, 400))
@settings(max_examples=100, deadline=None)
def test_buckets_grow_with_the_distance(buckets: int, more: int) -> None:
    table = DistanceTable(Distances(buckets, buckets // 2 + 1 + more, to_keys=True, to_queries=False, shared=True), 2)
    rows = table.buckets(torch.arange(-1000, 1001))
    assert bool((rows.diff() >= 0).all()) and int(rows[0]) >= 0 and int(rows[-1]) < 2 * buckets
    exact = buckets // 2
    assert rows[1000 - exact : 1001 + exact].tolist() == list(range(buckets - exact, buckets + exact + 1))


def test_only_rows_that_the_texts_need_are_made() -> None:
    table = DistanceTable(Distances(256, 512, to_keys=True, to_queries=True, shared=True), HIDDEN)
    rows: DistanceRows = table.reaching(10, None)
    assert rows.vectors.shape == (19, HIDDEN) and rows.index.tolist() == list(range(19))
    assert table.reaching(10_000, None).vectors.shape == (512, HIDDEN)


def model(**fields: Any) -> Any:
    torch.manual_seed(0)
    made = cutaway.DebertaV2Model(cutaway.DebertaV2Config(**{**FIELDS, **fields})).eval()
    return made


@torch.no_grad()
def test_a_text_gives_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ids = model(), torch.randint(0, 60, (5, 9))
    whole = made(ids).last_hidden_state
    calls: list[int] = []
    fast = attention.F.scaled_dot_product_attention
    monkeypatch.setattr(distances, "AT_ONCE", 4 * 9 * 9 * 2)
    monkeypatch.setattr(
        attention.F, "scaled_dot_product_attention", lambda q, *a, **k: calls.append(q.shape[0]) or fast(q, *a, **k)
    )
    assert torch.allclose(made(ids).last_hidden_state, whole, atol=1e-5)
    assert calls == [2, 2, 1] * 2  # the fast kernel, two texts at a time


def test_models_without_distances_have_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = cutaway.BertModel(
        cutaway.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    monkeypatch.setattr(attention.Attention, "_by_distance", None)
    monkeypatch.setattr(distances.DistanceScores, "forward", None)
    assert not any(isinstance(m, (DistanceScores, DistanceTable)) for m in plain.modules())
    plain(torch.tensor([[1, 2, 3]]))


def test_different_adapters_in_one_batch_are_refused() -> None:
    made = model()
    for name in ("a", "b"):
        made.add_adapter(cutaway.LoraConfig(target_modules=["query_proj"]), adapter_name=name)
    ids = torch.randint(0, 60, (2, 5))
    assert made(ids, adapters=["a", "a"]).last_hidden_state.shape == (2, 5, 32)
    with pytest.raises(InputError, match="Run their texts apart"):
        made(ids, adapters=["a", "b"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pos_att_type", "p2p"), ("pos_att_type", ["c2p", 3]), ("position_buckets", 2), ("position_buckets", 500),
        ("conv_kernel_size", 4), ("norm_rel_ebd", "batch"), ("embedding_size", 16), ("pooler_hidden_size", 16),
    ],
)  # fmt: skip
def test_what_is_not_built_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        model(**{field: value})


def test_fields_of_upstream_are_the_defaults() -> None:
    theirs, ours = transformers.DebertaV2Config(), cutaway.DebertaV2Config()
    for name in (
        "relative_attention",
        "max_relative_positions",
        "position_biased_input",
        "pooler_hidden_act",
        "legacy",
    ):
        assert getattr(theirs, name) == getattr(ours, name)

"""Parts of patterns that are computed from queries and keys are those of the patterns themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inspect_models import BERT, FAMILIES, V, tiny

import cutaway
from cutaway.errors import InputError
from cutaway.inspect import measures
from cutaway.inspect.pattern_rows import SAMPLE, PatternRows, places_of, pooled

LENGTH = 23
WINDOWS = {**BERT, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 5}
OTHERS = {
    "gemma2": ("Gemma2", "ForCausalLM", {**WINDOWS, "attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}),
    "modernbert": ("ModernBert", "ForMaskedLM", {**BERT, "local_attention": 6, "global_attn_every_n_layers": 2}),
    "bloom": ("Bloom", "ForCausalLM", {"vocab_size": V, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "umt5": ("UMT5", "ForConditionalGeneration", {
        "vocab_size": V, "d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "d_ff": 24,
    }),
}  # fmt: skip


def made(family):
    if family in FAMILIES:
        return tiny(family)
    first, ending, fields = OTHERS[family]
    torch.manual_seed(0)
    config = getattr(cutaway, f"{first}Config")(**fields, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = getattr(cutaway, first + ending)(config)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8.0 if p.dim() > 1 else 1.0)
    return model.eval()


def read(model, kind, length=LENGTH):
    """(what is computed part by part, the whole patterns [layers, heads, Lq, Lk])."""
    draw = torch.Generator().manual_seed(3)
    inputs = {"input_ids": torch.randint(5, V, (1, length), generator=draw)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.randint(5, V, (1, 9), generator=draw)
    tower = "" if kind == "self" else "encoder." if kind == "encoder" else "decoder."
    patterns = [f"{tower}blocks.{i}.{'cross' if kind == 'cross' else 'attn'}.pattern" for i in range(64)]
    patterns = [place for place in patterns if place in model.addresses()]
    with torch.no_grad(), model.record(*places_of(model, kind)) as r:
        model(**inputs)
        rows = PatternRows.of(model, kind, r)
    with torch.no_grad(), model.record(*patterns) as r:
        model(**inputs)
    return rows, torch.stack([r[place][0] for place in patterns]).float().numpy()


KINDS = [
    (family, kind)
    for family in (*FAMILIES, *OTHERS)
    for kind in (("encoder", "decoder", "cross") if family in ("t5", "bart", "umt5") else ("self",))
]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_any_part_is_that_of_the_whole_pattern(family, kind):
    rows, want = read(made(family), kind)
    assert rows.shape == want.shape
    assert rows.check.error < 1e-4
    layers, heads, n_rows, n_columns = want.shape
    for layer in range(layers):
        for head in range(heads):
            whole = rows.part(layer, head, slice(0, n_rows), slice(0, n_columns))
            np.testing.assert_allclose(whole, want[layer, head], atol=1e-5)
    some = rows.part(1, 1, slice(2, 7), slice(1, 5))
    np.testing.assert_allclose(some, want[1, 1, 2:7, 1:5], atol=1e-5)
    assert rows.part(0, 0, slice(3, 3), slice(0, 2)).size == 0


@pytest.mark.parametrize("every", [1, 2, 4, 16])
def test_a_square_is_its_largest_weight_whatever_is_computed_at_a_time(every, monkeypatch):
    rows, want = read(made("llama"), "self")
    monkeypatch.setattr("cutaway.inspect.pattern_rows.AT_ONCE", 5 * LENGTH)
    found = rows.part(2 if len(want) > 2 else 1, 0, slice(0, LENGTH), slice(0, LENGTH), every)
    n = -(-LENGTH // every)
    assert found.shape == (n, n)
    pattern = want[2 if len(want) > 2 else 1, 0]
    for i in range(n):
        for j in range(n):
            square = pattern[i * every : (i + 1) * every, j * every : (j + 1) * every]
            assert found[i, j] == pytest.approx(square.max(), abs=1e-5)
    assert torch.equal(pooled(torch.eye(3)[None], 2), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))


@pytest.mark.parametrize("most", [1, 12, 1 << 22])
@pytest.mark.parametrize(("family", "kind"), [("llama", "self"), ("bert", "self"), ("bart", "cross")])
def test_tiles_side_by_side_are_of_one_look_at_their_rows(family, kind, most, monkeypatch):
    rows, want = read(made(family), kind)
    monkeypatch.setattr("cutaway.inspect.pattern_rows.MOST_WHOLE", most)
    computed = []
    lots = PatternRows._lots

    def noted(self, layer, head, some, every):
        if some.stop - some.start > 1:  # a row alone is not kept
            computed.append((head, some, every))
        return lots(self, layer, head, some, every)

    monkeypatch.setattr(PatternRows, "_lots", noted)
    n_rows, n_columns = want.shape[2:]
    for every in (1, 2, 3, 4, 8, 16):
        for head in (0, 1):
            pattern = torch.from_numpy(want[1, head])
            squares = torch.nn.functional.max_pool2d(pattern[None], every, ceil_mode=True)[0].numpy()
            computed.clear()
            for first in range(0, n_rows, 2 * every):
                for column in range(0, n_columns, 2 * every):
                    some = (
                        slice(first, min(first + 2 * every, n_rows)),
                        slice(column, min(column + 2 * every, n_columns)),
                    )
                    found = rows.part(1, head, *some, every)
                    near = squares[first // every :, column // every :][:2, :2]
                    np.testing.assert_allclose(found, near, atol=1e-5)
            if most > 1000:
                assert len(computed) == len(set(map(str, computed)))  # nothing twice
                if every in (4, 8, 16):
                    assert len(computed) <= 1
    odd = rows.part(1, 0, slice(1, 6), slice(2, 5), 2)  # squares that begin elsewhere
    assert odd[0, 0] == pytest.approx(want[1, 0, 1:3, 2:4].max(), abs=1e-5) and odd.shape == (3, 2)


@pytest.mark.parametrize(("family", "kind"), [("gpt2", "self"), ("bert", "self"), ("bart", "cross")])
def test_the_summary_of_all_rows_is_the_measures(family, kind):
    rows, want = read(made(family), kind)
    assert want.shape[2] <= SAMPLE  # so that the sample is the whole
    words = (list(range(1, want.shape[2])), list(range(1, want.shape[3] - 1)))
    found = rows.summary(words, 5)
    assert found.finite and found.rows == want.shape[2]
    np.testing.assert_allclose(found.measures["entropy"], measures.entropy(want), atol=1e-5)
    same = kind == "self"
    np.testing.assert_allclose(found.measures["focus"], measures.focus(want, *words, same=same), atol=1e-5)
    assert ("distance" in found.measures) == same
    if same:
        np.testing.assert_allclose(found.measures["distance"], measures.distance(want), atol=1e-4)
    assert found.pictures.shape == (*want.shape[:2], 5, 5)
    np.testing.assert_allclose(found.pictures.max((-2, -1)), want.max((-2, -1)), atol=1e-5)


def test_weights_that_are_no_number_are_said():
    model = made("gpt2")
    rows, _ = read(model, "self")
    rows.q[0][0, 0, 0] = torch.nan
    assert not rows.summary(([1, 2], [1, 2]), 4).finite


def test_scores_of_distances_are_refused():
    config = cutaway.DebertaV2Config(
        **BERT, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, max_relative_positions=16
    )
    with pytest.raises(InputError, match="compares every distance"):
        places_of(cutaway.DebertaV2ForMaskedLM(config), "self")

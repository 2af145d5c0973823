"""Every layer of every family against transformers, with and without padding, and that the fast path gave it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from parity.pairs import FAMILIES, FINAL, LAYERS, TOLERANCE, gap, gaps, inputs, pair, real_values
from parity.tiny_models import ENCODER_DECODERS, VARIANTS
from torch import Tensor, nn

from cutaway import native
from cutaway.nn import attention, packed_batch
from cutaway.nn.block import Block
from cutaway.nn.experts import Experts
from cutaway.nn.norm_mlp import MLP

LENGTHS = (9, 4, 7, 4)
# heads of 32 numbers, which the compiled attention takes; the tiny models' are smaller
WIDE: dict[str, dict[str, int]] = {
    "bert": {"hidden_size": 64, "num_attention_heads": 2},
    "modernbert": {"hidden_size": 64, "num_attention_heads": 2},
    "gpt2": {"n_embd": 64, "n_head": 2},
    "llama": {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2},
}
EVERY = (*FAMILIES, *(f"{family}, wide" for family in WIDE))
ALL = {"output_attentions": True, "output_hidden_states": True}


@functools.cache
def models(family: str) -> tuple[Any, Any]:
    name, _, wide = family.partition(", ")
    return pair(name, **(WIDE[name] if wide else {}))


def run(model: Any, given: dict[str, Tensor], **asked: Any) -> Any:
    with torch.no_grad():
        return model(**given, **asked)


def pad_id(family: str) -> int:
    return models(family)[0].config.pad_token_id or 0


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("lengths", [(9, 9, 9), LENGTHS], ids=["unpadded", "right-padded"])
@pytest.mark.parametrize("small", [0, 128], ids=["packed", "small"])
def test_every_layer_equals_transformers(
    family: str, lengths: tuple[int, ...], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", small)
    theirs, ours = models(family)
    given = inputs(family, lengths, pad=pad_id(family))
    found = gaps(run(ours, given, **ALL), run(theirs, given, **ALL), given)
    assert len(found) >= 8
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_text_of_a_padded_batch_equals_transformers_on_it_alone(family: str, side: str) -> None:
    theirs, ours = models(family)
    given = inputs(family, LENGTHS, side, pad_id(family))
    batch = run(ours, given, **ALL)
    for b in range(len(LENGTHS)):
        row = {name: value[b : b + 1] for name, value in given.items()}
        alone = {
            name: value[row[name.replace("input_ids", "attention_mask")].bool()][None]
            for name, value in row.items()
            if name.endswith("input_ids")
        }
        wanted = run(theirs, alone, **ALL)
        for name in (*FINAL, *LAYERS):
            if name not in wanted or wanted[name] == ():
                continue
            many = name in LAYERS
            for mine, yours in zip(
                batch[name] if many else [batch[name]], wanted[name] if many else [wanted[name]], strict=True
            ):
                assert gap(real_values(name, mine[b : b + 1], row), yours.flatten()) < TOLERANCE, name


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("small", [0, 128], ids=["packed", "small"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_looking_changes_no_bit(family: str, small: int, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", small)
    _, ours = models(family)
    given = inputs(family, LENGTHS, side, pad_id(family))
    plain = run(ours, given)
    asked = run(ours, given, **ALL)
    with torch.no_grad(), ours.record(*ours.addresses()) as recorder:
        recorded = ours(**given)
    assert set(recorder) == set(ours.addresses())
    for name in plain:
        if isinstance(plain[name], Tensor):
            assert torch.equal(plain[name], asked[name]) and torch.equal(plain[name], recorded[name]), name
    for name in LAYERS:  # one layer asked for is that layer of all
        if name in asked and name.endswith("attentions"):
            one = run(ours, given, output_attentions=[1])
            assert torch.equal(one[name][1], asked[name][1])


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("looking", [False, True])
def test_padding_is_not_computed(family: str, looking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only real tokens enter a block, and every attention goes through the fast kernel."""
    monkeypatch.setattr(packed_batch, "SMALL", 0)
    _, ours = models(family)
    entered: dict[str, int] = {}
    calls: list[tuple[int, int]] = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        calls.append((q.shape[0] * q.shape[2], k.shape[0] * k.shape[2]))
        return kernel(q, k, v, **kwargs)

    compiled = attention.varlen_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, layout: packed_batch.PackedBatch, *args: Any) -> Tensor | None:
        found = compiled(q, k, v, layout, *args)
        if found is not None:
            calls.append((q.shape[0] - layout.n_filler, k.shape[0]))
        return found

    capped = attention.capped_attention

    def spy_of_capped(q: Tensor, k: Tensor, *args: Any) -> Tensor:
        calls.append((q.shape[0] * q.shape[2], k.shape[0] * k.shape[2]))
        return capped(q, k, *args)

    monkeypatch.setattr(attention, "capped_attention", spy_of_capped)
    monkeypatch.setattr(attention, "varlen_attention", watched)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spy)
    hooks = []
    for name, module in ours.engine.named_modules():
        if isinstance(module, (Block, MLP, Experts, attention.Attention)) and not (
            "cross" in name or ".experts." in name
        ):

            def hook(_: Any, args: tuple[Any, ...], name: str = name) -> None:
                entered[name] = args[0].shape[:-1].numel()

            hooks.append(nn.Module.register_forward_pre_hook(module, hook))  # the rows as they are
    given = inputs(family, LENGTHS, "left", pad_id(family))
    run(ours, given, **(ALL if looking else {}))
    for h in hooks:
        h.remove()
    target = int(given["decoder_attention_mask"].sum()) if "decoder_attention_mask" in given else 0
    blocks = {name: n for name, n in entered.items() if name.rpartition(".")[0].endswith("blocks")}
    assert len(entered) == 3 * len(blocks) and blocks
    for name, n in entered.items():
        assert n == (target if name.startswith("decoder") else sum(LENGTHS)), name
    decoder = sum(name.startswith("decoder") for name in blocks)
    layers = ours.architecture.stack.n_layers
    assert len(blocks) - decoder == ours.architecture.stack.n_blocks
    asked = sum(q for q, _ in calls)
    if family.endswith("wide") and not decoder and native.LIBRARY is not None:
        assert len(calls) == layers  # one call for all texts of a layer
    assert asked == sum(LENGTHS) * layers + 2 * target * decoder  # self and cross


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_small_right_padded_batch_stays_padded(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", len(LENGTHS) * max(LENGTHS))
    mask = inputs(family, LENGTHS)["attention_mask"]
    assert not packed_batch.PackedBatch(*mask.shape, mask, may_stay_padded=True).packed
    monkeypatch.setattr(packed_batch, "SMALL", len(LENGTHS) * max(LENGTHS) - 1)
    assert packed_batch.PackedBatch(*mask.shape, mask, may_stay_padded=True).packed
    left = inputs(family, LENGTHS, "left")["attention_mask"]
    monkeypatch.setattr(packed_batch, "SMALL", 10_000)
    assert packed_batch.PackedBatch(*left.shape, left, may_stay_padded=True).packed


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_tokens_over_the_length_of_the_pad_are_no_matter(family: str) -> None:
    """Padding to a multiple changes nothing beyond rounding."""
    _, ours = models(family)
    given = inputs(family, LENGTHS, pad=pad_id(family))
    wide = {
        name: torch.nn.functional.pad(value, (0, 10), value=pad_id(family) if name.endswith("ids") else 0)
        for name, value in given.items()
    }
    a, b = run(ours, given), run(ours, wide)
    n = a.last_hidden_state.shape[1]
    mine = real_values("last_hidden_state", a.last_hidden_state, given)
    assert gap(real_values("last_hidden_state", b.last_hidden_state[:, :n], given), mine) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_embeds_are_the_tokens_vectors(family: str) -> None:
    theirs, ours = models(family)
    given = inputs(family, (6, 6), pad=pad_id(family))
    embeds = ours.get_input_embeddings()(given["input_ids"]).detach()
    given = {**given, "inputs_embeds": embeds}
    del given["input_ids"]
    assert gap(run(ours, given).last_hidden_state, run(theirs, given).last_hidden_state) < TOLERANCE


@pytest.mark.parametrize(
    "family",
    [
        *("bert", "distilbert", "roberta", "electra", "albert", "mpnet", "modernbert", "gpt2", "llama"),
        *(family for family in VARIANTS if family != "bloom"),  # it knows only distances
    ],
)
def test_explicit_positions_are_obeyed(family: str) -> None:
    theirs, ours = models(family)
    given = inputs(family, LENGTHS, "left", pad_id(family))
    longest = given["input_ids"].shape[1]
    given["position_ids"] = torch.arange(longest).expand_as(given["input_ids"]) + 3
    if family == "distilbert":  # upstream's takes no position_ids in 5.x; its plain count is the same table
        given["position_ids"] = given["position_ids"] - 3
        wanted = run(theirs, {k: v for k, v in given.items() if k != "position_ids"})
    else:
        wanted = run(theirs, given)
    found = real_values("last_hidden_state", run(ours, given).last_hidden_state, given)
    assert gap(found, real_values("last_hidden_state", wanted.last_hidden_state, given)) < TOLERANCE


def test_token_types() -> None:
    theirs, ours = models("bert")
    given = inputs("bert", LENGTHS, "right")
    given["token_type_ids"] = (torch.arange(9) > 3).long().expand(4, 9) * given["attention_mask"]
    found = gaps(run(ours, given, **ALL), run(theirs, given, **ALL), given)
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_vectors_may_stand_for_the_tokens_of_both_sides(family: str) -> None:
    """Marian and Pegasus scale what their decoder is given, and not what their encoder is."""
    scaled = {"scale_embedding": True} if family in ("bart", "mbart", "marian", "pegasus", "m2m_100") else {}
    theirs, ours = pair(family, "Model", **scaled)
    draw = torch.Generator().manual_seed(4)
    vectors = {name: torch.randn(2, 6, 32, generator=draw) for name in ("inputs_embeds", "decoder_inputs_embeds")}
    with torch.no_grad():
        wanted, found = theirs(**vectors), ours(**vectors)
    for name in ("last_hidden_state", "encoder_last_hidden_state"):
        assert gap(found[name], wanted[name]) < TOLERANCE, name

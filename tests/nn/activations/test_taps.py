"""Recording by address: every value against what the engine's own parts give, and wrong addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.pairs import FAMILIES, TOLERANCE, gap, inputs, load
from parity.tiny_models import make

from cutaway.errors import AddressError
from cutaway.nn import packed_batch
from cutaway.nn.block import ResultBlock
from cutaway.nn.call_context import scopes_of

EXACT = 1e-6


@pytest.fixture(params=[0, 128], ids=["packed", "small"], autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", request.param)


def record(family: str, *addresses: str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    model = load(make(family), "Model")
    given = inputs(family, (7, 4, 5))
    with torch.no_grad(), model.record(*addresses) as recorder:
        model(**given)
    return model, recorder, given


@pytest.mark.parametrize("family", FAMILIES)
def test_values_add_up(family: str) -> None:
    """Scores give patterns, patterns and values give z, heads add up to the output, blocks add up."""
    model, r, given = record(family, "*")
    assert len(r) == len(model.addresses()) and list(r) == model.addresses()
    two = model.architecture.decoder is not None
    for prefix, stack in (("encoder.", model.encoder), ("decoder.", model.decoder)) if two else (("", model),):
        mask = given["decoder_attention_mask" if prefix == "decoder." else "attention_mask"].bool()
        sources = given["attention_mask"].bool()
        spec = stack.spec
        for i, own in enumerate(spec.order):
            block = stack.blocks[own]
            at = f"{prefix}blocks.{i}."
            for name in ("attn", "cross") if spec.cross else ("attn",):
                layer = getattr(block, name)
                q, k, v = (r[f"{at}{name}.{part}"] for part in "qkv")
                pattern, z, out = (r[f"{at}{name}.{part}"] for part in ("pattern", "z", "out"))
                assert q.shape[2:] == (spec.attention.n_heads, spec.attention.head_size)
                assert k.shape[2] == v.shape[2] == spec.attention.n_kv_heads
                seen = sources if name == "cross" else mask
                v = v.repeat_interleave(spec.attention.n_heads // spec.attention.n_kv_heads, 2)
                mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, v)
                assert gap(mixed[mask], z[mask]) < TOLERANCE
                sums = pattern.sum(-1).transpose(1, 2)[mask]
                assert gap(sums, torch.ones_like(sums)) < EXACT
                assert not pattern.transpose(2, 3).transpose(1, 2)[~seen].any()  # nobody looks at padding
                heads = sum(r[f"{at}{name}.head.{h}.out"] for h in range(spec.attention.n_heads))
                own_bias = layer.output_layer().bias
                bias = 0 if own_bias is None else own_bias
                assert gap(heads[mask] + bias, out[mask]) < TOLERANCE
            before = r[f"{prefix}embed"] if i == 0 else r[f"{prefix}blocks.{i - 1}.resid"]
            mid = r[f"{at}resid_cross"] if spec.cross else r[f"{at}resid_mid"]
            added = [r[f"{at}{name}.out"] for name in ("attn", "mlp")]
            if isinstance(block, ResultBlock):  # what a layer makes is normed and scaled before it is added
                norms = block.attn_result_norm, block.mlp_result_norm
                added = [norm(out).detach() * spec.residual_scale for norm, out in zip(norms, added, strict=True)]
            if spec.norm_place != "post":
                assert gap((before + added[0])[mask], r[f"{at}resid_mid"][mask]) < TOLERANCE
                assert gap((mid + added[1])[mask], r[f"{at}resid"][mask]) < TOLERANCE
            else:
                after = block.mlp_norm(mid + r[f"{at}mlp.out"]).detach()
                if block.has_conv:
                    after = block.conv.norm(after + r[f"{at}conv"]).detach()
                assert gap(after[mask], r[f"{at}resid"][mask]) < TOLERANCE
            down = F.linear(r[f"{at}mlp.act"], block.mlp.down.weight, block.mlp.down.bias)
            assert gap(down[mask], r[f"{at}mlp.out"][mask]) < TOLERANCE
            assert r[f"{at}mlp.pre"].shape == r[f"{at}mlp.act"].shape == (*mask.shape, spec.feed_forward.width)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padding_is_zero_where_it_is_packed_away(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", 0)
    _, r, given = record(family, "blocks.*")
    away = given["attention_mask"] == 0
    for address in r:
        value = r[address]
        if not address.endswith(("scores", "pattern")):
            assert not value[away].any(), address


def test_only_what_is_named_is_kept_and_only_inside_the_with() -> None:
    model, r, given = record("bert", "blocks.1.attn.pattern", "pooler")
    assert r.keys() == ["blocks.1.attn.pattern", "pooler"] and len(r.runs) == 1
    with torch.no_grad():
        model(**given)
    assert len(r.runs) == 1 and not scopes_of(model)
    assert "Recorder(1 passes" in repr(r) and "blocks.1.attn.pattern" in r
    with pytest.raises(AddressError, match="not asked for"):
        r["embed"]


def test_recording_may_be_nested_and_repeated() -> None:
    model, _, given = record("gpt2", "embed")
    with torch.no_grad(), model.record("embed") as a:
        model(**given)
        with model.record("embed", "final_norm") as b:
            model(**given)
    assert len(a.runs) == 2 and len(b.runs) == 1
    assert torch.equal(a.runs[0]["embed"], b["embed"]) and b["final_norm"].shape == (3, 7, 32)
    with model.record("embed") as c, pytest.raises(AddressError, match="no forward pass"):
        c["embed"]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("blocks.0.attn.patern", "blocks.0.attn.pattern"), ("block.1.resid", "blocks.1.resid"), ("logit", "logits")],
)
def test_wrong_addresses_name_the_nearest(wrong: str, near: str) -> None:
    model = load(make("bert", "ForMaskedLM"), "ForMaskedLM")
    with pytest.raises(AddressError, match=near):
        model.find_addresses([wrong])
    with pytest.raises(AddressError), model.record("blocks.9.*"):
        pass
    with torch.no_grad(), model.record("logits") as r:
        out = model(**inputs("bert", (5, 3)))
    assert torch.equal(r["logits"], out.logits)


def general(address: str) -> str:
    """An address as docs/addresses.md writes it: any layer, any head, either tower; cross-attention as attention."""
    address = re.sub(r"^(encoder|decoder)\.", "", address).replace(".cross.", ".attn.")
    return re.sub(r"head\.\d+", "head.{h}", re.sub(r"blocks\.\d+", "blocks.{i}", address))


def test_the_table_of_addresses_is_that_of_the_models() -> None:
    """In every family, those with experts, a convolution or narrow vectors among them; and no row names nothing."""
    page = Path(__file__).parents[3] / "docs" / "addresses.md"
    ours, others, _ = page.read_text("utf-8").partition("## Names of other libraries")
    assert others
    rows = re.findall(r"^\| `([^`]+)` \| ", ours, re.MULTILINE)
    there: set[str] = set()
    for family in FAMILIES:
        there |= {general(address) for address in load(make(family), "Model").addresses()}
    there |= {general(address) for address in load(make("bert", "ForMaskedLM"), "ForMaskedLM").addresses()}
    assert {"blocks.{i}.mlp.router", "blocks.{i}.conv", "project_out"} <= there
    assert sorted(general(row) for row in rows) == sorted(there)

"""The names that others have for activations: each means what our address means, measured against the libraries."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.pairs import inputs, load, pair
from parity.tiny_models import make
from torch import Tensor

from cutaway import Edit
from cutaway.errors import AddressError, InputError
from cutaway.inspect import activation_patching, compare, to_interp_engine, to_transformer_lens
from cutaway.nn.activations.foreign_names import LIBRARIES, ROWS, WITHOUT, ForeignNames
from cutaway.nn.activations.recorder import Recorder

DECODERS = ("gpt2", "llama", "gemma2", "gpt_neox", "olmo2")
FAMILIES = (*DECODERS, "bert", "t5")
CLOSE = 1e-5


def ending(family: str) -> str:
    return {"gpt2": "LMHeadModel", "bert": "ForMaskedLM", "t5": "ForConditionalGeneration"}.get(family, "ForCausalLM")


def tokenizer_beside(folder: Path) -> None:
    """The other libraries want a tokenizer, which nothing here reads with."""
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({f"w{i}": i for i in range(99)}, unk_token="w3")).save(str(folder / "tokenizer.json"))
    special = {"unk_token": "w3", "pad_token": "w0", "bos_token": "w1", "eos_token": "w2"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def recorded(model: Any, family: str) -> Recorder:
    with torch.no_grad(), model.record("*") as r:
        model(**inputs(family, (7,)))
    return r


def assert_same(name: str, theirs: Tensor, ours: Tensor) -> None:
    """Equal but for where the mask hides, which each fills with what it likes; heads may stand side by side."""
    theirs, ours = theirs.detach(), ours.detach()
    if theirs.shape != ours.shape and theirs.numel() == ours.numel():
        theirs = theirs.reshape(ours.shape)
    assert theirs.shape == ours.shape, name
    shown = ours.isfinite() & (ours > -1e30) & theirs.isfinite() & (theirs > -1e30)
    assert bool(shown.any()), name
    assert float((theirs - ours)[shown].abs().max()) < CLOSE * max(1.0, float(ours[shown].abs().max())), name


# -- without the libraries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_leads_to_an_address_or_says_why_not(family: str) -> None:
    """No name is lost: each of the table, in each layer, is one or the other, and never both."""
    model = load(make(family, ending(family)), ending(family))
    names: ForeignNames = model._foreign_names()
    known = set(model.addresses())
    assert all(known.issuperset(ours) for ours in names.ours.values())
    assert not names.ours.keys() & names.refused.keys()
    if family == "t5":
        assert names.ours["decoder_blocks.1.self_attn.hook_pattern"] == ("decoder.blocks.1.attn.pattern",)
        assert names.ours["decoder_blocks.1.cross_attn.hook_z"] == ("decoder.blocks.1.cross.z",)
        assert names.ours["encoder_blocks.1.hook_resid_pre"] == ("encoder.blocks.0.resid",)
        return
    reached = names.ours.keys() | names.refused.keys() | known
    absent = {"final_norm", "ln_final.hook_out", "unembed.hook_in", "ln_final.output"} if family == "bert" else set()
    for row in ROWS:
        for name in row.names:
            if "cross" not in name and name not in absent:
                assert name.replace("{i}", "2") in reached, name
    assert {name.replace("{i}", "2") for name in WITHOUT} <= names.refused.keys()


def test_a_recording_answers_to_their_names() -> None:
    model = load(make("gpt2", "LMHeadModel"), "LMHeadModel")
    asked = ("blocks.1.hook_resid_post", "layers_input[1]", "attn_probs.2", "blocks.0.attn.hook_result")
    with torch.no_grad(), model.record(*asked) as r:
        model(**inputs("gpt2", (7, 4)))
    assert r.wanted[:3] == ["blocks.1.resid", "blocks.0.resid", "blocks.2.attn.pattern"]
    assert r.wanted[3:] == [f"blocks.0.attn.head.{h}.out" for h in range(4)]
    assert torch.equal(r["resid_post.1"], r["blocks.1.resid"])
    assert torch.equal(r["blocks.2.hook_resid_pre"], r["blocks.1.resid"])
    assert torch.equal(r["attention_probabilities[2]"], r["blocks.2.attn.pattern"])
    result = r["blocks.0.attn.hook_result"]  # [B, L, heads, H]
    assert result.shape == (2, 7, 4, 32) and torch.equal(result[:, :, 3], r["blocks.0.attn.head.3.out"])
    assert torch.equal(r.at("blocks.0.attn.hook_result", 0), result)
    assert "layers_output[1]" in r and "layers_output[2]" not in r and "nonsense" not in r
    with pytest.raises(AddressError, match=r"here blocks\.2\.resid.*was not asked for"):
        r["layers_output[2]"]
    named = r.named("nnterp")
    assert set(named) == {"layers_output[0]", "layers_output[1]", "layers_input[1]", "layers_input[2]",
                          "attention_probabilities[2]"}  # fmt: skip
    with pytest.raises(InputError, match="'nnsight'"):
        r.named("nnsight")


def test_stars_and_brackets() -> None:
    model = load(make("llama", "ForCausalLM"), "ForCausalLM")
    blocks = [f"blocks.{i}.resid" for i in range(3)]
    assert model.find_addresses(["blocks.*.hook_resid_post"]) == blocks
    assert model.find_addresses(["layers_output[*]"]) == blocks
    assert model.find_addresses(["resid_post.*"]) == blocks
    assert model.find_addresses(["blocks.*.hook_resid_pre"]) == ["embed", *blocks[:2]]
    assert model.find_addresses(["blocks.*.attn.hook_rot_q"]) == [f"blocks.{i}.attn.q" for i in range(3)]
    assert model.find_addresses(["hook_embed", "embeddings", "token_embeddings", "embed"]) == ["embed"]


@pytest.mark.parametrize(
    ("family", "name", "why"),
    [
        ("llama", "blocks.1.attn.hook_q", "hook_rot_q"),
        ("gpt2", "blocks.1.attn.hook_rot_q", "no rotary"),
        ("gpt2", "hook_embed", "'embed'"),
        ("gpt2", "hook_pos_embed", "'embed'"),
        ("gemma2", "blocks.1.hook_mlp_out", "mlp.hook_out"),
        ("gpt_neox", "blocks.1.hook_resid_mid", "no state between"),
        ("bert", "blocks.1.hook_resid_mid", "differ"),
        ("gpt2", "blocks.1.ln1.hook_normalized", "inside a norm"),
        ("gpt2", "attentions_input[2]", "hook_resid_mid"),
        ("gemma2", "lm_head", "'logits'"),
        ("gpt2", "blocks.1.hook_resid_pots", "'blocks.1.hook_resid_post'"),
        ("gpt2", "blocks.9.hook_resid_post", "Did you mean"),
        ("gpt2", "layers_ouput[1]", r"'layers_output\[1\]'"),
        ("gpt2", "resid_pots.1", "'resid_post.1'"),
        ("gpt2", 3, "is a int"),
    ],
)
def test_a_name_that_means_nothing_here_says_why_or_what_is_near(family: str, name: Any, why: str) -> None:
    model = load(make(family, ending(family)), ending(family))
    with pytest.raises(AddressError, match=why):
        model.find_addresses([name])
    with pytest.raises(AddressError, match=why), model.edit({name: 0.0}):
        pass


def test_edits_and_measures_take_their_names() -> None:
    model = load(make("gpt2", "LMHeadModel"), "LMHeadModel")
    given, other = inputs("gpt2", (7,)), {"input_ids": inputs("gpt2", (7,))["input_ids"].flip(1)}
    with torch.no_grad():
        outs = []
        for name in ("blocks.1.attn.hook_z", "blocks.1.attn.z", "z.1"):
            with model.edit({name: Edit(0.0, heads=2)}):
                outs.append(model(**given).logits)
        with model.record("resid_pre.1") as r:
            model(**other)
        for name in ("layers_input[1]", "blocks.0.resid"):
            with model.edit({name: r}):
                outs.append(model(**given).logits)
        plain = model(**given).logits
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2]) and not torch.equal(outs[0], plain)
    assert torch.equal(outs[3], outs[4]) and not torch.equal(outs[3], plain)
    theirs = activation_patching(model, given, other, ["blocks.*.hook_resid_post"])
    ours = activation_patching(model, given, other, ["blocks.*.resid"])
    assert theirs.places == ours.places and torch.equal(theirs.effect, ours.effect)
    assert compare(model, given, other, places=["layers_output[*]"]).places == ours.places


def test_a_recording_from_files_does_not_know_its_model(tmp_path: Path) -> None:
    model = load(make("gpt2", "LMHeadModel"), "LMHeadModel")
    with torch.no_grad(), model.record("resid_post.1", to=tmp_path / "r") as r:
        model(**inputs("gpt2", (7,)))
    read = Recorder.load(tmp_path / "r")
    assert torch.equal(read["blocks.1.resid"], r["resid_post.1"])
    with pytest.raises(InputError, match="does not know its model"):
        read.named("transformer_lens")
    with pytest.raises(AddressError, match="was not asked for"):
        read["resid_post.1"]


def test_libraries_have_names_of_their_own() -> None:
    assert all(any(getattr(row, library) for row in ROWS) for library in LIBRARIES)


# -- against the libraries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_transformer_lens(family: str, tmp_path: Path) -> None:
    """Each of its hooks that we name holds what we have, and none that it fires under a name of the table is missed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' own
        pytest.importorskip("transformer_lens")
        from transformer_lens.model_bridge import TransformerBridge

        theirs, ours = pair(family, ending(family))
        theirs.save_pretrained(tmp_path)
        tokenizer_beside(tmp_path)
        bridge = TransformerBridge.boot_transformers(str(tmp_path), hf_model=theirs)
        given = inputs(family, (7,))
        more = {"decoder_input": given["decoder_input_ids"]} if family == "t5" else {}
        with torch.no_grad():
            _, cache = bridge.run_with_cache(given["input_ids"], **more)
        r = recorded(ours, family)
        converted = to_transformer_lens(r, ours)
        named = r.named("transformer_lens")
        for name, value in named.items():
            if name in cache.cache_dict:
                assert_same(name, cache[name], value)
                assert torch.equal(converted[name], value)
        shown = [name for name in named if name in cache.cache_dict]
        assert len(shown) >= (30 if family != "bert" else 25)
        if family != "t5":
            for layer in (1, 2):
                assert_same("tuple", cache["resid_post", layer], converted["resid_post", layer])
        if family in ("gpt2", "llama"):
            stacked = to_transformer_lens(r, ours).accumulated_resid(layer=-1, apply_ln=False)  # type: ignore[attr-defined]
            assert_same("accumulated", cache.accumulated_resid(layer=-1, apply_ln=False), stacked)


@pytest.mark.parametrize("family", DECODERS)
def test_interp_engine(family: str, tmp_path: Path) -> None:
    engine = pytest.importorskip("interp_engine")
    theirs, ours = pair(family, ending(family))
    theirs.save_pretrained(tmp_path)
    tokenizer_beside(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = engine.load_model(str(tmp_path))
        given = inputs(family, (7,))
        r = recorded(ours, family)
        cache = to_interp_engine(r)
        names = list(r.named("interp_engine"))
        captured = engine.capture(model, given["input_ids"], names)
    assert len(names) >= 30
    for name in names:
        assert captured[name].shape == cache[name].shape, name
        assert_same(name, captured[name], cache[name])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_nnterp(family: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("nnterp")
        from nnterp import StandardizedTransformer

        theirs, ours = pair(family, ending(family))
        theirs.save_pretrained(tmp_path)
        tokenizer_beside(tmp_path)
        patterns = family != "gpt2"  # it does not find GPT-2's own in this version of transformers
        model = StandardizedTransformer(str(tmp_path), device_map="cpu", enable_attention_probs=patterns)
        given = inputs(family, (7,))
        named = recorded(ours, family).named("nnterp")
        assert len(named) >= 15
        for name, value in named.items():
            accessor, _, layer = name.removesuffix("]").partition("[")
            if accessor == "attention_probabilities" and not patterns:
                continue
            with torch.no_grad(), model.trace({"input_ids": given["input_ids"]}):
                at: Any = model
                for part in accessor.split("."):
                    at = getattr(at, part)
                saved = (at[int(layer)] if layer else at).save()
            assert_same(name, saved, value)

"""The last state gives the model's logits; the tuned lens begins as the logit lens and does not get worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from inspect_models import FAMILIES, gap, texts, tiny

import cutaway
from cutaway.errors import InputError
from cutaway.inspect import TunedLens, direct_logit_attribution, last_state, logit_lens, promoted_tokens
from cutaway.inspect.target import Target
from cutaway.models.precision import enable_int8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_state_gives_the_logits(family: str) -> None:
    model, given = tiny(family), texts(family)
    with torch.no_grad():
        want = model(**given).logits
    lens = logit_lens(model, given, top=3)
    real = given["attention_mask"].bool() if "decoder_input_ids" not in given else torch.ones(2, 5, dtype=torch.bool)
    assert gap(lens.logits[-1][real], want[real]) < 1e-12
    assert float(lens.kl[-1][real].abs().max()) < 1e-12 and bool((lens.kl[:, real] > -1e-12).all())
    assert torch.equal(lens.tokens[-1][..., 0][real], want.argmax(-1)[real])
    assert len(lens.places) == len(lens.logits) and "logits" not in lens.to_dict()


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert"])
def test_the_tuned_lens_begins_as_the_logit_lens_and_only_improves(family: str) -> None:
    model, given = tiny(family), texts(family)
    lens = TunedLens(model)
    real = given["attention_mask"].bool() if "decoder_input_ids" not in given else torch.ones(2, 5, dtype=torch.bool)
    before = logit_lens(model, given)
    assert torch.equal(lens.read(model, given).logits, before.logits)
    kl = lens.fit(model, [given], steps=30, rate=3e-3)
    after = lens.read(model, given)
    assert torch.allclose(before.kl[:-1, real].mean(1).float(), kl[0], rtol=1e-4)
    assert torch.allclose(after.kl[:-1, real].mean(1).float(), kl[1], rtol=1e-4)
    assert bool((kl[1] <= kl[0]).all()) and float(kl[1].sum()) < 0.9 * float(kl[0].sum())
    assert torch.equal(after.logits[-1], before.logits[-1])
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    worse = TunedLens(model).fit(model, [given], steps=3, rate=100.0)  # a rate that only leads away
    assert bool((worse[1] <= worse[0]).all())


def test_a_lens_needs_a_vocabulary() -> None:
    with pytest.raises(InputError, match="language model"):
        logit_lens(tiny("bert", "ForSequenceClassification"), texts("bert"))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_last_state_is_the_sum_of_its_parts(family: str) -> None:
    model, given = tiny(family), texts(family, (6, 6))
    found = last_state(model, given)
    assert len(set(found.names)) == len(found.names) == len(found.parts)
    assert gap(found.parts.sum(0), found.state) < 1e-12
    out = model.base_model(**given).last_hidden_state
    assert gap(found.state, out) < 1e-12


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
@torch.no_grad()
def test_contributions_sum_to_the_logit(family: str) -> None:
    model, given = tiny(family), texts(family, (6,))
    logits = model(**given).logits[0]
    found = direct_logit_attribution(model, given)
    assert found.index == int(logits[-1].argmax()) and found.position == len(logits) - 1
    assert found.total == pytest.approx(float(logits[-1].max()), abs=1e-10) == found.logit
    both = direct_logit_attribution(model, given, Target(index=7, against=9, position=1))
    assert both.total == pytest.approx(float(logits[1, 7] - logits[1, 9]), abs=1e-10)
    if family == "gpt2":
        assert "final_norm.bias" in found.names and "blocks.2.attn.bias" in found.names


@torch.no_grad()
def test_contributions_to_a_label() -> None:
    model, given = tiny("gpt2", "ForSequenceClassification"), texts("gpt2", (6,))
    model.config.pad_token_id = 0
    found = direct_logit_attribution(model, given, Target(index=1))
    assert found.total == pytest.approx(float(model(**given).logits[0, 1]), abs=1e-10)
    with pytest.raises(InputError, match="last_state"):
        direct_logit_attribution(tiny("bert"), texts("bert", (6,)))


@torch.no_grad()
def test_a_sum_that_is_not_the_logit_is_said() -> None:
    """In float64 they agree; with bytes the parts are products of the weights, and the logit of what was rounded."""
    found = direct_logit_attribution(tiny("gpt2"), texts("gpt2", (6,)))
    assert "apart" not in found.note and found.sheet().note == found.note
    assert "apart" not in replace(found, total=found.logit * 1.0009).note
    assert "0.0011 of it apart" in replace(found, total=found.logit * 1.0011).note
    assert "0.5 apart" in replace(found, total=0.5, logit=0.0).note
    torch.manual_seed(0)
    fields = {"n_embd": 128, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": 300, "initializer_range": 0.3}
    model = cutaway.GPT2LMHeadModel(cutaway.GPT2Config(**fields)).eval()
    inputs = {"input_ids": torch.randint(3, 300, (1, 9))}
    exact = direct_logit_attribution(model, inputs, Target(index=7))
    enable_int8(model)
    rounded = direct_logit_attribution(model, inputs, Target(index=7))
    assert abs(exact.total - exact.logit) < 1e-5 * float(exact.values.abs().sum()) and "apart" not in exact.note
    assert abs(rounded.total - rounded.logit) > 1e-3 * abs(rounded.logit) and "int8" in rounded.sheet().note


def narrow() -> Any:
    """An OPT whose states are wider than its token vectors."""
    torch.manual_seed(0)
    config = cutaway.OPTConfig(
        vocab_size=60, hidden_size=16, word_embed_proj_dim=12, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24,
        max_position_embeddings=32, do_layer_norm_before=False, init_std=0.5, pad_token_id=0,
    )  # fmt: skip
    return cutaway.OPTForCausalLM(config).eval()


@torch.no_grad()
def test_states_wider_than_token_vectors() -> None:
    model, inputs = narrow(), {"input_ids": torch.randint(3, 60, (1, 7))}
    logits = model(**inputs).logits
    assert torch.allclose(logit_lens(model, inputs).logits[-1], logits, atol=1e-4)
    state = last_state(model, inputs)
    assert gap(state.parts.sum(0), state.state) < 1e-5 and gap(state.state @ model.lm_head.weight.T, logits) < 1e-5
    found = direct_logit_attribution(model, inputs, Target(index=5))
    assert found.total == pytest.approx(float(logits[0, -1, 5]), rel=1e-4)
    column = model.model.blocks[1].mlp.down.weight[:, 3]
    wanted = model.lm_head.weight @ model.model.project_out.weight @ column
    promoted = promoted_tokens(model, 1, 3, top=60)
    assert torch.allclose(promoted.raised_by, wanted.sort(descending=True).values, atol=1e-5)


@torch.no_grad()
def test_the_sum_of_neighbours_is_a_part_of_the_only_block() -> None:
    torch.manual_seed(0)
    config = cutaway.DebertaV2Config(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        conv_kernel_size=3, relative_attention=True, pos_att_type="c2p", initializer_range=0.5,
    )  # fmt: skip
    model = cutaway.DebertaV2ForMaskedLM(config).eval()
    state = last_state(model, {"input_ids": torch.randint(3, 60, (1, 7))})
    assert "blocks.0.conv" in state.names and gap(state.parts.sum(0), state.state) < 1e-5

"""Lens, contributions and patching against TransformerLens, on one tiny GPT-2 that both load."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from parity.pairs import gap, inputs, pair
from torch import Tensor

from cutaway.inspect import Target, activation_patching, direct_logit_attribution, logit_lens

CLOSE = 1e-4
A, B = 5, 9  # the two tokens whose logits are compared
HEADS = range(4)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """(TransformerLens' model with its own treatment of weights, ours)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' own
        pytest.importorskip("transformer_lens")
        from transformer_lens.model_bridge import TransformerBridge

        hugging, ours = pair("gpt2", "LMHeadModel")
        folder = tmp_path_factory.mktemp("gpt2")
        hugging.save_pretrained(folder)  # it reads the config from there
        theirs = TransformerBridge.boot_transformers(str(folder), hf_model=hugging)
        theirs.enable_compatibility_mode(disable_warnings=True, fold_value_biases=False)
    return theirs, ours


def difference(logits: Tensor) -> Tensor:
    """[batch, length, vocabulary] -> the mean difference of the two logits at the last place."""
    return (logits[:, -1, A] - logits[:, -1, B]).mean()


@torch.no_grad()
def test_the_lens(models: tuple[Any, Any]) -> None:
    """Logits but for their mean, which TransformerLens takes off."""
    theirs, ours = models
    given = inputs("gpt2", (7,))
    _, kept = theirs.run_with_cache(given["input_ids"])
    states = kept.accumulated_resid(layer=-1, incl_mid=False, apply_ln=False)  # [layers + 1, batch, length, hidden]
    mine = logit_lens(ours, given).logits
    assert len(mine) == len(states) == 4
    for state, found in zip(states, mine, strict=True):
        assert gap(found - found.mean(-1, keepdim=True), theirs.unembed(theirs.ln_final(state))) < CLOSE


@torch.no_grad()
def test_contributions(models: tuple[Any, Any]) -> None:
    """Of the embedding, each head and each feed-forward layer to the difference of two logits."""
    theirs, ours = models
    given = inputs("gpt2", (7,))
    _, kept = theirs.run_with_cache(given["input_ids"])
    direction = theirs.unembed.W_U[:, A] - theirs.unembed.W_U[:, B]
    found = direct_logit_attribution(ours, given, Target(index=A, against=B))
    values = dict(zip(found.names, found.values.tolist(), strict=True))

    heads, labels = kept.stack_head_results(layer=-1, return_labels=True, apply_ln=False)
    parts = {f"blocks.{i}.attn.head.{h}.out": heads[i * 4 + h] for i in range(3) for h in HEADS}
    assert labels[:12] == [f"L{i}H{h}" for i in range(3) for h in HEADS]
    parts |= {f"blocks.{i}.mlp.out": kept["mlp_out", i] for i in range(3)}
    parts["embed"] = kept["embed"] + kept["pos_embed"]
    scale = kept["ln_final.hook_scale"][0, -1]
    for name, part in parts.items():
        mine = part[0, -1] - part[0, -1].mean()
        assert values[name] == pytest.approx(float(mine / scale @ direction), abs=CLOSE), name


@pytest.mark.parametrize(
    ("places", "measure"),
    [
        (["embed", "blocks.0.resid", "blocks.1.resid"], "resid_pre"),
        (["blocks.*.attn.out"], "attn_out"),
        (["blocks.*.mlp.out"], "mlp_out"),
    ],
)
@torch.no_grad()
def test_patching(models: tuple[Any, Any], places: list[str], measure: str) -> None:
    theirs, ours = models
    from transformer_lens import patching

    clean = inputs("gpt2", (6,))
    other = {"input_ids": clean["input_ids"].clone()}
    other["input_ids"][0, 2] = 50
    said, kept = theirs.run_with_cache(clean["input_ids"])
    good, bad = difference(said), difference(theirs(other["input_ids"]))

    def effect(logits: Tensor) -> Tensor:
        return (difference(logits) - bad) / (good - bad)

    run = getattr(patching, f"get_act_patch_{measure}")
    wanted = run(theirs, other["input_ids"], kept, effect)  # [layers, positions]
    found = activation_patching(ours, clean, other, places, Target(index=A, against=B)).effect
    assert gap(found, wanted.to(found.dtype)) < CLOSE

"""Llama's variants against transformers: every rotary scaling in both spellings, head sizes, biases, grouped heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, gaps, inputs, pair
from parity.tiny_models import make

from cutaway import AutoModelForCausalLM, LlamaForCausalLM

ALL = {"output_attentions": True, "output_hidden_states": True}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0, 1.1, 1.3, 1.7],
        "long_factor": [1.5, 2.0, 3.0, 4.0],
    },
}


TYPES = ["full_attention", "sliding_attention", "full_attention"]
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 3.0, 4.0]}
MODERN = {"sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 99.0}}


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("length", [12, 30])
def test_scalings_within_and_beyond_the_trained_length(kind: str, length: int) -> None:
    rope = {"rope_theta": 500.0, **SCALINGS[kind]}
    theirs, ours = pair("llama", "ForCausalLM", rope_parameters=rope, max_position_embeddings=64)
    given = inputs("llama", (length, length))
    with torch.no_grad():
        found = gaps(ours(**given, **ALL), theirs(**given, **ALL), given)
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("kind", SCALINGS)
def test_the_older_spelling_says_the_same(kind: str, tmp_path: Path) -> None:
    """rope_theta and rope_scaling, with the kind under "type" as checkpoints before 2024 have it."""
    rope = {"rope_theta": 500.0, **SCALINGS[kind]}
    theirs = make("llama", "ForCausalLM", rope_parameters=rope, max_position_embeddings=64)
    theirs.save_pretrained(tmp_path)
    ids = inputs("llama", (30, 30))["input_ids"]
    with torch.no_grad():
        new = LlamaForCausalLM.from_pretrained(tmp_path)(ids).logits
        path = tmp_path / "config.json"
        for key in ("rope_type", "type"):
            fields = json.loads(path.read_text())
            fields.pop("rope_parameters", None)
            fields["rope_theta"] = 500.0
            fields["rope_scaling"] = (
                None
                if kind == "default"
                else {("type" if k == "rope_type" else k): v for k, v in SCALINGS[kind].items()}
            )
            if key == "rope_type" and fields["rope_scaling"]:
                fields["rope_scaling"]["rope_type"] = fields["rope_scaling"].pop("type")
            path.write_text(json.dumps(fields))
            assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path)(ids).logits, new)
            assert gap(new, type(theirs).from_pretrained(tmp_path)(ids).logits) < TOLERANCE


@pytest.mark.parametrize(
    "fields",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"head_dim": 16},
        {"head_dim": 4},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"tie_word_embeddings": True},
        {"hidden_act": "gelu"},
        {"rms_norm_eps": 1e-2},
    ],
    ids=str,
)
def test_variants(fields: dict[str, Any]) -> None:
    theirs, ours = pair("llama", "ForCausalLM", **fields)
    given = inputs("llama", (9, 4, 7))
    with torch.no_grad():
        found = gaps(ours(**given, **ALL), theirs(**given, **ALL), given)
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 1e-3}),
        ("distilbert", {"activation": "relu", "sinusoidal_pos_embds": True}),
        ("electra", {"embedding_size": 32}),
        ("albert", {"num_hidden_groups": 1, "embedding_size": 32}),
        ("modernbert", {"norm_bias": True, "mlp_bias": True, "attention_bias": True, "local_attention": 5}),
        ("modernbert", {"global_attn_every_n_layers": 2, "local_rope_theta": 50.0, "global_rope_theta": 500.0}),
        ("modernbert", {"layer_types": ["sliding_attention"] * 3, "rope_parameters": MODERN}),
        ("gpt2", {"activation_function": "relu", "n_inner": 40}),
        ("gpt2", {"scale_attn_weights": False}),
        ("t5", {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}),
        ("t5", {"feed_forward_proj": "gated-silu"}),
        ("bart", {"scale_embedding": True, "activation_function": "relu"}),
        ("mistral", {"sliding_window": None, "head_dim": 4}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("qwen3", {"layer_types": TYPES, "sliding_window": 5, "use_sliding_window": True}),
        ("qwen3", {"attention_bias": True}),
        ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 2, "mlp_bias": True, "attention_bias": True}),
        ("gemma", {"hidden_act": "gelu", "attention_bias": True, "num_key_value_heads": 4}),
        ("phi3", {"sliding_window": 5, "num_key_value_heads": 4}),
        ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 24}),
        ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 12}),
    ],
    ids=str,
)
def test_variants_of_other_families(family: str, fields: dict[str, Any]) -> None:
    theirs, ours = pair(family, **fields)
    given = inputs(family, (18, 18))
    with torch.no_grad():
        found = gaps(ours(**given, **ALL), theirs(**given, **ALL), given)
    assert max(found.values()) < TOLERANCE, found


def test_a_scaling_beside_two_tables_is_that_of_the_layers_without_a_window(tmp_path: Path) -> None:
    """Gemma 3: under `type`, the older key, upstream passes it over (findings/), so both keys are compared here."""
    plan = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}
    theirs = make("gemma3_text", "ForCausalLM", **plan)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    ids = inputs("gemma3_text", (30, 30))["input_ids"]
    tables = {"full_attention": {"rope_theta": 5000.0}, "sliding_attention": {"rope_theta": 100.0}}
    spellings: list[dict[str, Any]] = [
        {"rope_parameters": tables},
        {"rope_parameters": None, "rope_theta": 5000.0, "rope_local_base_freq": 100.0},
    ]
    logits = []
    for spelling in spellings:
        for key in ("rope_type", "type"):
            path.write_text(json.dumps({**fields, **spelling, "rope_scaling": {key: "linear", "factor": 2.0}}))
            with torch.no_grad():
                logits.append(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits)
                if key == "rope_type":
                    assert gap(logits[-1], type(theirs).from_pretrained(tmp_path)(ids).logits) < TOLERANCE
    assert all(torch.equal(one, logits[0]) for one in logits)

"""Embedding models with rotary positions: files as their authors published them, and the pooler that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, inputs, pair
from parity.tiny_models import make

import cutaway
from cutaway.errors import ConfigError

# config.json as its authors wrote it: GPT-2's words, and switches of their own software
AUTHORS: dict[str, Any] = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "auto_map": {"AutoModel": "elsewhere.Model"},
    "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 40, "vocab_size": 99, "type_vocab_size": 2,
    "activation_function": "swiglu", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "causal": False,
    "dense_seq_output": True, "fused_bias_fc": True, "layer_norm_epsilon": 1e-12, "max_trained_positions": 20,
    "mlp_fc1_bias": False, "mlp_fc2_bias": False, "prenorm": False, "qkv_proj_bias": False, "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None, "scale_attn_weights": True, "use_rms_norm": False, "use_flash_attn": True,
}  # fmt: skip


def written(folder: Path, **fields: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({**AUTHORS, **fields}))
    return folder


@torch.no_grad()
def test_the_authors_config_says_the_same(tmp_path: Path) -> None:
    theirs = make("nomic_bert")
    theirs.save_pretrained(tmp_path)
    given = inputs("nomic_bert", (9, 4, 7))
    ours = cutaway.AutoModel.from_pretrained(written(tmp_path))
    assert type(ours) is cutaway.NomicBertModel
    real = given["attention_mask"].bool()
    assert gap(ours(**given).last_hidden_state[real], theirs(**given).last_hidden_state[real]) < TOLERANCE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "gelu"), ("qkv_proj_bias", True), ("prenorm", True), ("causal", True),
        ("rotary_scaling_factor", 2.0), ("rotary_emb_fraction", 0.5), ("moe_every_n_layers", 2), ("num_experts", 8),
        ("use_rms_norm", True), ("embd_pdrop", 0.1),
    ],
)  # fmt: skip
def test_what_the_authors_code_has_beside_is_refused(tmp_path: Path, field: str, value: object) -> None:
    make("nomic_bert").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=field):
        cutaway.AutoModel.from_pretrained(written(tmp_path, **{field: value}))


@pytest.mark.parametrize(("family", "pools"), [("nomic_bert", False), ("gte", False), ("jina_embeddings_v3", True)])
def test_the_pooler_is_there_where_upstream_has_it(family: str, pools: bool) -> None:
    theirs, ours = pair(family)
    assert (theirs.pooler is not None) == ours.architecture.pooler == pools
    assert (ours(torch.tensor([[5, 6]])).get("pooler_output") is not None) == pools
    assert type(ours)(ours.config, add_pooling_layer=True).architecture.pooler


@torch.no_grad()
def test_gte_takes_types_that_it_does_not_have() -> None:
    theirs, ours = pair("gte")
    given = inputs("gte", (6, 6))
    types = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    assert gap(ours(**given, token_type_ids=types)[0], theirs(**given, token_type_ids=types)[0]) < TOLERANCE


@pytest.mark.parametrize("pooling", ["bos", "mean", "late"])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_each_way_of_eurobert_to_read_a_text(pooling: str, bias: bool) -> None:
    theirs, ours = pair(
        "eurobert", "ForSequenceClassification", classifier_pooling=pooling, mlp_bias=bias, num_labels=3
    )
    given = inputs("eurobert", (9, 4, 7))
    assert gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE
    assert ours.late == (pooling == "late")


@torch.no_grad()
def test_eurobert_output_has_a_bias_where_the_config_says_so() -> None:
    theirs, ours = pair("eurobert", "ForMaskedLM", mlp_bias=True)
    given = inputs("eurobert", (6, 6))
    assert ours.lm_head.bias is not None and gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE

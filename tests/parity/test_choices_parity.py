"""What a family's config may say beside what its tiny model says: logits and cached steps equal transformers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, gaps, inputs, pair

OLD_FALCON = {"new_decoder_architecture": False, "num_kv_heads": None}
ALIBI = {"alibi": True, "attn_implementation": "sdpa"}  # upstream's other way adds the slopes twice
SIX_HEADS = {"hidden_size": 36, "num_attention_heads": 6}  # no power of two
CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("falcon", {"num_ln_in_parallel_attn": 1}),
    ("falcon", {**OLD_FALCON, "bias": True}),
    ("falcon", {**OLD_FALCON, "multi_query": False}),
    ("falcon", {**OLD_FALCON, **ALIBI, "multi_query": False, "parallel_attn": False, "bias": True}),
    ("falcon", {**OLD_FALCON, **ALIBI, **SIX_HEADS}),
    ("bloom", {"hidden_size": 36, "n_head": 6}),
    ("stablelm", {"use_parallel_residual": False, "qk_layernorm": False, "use_qkv_bias": False}),
    ("phi", {"qk_layernorm": True}),
    ("cohere", {"use_qk_norm": False, "attention_bias": True}),
    ("cohere2", {"layer_types": None, "sliding_window_pattern": 2, "attention_bias": True}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True}),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 2}),
    (
        "gemma3_text",
        {
            "final_logit_softcapping": 3.0,
            "attn_logit_softcapping": 2.0,
            "rope_parameters": None,
            "sliding_window_pattern": 2,
        },
    ),
    ("gpt_neo", {"attention_types": [[["global", "local"], 2]], "num_layers": 4, "tie_word_embeddings": False}),
    ("gptj", {"rotary_dim": 8, "n_inner": 40, "tie_word_embeddings": True}),
    ("olmo2", {"attention_bias": True, "num_key_value_heads": 4}),
    ("granite", {"attention_bias": True, "mlp_bias": True, "residual_multiplier": 1.0}),
]


@pytest.mark.parametrize(("family", "fields"), CHOICES, ids=[f"{f}-{i}" for i, (f, _) in enumerate(CHOICES)])
@torch.no_grad()
def test_a_choice(family: str, fields: dict[str, Any]) -> None:
    theirs, ours = pair(family, "ForCausalLM", **fields)
    for lengths in ((9, 9), (9, 4, 7)):
        given = inputs(family, lengths)
        asked = {"output_hidden_states": True}
        found = gaps(ours(**given, **asked), theirs(**given, **asked), given)
        assert max(found.values()) < TOLERANCE, found
    ids = given["input_ids"][:1]
    first = ours(ids[:, :5], use_cache=True)
    cached = ours(ids[:, 5:], past_key_values=first.past_key_values)
    assert gap(torch.cat((first.logits, cached.logits), 1), theirs(ids).logits) < TOLERANCE
    answers = [model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0) for model in (theirs, ours)]
    assert torch.equal(*answers)

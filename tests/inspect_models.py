"""Tiny random models in float64, made by cutaway alone, with weights spread out so that nothing is uniform."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import cutaway

V = 61
BERT = {
    "vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40,
}  # fmt: skip
GPT2 = {
    "vocab_size": V,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 2,
    "n_positions": 40,
    "bos_token_id": 1,
}
T5 = {"vocab_size": V, "d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "d_ff": 24}
BART = {
    "vocab_size": V, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 40,
}  # fmt: skip
FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "gpt2": ("GPT2", GPT2),
    "llama": ("Llama", {**BERT, "num_key_value_heads": 1}),
    "t5": ("T5", T5),
    "bart": ("Bart", BART),
}
FAMILIES = tuple(FIELDS)
# one whose heads are its own
FIELDS["xlnet"] = ("XLNet", {"vocab_size": V, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24})
LANGUAGE = {
    "bert": "ForMaskedLM", "gpt2": "LMHeadModel", "llama": "ForCausalLM", "t5": "ForConditionalGeneration",
    "bart": "ForConditionalGeneration", "xlnet": "LMHeadModel",
}  # fmt: skip


@cache
def tiny(family: str, ending: str = "", seed: int = 0) -> Any:
    """A model of the family under the class whose name ends so; a language model unless given."""
    first, fields = FIELDS[family]
    torch.manual_seed(seed)
    config = getattr(cutaway, f"{first}Config")(**fields)
    model = getattr(cutaway, first + (ending or LANGUAGE[family]))(config)
    spread = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=spread)
            p.copy_(noise * (0.3 if p.dim() > 1 else 0.1) + (1.0 if p.dim() == 1 and float(p.mean()) > 0.5 else 0.0))
    return model.double().eval()


def texts(family: str, lengths: tuple[int, ...] = (7, 4), seed: int = 1) -> dict[str, Tensor]:
    """A padded batch of random ids for the family."""
    draw = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(5, V, (len(lengths), longest), generator=draw)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    found = {"input_ids": ids * mask, "attention_mask": mask}
    if family in ("t5", "bart"):
        found["decoder_input_ids"] = torch.randint(5, V, (len(lengths), 5), generator=draw)
    return found


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a part of the largest value."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-12))

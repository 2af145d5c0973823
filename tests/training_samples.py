"""Tiny models without dropout, and rows of different lengths for every head."""

from __future__ import annotations

from typing import Any

import torch

import cutaway

SIZES: dict[str, dict[str, Any]] = {
    "Bert": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
    "DistilBert": {
        "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40, "dropout": 0.0,
        "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0,
    },
    "GPT2": {
        "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "classifier_dropout": 0.0,
    },
    "Llama": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 0, "classifier_dropout": 0.0,
    },
    "T5": {
        "d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "d_ff": 24,
        "dropout_rate": 0.0,
    },
    "Bart": {
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
        "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "pad_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip
_BERT = SIZES["Bert"]
_DECODER = {**SIZES["Llama"], "bos_token_id": 1, "eos_token_id": 2}
SIZES |= {
    "Roberta": {**_BERT, "pad_token_id": 1, "max_position_embeddings": 44},
    "XLMRoberta": {**_BERT, "pad_token_id": 1, "max_position_embeddings": 44},
    "Camembert": {**_BERT, "pad_token_id": 1, "max_position_embeddings": 44},
    "Electra": {**_BERT, "embedding_size": 12, "summary_last_dropout": 0.0},
    "Albert": {**_BERT, "embedding_size": 12, "classifier_dropout_prob": 0.0},
    "MPNet": {**_BERT, "pad_token_id": 1, "max_position_embeddings": 44},
    "DebertaV2": {
        **_BERT, "relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 8, "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "conv_kernel_size": 3,
    },
    "ModernBert": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 40, "local_attention": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "cls_token_id": 1, "sep_token_id": 2,
    },
    "Mistral": _DECODER,
    "SmolLM3": _DECODER,
    "Qwen2": _DECODER,
    "Qwen3": {**_DECODER, "head_dim": 8},
    "Gemma": {**_DECODER, "head_dim": 8},
    "Phi3": {**_DECODER, "original_max_position_embeddings": 40},
    "GPTNeoX": {
        **{name: size for name, size in _DECODER.items() if name != "num_key_value_heads"},
    },
    "Gemma2": {**_DECODER, "head_dim": 8},
    "Olmo2": _DECODER,
    "Granite": {**_DECODER, "residual_multiplier": 0.5},
    "Phi": _DECODER,
    "StableLm": {**_DECODER, "use_parallel_residual": True},
    "Cohere": _DECODER,
    "Cohere2": _DECODER,
    "GPTJ": {**SIZES["GPT2"], "rotary_dim": 4, "n_inner": 24},
    "GPTNeo": {
        "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40,
        "attention_types": [[["global", "local"], 1]], "window_size": 4, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "classifier_dropout": 0.0,
    },
    "Falcon": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_hidden_size": 24,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "classifier_dropout": 0.0,
    },
    "Bloom": {
        "hidden_size": 16, "n_layer": 2, "n_head": 2,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "classifier_dropout": 0.0,
    },
    "OPT": {
        "hidden_size": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24,
        "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "dropout": 0.0,
    },
    "MBart": SIZES["Bart"],
    "Marian": {**SIZES["Bart"], "pad_token_id": 0, "decoder_start_token_id": 0},
    "Pegasus": {**SIZES["Bart"], "pad_token_id": 0},
    "M2M100": SIZES["Bart"],
}  # fmt: skip
SIZES |= {"MT5": SIZES["T5"], "UMT5": SIZES["T5"]}
LABELS = 3
_THREE = "SequenceClassification TokenClassification QuestionAnswering"
HEADS = {
    "Bert": f"{_THREE} MultipleChoice MaskedLM",
    "DistilBert": f"{_THREE} MultipleChoice MaskedLM",
    "Roberta": f"{_THREE} MultipleChoice MaskedLM CausalLM",
    "XLMRoberta": "SequenceClassification MaskedLM",
    "Camembert": "TokenClassification MaskedLM",
    "Electra": f"{_THREE} MultipleChoice MaskedLM CausalLM",
    "Albert": f"{_THREE} MultipleChoice MaskedLM",
    "MPNet": f"{_THREE} MultipleChoice MaskedLM",
    "ModernBert": f"{_THREE} MultipleChoice MaskedLM",
    "DebertaV2": f"{_THREE} MultipleChoice MaskedLM",
    "GPT2": f"{_THREE} LMHeadModel",
    **dict.fromkeys(("Llama", "Mistral", "SmolLM3", "Qwen2", "Qwen3", "GPTNeoX"), f"{_THREE} CausalLM"),
    **dict.fromkeys(("Gemma", "Phi3"), "SequenceClassification TokenClassification CausalLM"),
    "Gemma2": "SequenceClassification TokenClassification CausalLM",
    "Olmo2": "SequenceClassification CausalLM",
    "Granite": "CausalLM",
    "Phi": "SequenceClassification TokenClassification CausalLM",
    "StableLm": "SequenceClassification TokenClassification CausalLM",
    "Cohere": "CausalLM",
    "Cohere2": "CausalLM",
    "GPTJ": "SequenceClassification QuestionAnswering CausalLM",
    "GPTNeo": f"{_THREE} CausalLM",
    "Falcon": f"{_THREE} CausalLM",
    "Bloom": f"{_THREE} CausalLM",
    "OPT": "SequenceClassification QuestionAnswering CausalLM",
    "T5": f"{_THREE} ConditionalGeneration",
    "MT5": "ConditionalGeneration",
    "UMT5": "TokenClassification ConditionalGeneration",
    "Bart": "SequenceClassification QuestionAnswering ConditionalGeneration",
    "MBart": "SequenceClassification QuestionAnswering ConditionalGeneration",
    "Marian": "MTModel",
    "Pegasus": "ConditionalGeneration",
    "M2M100": "ConditionalGeneration",
}
EVERY = [
    f"{family}{'' if head in ('LMHeadModel', 'MTModel') else 'For'}{head}"
    for family, heads in HEADS.items()
    for head in heads.split()
]


def model(name: str, **fields: Any) -> Any:
    """A model by class name, the same weights each time, large enough that every gradient is."""
    family = next(f for f in sorted(SIZES, key=len, reverse=True) if name.startswith(f))
    own = {"eos_token_id": 2} if family.endswith("T5") else {}
    if family in ("Roberta", "Electra") and name.endswith("CausalLM"):
        own = {"is_decoder": True}
    given = {"vocab_size": 60, "num_labels": LABELS, **SIZES[family], **own, **fields}
    config = getattr(cutaway, f"{family}Config")(**given)
    torch.manual_seed(0)
    made = getattr(cutaway, name)(config)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return made


def rows(name: str, n: int = 16, seed: int = 1, pad: int = 0) -> list[dict[str, Any]]:
    """n rows for a model of that class; lengths 4 to 9, padded to 10, some labels left out."""
    draw = torch.Generator().manual_seed(seed)

    def ids(length: int) -> torch.Tensor:
        return torch.randint(5, 60, (length,), generator=draw)

    found = []
    for i in range(n):
        length = 4 + int(torch.randint(6, (), generator=draw))
        text = torch.cat((ids(length), torch.tensor([2]), torch.full((9 - length,), pad)))  # ends with an end of text
        row: dict[str, Any] = {"input_ids": text, "attention_mask": (torch.arange(10) <= length).long()}
        asked = (torch.rand(10, generator=draw) < 0.4) & (torch.arange(10) <= length)
        labels = ids(10).where(asked, -100)
        if name.endswith("SequenceClassification"):
            row["label"] = i % LABELS
        elif name.endswith("QuestionAnswering"):
            row["start_positions"], row["end_positions"] = (i * 3) % length, length - 1 if i % 4 else 30
        elif name.endswith("MultipleChoice"):
            row = {k: torch.stack((v, v)) for k, v in row.items()}  # [2, 10]
            row["input_ids"][1, :4] = ids(4)
            row["label"] = i % 2
        elif name.endswith("TokenClassification"):
            row["labels"] = (labels % LABELS).where(labels != -100, -100)
        elif name.endswith(("ConditionalGeneration", "MTModel")):
            row["labels"] = ids(8).where(torch.arange(8) < 3 + i % 5, -100)
        elif name.endswith("MaskedLM"):
            row["labels"] = labels
        else:  # the next token
            row["labels"] = text.where(row["attention_mask"].bool(), -100)
        found.append(row)
    return found


def arguments(folder: Any, **more: Any) -> cutaway.TrainingArguments:
    """Quiet, on the processor, logging each step."""
    quiet: dict[str, Any] = {
        "output_dir": str(folder), "use_cpu": True, "disable_tqdm": True, "report_to": "none", "logging_steps": 1,
        "save_strategy": "no",
    }  # fmt: skip
    return cutaway.TrainingArguments(**{**quiet, **more})


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of two copies."""
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)

"""One thing that must be refused, and small checkpoints to spoil."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cutaway import auto

_SMALL = {"vocab_size": 40, "max_position_embeddings": 16, "initializer_range": 0.5}
_BERT = {**_SMALL, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
SIZES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "distilbert": {**_SMALL, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12},
    "roberta": {**_BERT, "max_position_embeddings": 18},
    "xlm-roberta": {**_BERT, "max_position_embeddings": 18},
    "electra": {**_BERT, "embedding_size": 6},
    "albert": {**_BERT, "embedding_size": 8},
    "mpnet": {**_BERT, "max_position_embeddings": 18},
    "deberta-v2": {
        **_BERT, "relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 4, "conv_kernel_size": 3,
    },
    "modernbert": {**_BERT, "local_attention": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "gpt2": {"vocab_size": 40, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": 12},
    "llama": {**_BERT, "num_key_value_heads": 1},
    "t5": {"vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2},
    "bart": {
        "vocab_size": 40, "max_position_embeddings": 16, "d_model": 8, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`prepare` gets an empty folder and returns what is tried; that must raise `error`, or nothing where it is "".

    pattern: what the message must match: the field, the value, the way out.
    """

    name: str
    error: str
    pattern: str
    prepare: Callable[[Path], Callable[[], object]]


def config(family: str, **fields: Any) -> Any:
    return auto.config_class(family)(**{**SIZES[family], **fields})


@functools.cache
def saved(family: str, ending: str = "") -> Path:
    """A folder with a small model of the family, written once per process."""
    folder = Path(tempfile.mkdtemp(prefix="cutaway-bad-"))
    kind = getattr(auto, f"AutoModel{ending}")
    kind.from_config(config(family)).save_pretrained(folder)
    return folder


def spoilt(folder: Path, family: str, ending: str = "", **fields: Any) -> Path:
    """A copy of the small model with other fields in its config.json."""
    shutil.copytree(saved(family, ending), folder, dirs_exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def ids(batch: int = 2, length: int = 5) -> torch.Tensor:
    return torch.arange(batch * length).view(batch, length) + 3

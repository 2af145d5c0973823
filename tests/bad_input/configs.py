"""Configurations that cannot be built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input.case import Case, config, spoilt
from cutaway import auto

NAN, INF = float("nan"), float("inf")
NO_SIZE: tuple[Any, ...] = (-1, 10**12, 10**400, 1.5, NAN, INF, "12", True, [12], {"a": 1})
NO_RATE: tuple[Any, ...] = (-0.1, 1.5, 10**400, NAN, INF, "0.1", True, [0.1])
NO_FLAG: tuple[Any, ...] = ("yes", 1, None, [True])
NO_CHOICE: tuple[Any, ...] = ("nonsense", 5, None, ["gelu"], "__import__('os').abort()")

_BERT = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SIZE_FIELDS: dict[str, tuple[str, ...]] = {
    "bert": (*_BERT, "max_position_embeddings", "type_vocab_size"),
    "distilbert": ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings"),
    "roberta": (*_BERT, "max_position_embeddings", "type_vocab_size", "pad_token_id"),
    "electra": ("embedding_size", "hidden_size"),
    "albert": ("embedding_size", "hidden_size", "num_hidden_groups", "inner_group_num"),
    "mpnet": ("max_position_embeddings", "relative_attention_num_buckets"),
    "deberta-v2": (*_BERT, "max_position_embeddings", "conv_groups"),
    "modernbert": (*_BERT, "max_position_embeddings", "local_attention", "global_attn_every_n_layers"),
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions"),
    "llama": (*_BERT, "max_position_embeddings", "num_key_value_heads", "head_dim"),
    "t5": ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads",
           "relative_attention_num_buckets", "relative_attention_max_distance"),
    "bart": ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
             "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings"),
}  # fmt: skip
# these may be absent, and then another field speaks for them
OPTIONAL = {"n_inner", "num_key_value_heads", "head_dim", "num_decoder_layers"}
MAY_BE_ZERO = {"type_vocab_size", "pad_token_id"}
RATE_FIELDS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"),
    "distilbert": ("dropout", "attention_dropout"),
    "roberta": ("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"),
    "albert": ("hidden_dropout_prob", "layer_norm_eps"),
    "modernbert": ("norm_eps", "attention_dropout", "embedding_dropout", "mlp_dropout"),
    "gpt2": ("resid_pdrop", "attn_pdrop", "embd_pdrop", "layer_norm_epsilon"),
    "llama": ("attention_dropout", "rms_norm_eps"),
    "t5": ("dropout_rate", "layer_norm_epsilon"),
    "bart": ("dropout", "attention_dropout", "activation_dropout"),
}
FLAG_FIELDS = {
    "deberta-v2": ("relative_attention", "position_biased_input"),
    "bert": ("is_decoder", "tie_word_embeddings"),
    "gpt2": ("scale_attn_weights", "tie_word_embeddings"),
    "modernbert": ("norm_bias", "mlp_bias", "decoder_bias", "attention_bias"),
    "llama": ("attention_bias", "mlp_bias"),
    "bart": ("scale_embedding",),
}
CHOICE_FIELDS = {
    "deberta-v2": ("norm_rel_ebd",),
    "bert": ("hidden_act", "position_embedding_type"),
    "distilbert": ("activation",),
    "electra": ("summary_type",),
    "modernbert": ("hidden_activation",),
    "gpt2": ("activation_function",),
    "llama": ("hidden_act",),
    "t5": ("feed_forward_proj",),
    "bart": ("activation_function",),
}


def build(family: str, ending: str = "", **fields: Any) -> Callable[[Path], Callable[[], object]]:
    """A model with fresh weights from these fields."""
    kind = getattr(auto, f"AutoModel{ending}")
    return lambda folder: lambda: kind.from_config(config(family, **fields))


def load(family: str, ending: str = "", **fields: Any) -> Callable[[Path], Callable[[], object]]:
    """A checkpoint whose config.json has these fields."""
    kind = getattr(auto, f"AutoModel{ending}")

    def prepare(folder: Path) -> Callable[[], object]:
        spoilt(folder, family, ending, **fields)
        return lambda: kind.from_pretrained(folder)

    return prepare


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 20 else text[:4] + "..."


def fields_out_of_bounds() -> list[Case]:
    found = []
    for families, values in ((SIZE_FIELDS, NO_SIZE), (RATE_FIELDS, NO_RATE), (FLAG_FIELDS, NO_FLAG),
                             (CHOICE_FIELDS, NO_CHOICE)):  # fmt: skip
        for family, fields in families.items():
            for field in fields:
                own = list(values)
                if values is NO_SIZE and field not in MAY_BE_ZERO:
                    own.append(0)
                if None not in own and field not in OPTIONAL:
                    own.append(None)
                found += [
                    Case(f"{family} {field}={shown(v)}", "ConfigError", rf"{field}\b", build(family, **{field: v}))
                    for v in own
                ]
                # the same through a file, where JSON can hold the value
                found += [
                    Case(f"{family} file {field}={shown(v)}", "ConfigError", rf"{field}\b", load(family, **{field: v}))
                    for v in own
                    if v in (-1, -0.1, "yes", "nonsense")
                ]
    return found


def terabytes(what: str, *fields: str, family: str, ending: str = "", **sizes: Any) -> Case:
    pattern = rf"asks for new weights of [\d,]+ GB.*\d GB of memory.*{'.*'.join(fields)}"
    return Case(f"terabytes of {what}", "ConfigError", pattern, build(family, ending, **sizes))


SHAPES = [
    Case(
        "a million layers",
        "ConfigError",
        r"num_hidden_layers is 1000000\b.*1,000",
        build("bert", num_hidden_layers=10**6),
    ),
    terabytes(
        "layers",
        "hidden_size = 65,536",
        "num_hidden_layers = 1,000",
        family="bert",
        hidden_size=65536,
        num_hidden_layers=1000,
    ),
    terabytes(
        "feed-forward",
        "intermediate_size = 1,000,000",
        "hidden_size = 65,536",
        family="llama",
        intermediate_size=10**6,
        hidden_size=65536,
    ),
    terabytes(
        "vocabulary", "vocab_size = 10,000,000", "n_embd = 65,536", family="gpt2", vocab_size=10**7, n_embd=65536
    ),
    terabytes(
        "positions", "max_position_embeddings = 10,000,000", family="bart", max_position_embeddings=10**7, d_model=65536
    ),
    terabytes(
        "decoder",
        "d_ff = 1,000,000",
        "num_decoder_layers = 1,000",
        family="t5",
        d_model=65536,
        d_ff=10**6,
        num_decoder_layers=1000,
    ),
    terabytes("output", "vocab_size", family="llama", ending="ForCausalLM", vocab_size=10**7, hidden_size=65536),
    terabytes(
        "labels",
        "num_labels = 200,000",
        family="bert",
        ending="ForSequenceClassification",
        num_labels=200_000,
        hidden_size=65536,
        vocab_size=3,
        num_hidden_layers=1,
        intermediate_size=1,
        num_attention_heads=64,
    ),
    Case(
        "terabytes in a file",
        "CheckpointError",
        r"\[40, 8\].*\[40, 65536\].*hidden_size",
        load("bert", hidden_size=65536),
    ),
    Case(
        "more layers than the file",
        "CheckpointError",
        r"num_hidden_layers is 1000\b.*\b2\b",
        load("bert", num_hidden_layers=1000),
    ),
    Case(
        "more layers of an encoder-decoder than the file",
        "CheckpointError",
        r"num_layers is 900\b.*\b2\b",
        load("t5", num_layers=900),
    ),
    Case(
        "heads do not divide",
        "ConfigError",
        r"hidden_size is 8.*num_attention_heads, 3",
        build("bert", num_attention_heads=3),
    ),
    Case(
        "bart's decoder heads do not divide",
        "ConfigError",
        r"d_model is 8.*decoder_attention_heads, 3",
        build("bart", decoder_attention_heads=3),
    ),
    Case(
        "key heads do not divide",
        "ConfigError",
        r"num_key_value_heads is 3.*num_attention_heads, 4",
        build("llama", num_attention_heads=4, num_key_value_heads=3),
    ),
    Case(
        "more key heads than heads", "ConfigError", r"num_key_value_heads is 4", build("llama", num_key_value_heads=4)
    ),
    Case("an odd rotary size", "ConfigError", r"head_dim", build("llama", head_dim=3)),
    Case(
        "t5's distance below its buckets",
        "ConfigError",
        r"relative_attention_max_distance is 16.*relative_attention_num_buckets",
        build("t5", relative_attention_max_distance=16, relative_attention_num_buckets=64),
    ),
    Case(
        "cross-attention in an encoder",
        "ConfigError",
        r"add_cross_attention is True, which only a decoder can have; set is_decoder=True",
        build("bert", add_cross_attention=True),
    ),
    Case(
        "cross-attention in llama",
        "ConfigError",
        r"add_cross_attention is True",
        build("llama", add_cross_attention=True),
    ),
    Case(
        "one position in roberta",
        "ConfigError",
        r"max_position_embeddings is 2\b",
        build("roberta", max_position_embeddings=2),
    ),
    Case(
        "a padding id beyond the positions",
        "ConfigError",
        r"max_position_embeddings is 18",
        build("roberta", pad_token_id=39),
    ),
]


def rope(pattern: str, **raw: Any) -> list[Case]:
    return [
        Case(f"{name} {raw}"[:200], "ConfigError", pattern, build("llama", **{name: raw}))
        for name in ("rope_parameters", "rope_scaling")
    ]


LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.0], "original_max_position_embeddings": 8}
ROPE = [
    *rope("rope_type is 'nonsense'", rope_type="nonsense", factor=2.0),
    *rope("rope_type", rope_type=["linear"], factor=2.0),
    *rope("rope_type", rope_type=5),
    *rope("factor", rope_type="linear"),
    *rope("factor is 0", rope_type="linear", factor=0.0),
    *rope("factor", rope_type="linear", factor="2"),
    *rope("low_freq_factor", rope_type="llama3", factor=2.0),
    *rope(
        "high_freq_factor is 1.0.*low_freq_factor",
        rope_type="llama3",
        factor=2.0,
        low_freq_factor=1.0,
        high_freq_factor=1.0,
    ),
    *rope("original_max_position_embeddings is -1", rope_type="yarn", factor=2.0, original_max_position_embeddings=-1),
    *rope("truncate", rope_type="yarn", factor=2.0, truncate="no"),
    *rope("rope_theta is 1.0", rope_type="yarn", factor=2.0, rope_theta=1.0),
    *rope("rope_theta is 0", rope_theta=0),
    *rope("rope_theta", rope_theta="10000"),
    *rope("partial_rotary_factor", partial_rotary_factor=2.0),
    *rope("turn 0 numbers.*partial_rotary_factor", partial_rotary_factor=0.1),
    *rope("long_factor", **LONG),
    *rope("long_factor", **LONG, long_factor=[0.0, 1.0]),
    *rope("long_factor", **LONG, long_factor=[NAN, 1.0]),
    *rope("long_factor", **LONG, long_factor=["1", 1.0]),
    *rope(
        "original_max_position_embeddings is 1;",
        **(LONG | {"original_max_position_embeddings": 1}),
        long_factor=[2.0, 2.0],
    ),
    *rope("factor is 0", integer=5, number=6, choice=7, attribute_map=8, rope_type="linear", factor=0.5),
    *rope("head_dim", rope_type="dynamic", factor=2.0, partial_rotary_factor=0.5),
    Case("rope_scaling text", "ConfigError", "rope_scaling is 'linear'", build("llama", rope_scaling="linear")),
    Case("rope_scaling number", "ConfigError", "rope_scaling is 5", build("llama", rope_scaling=5)),
    Case("rope_parameters list", "ConfigError", "rope_parameters is ", build("llama", rope_parameters=[1])),
    Case("rope_theta text", "ConfigError", "rope_theta is '1'", build("llama", rope_theta="1")),
]

CASES = [*fields_out_of_bounds(), *SHAPES, *ROPE]

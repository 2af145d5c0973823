"""What each field of a config.json does here: used, without effect, or refused unless it has a harmless value.

A family says it beside its declaration (`defaults` and `used`, `without_effect`, `refused` of its config class); what
all families share stands here. `check_fields` holds a config to it before anything is built, `rows` is the whole table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from cutaway.checkpoint.field_checks import shown_value
from cutaway.checkpoint.field_table import Only, Row, allowed_values, only, say_once
from cutaway.errors import ConfigError

__all__ = ["Only", "check_fields", "check_training", "only", "rows"]

USED = (
    "architectures", "model_type", "dtype", "torch_dtype", "name_or_path",
    "id2label", "label2id", "num_labels", "problem_type",
    "output_attentions", "output_hidden_states", "return_dict", "use_cache",
    "tie_word_embeddings", "is_encoder_decoder",
    "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id",
    "tokenizer_class", "task_specific_params",
    "gradient_checkpointing", "sentence_transformers", "text_vector", "sbert_ce_default_activation_function",
)  # fmt: skip

# Settings of generation, which older files keep in config.json: each is what generation_config.json says of it.
GENERATION = frozenset({
    "bad_words_ids", "begin_suppress_tokens", "constraints", "diversity_penalty", "do_sample", "dola_layers",
    "early_stopping", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff",
    "exponential_decay_length_penalty", "force_words_ids", "forced_bos_token_id", "forced_eos_token_id",
    "guidance_scale", "length_penalty", "max_length", "max_matching_ngram_size", "max_new_tokens", "max_time",
    "min_length", "min_new_tokens", "min_p", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_logits", "output_logprobs", "output_scores", "penalty_alpha",
    "prompt_lookup_num_tokens", "remove_invalid_values", "renormalize_logits", "repetition_penalty",
    "return_dict_in_generate", "seed", "sequence_bias", "stop_strings", "suppress_tokens", "temperature",
    "token_healing", "top_h", "top_k", "top_p", "typical_p", "watermarking_config",
})  # fmt: skip

_SPEED = "how other software computes the same numbers"
_NOTE = "a note about how the file was made"
_CODE = "code from a checkpoint is never run; the family's own engine computes"
_TRAINED = "of a training run of other software"
_TOKENIZER = "the tokenizer's own files say it"

WITHOUT_EFFECT: dict[str, str] = {
    **dict.fromkeys(
        ("_name_or_path", "transformers_version", "_commit_hash", "unsloth_version", "unsloth_fixed",
         "_diffusers_version", "transformers.js_config", "adapters", "license", "language"), _NOTE),
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
         "_experts_implementation", "_experts_implementation_internal", "chunk_size_feed_forward", "torchscript",
         "use_bfloat16", "pretraining_tp", "use_flash_attn", "use_flash_attention", "use_flash_attention_2",
         "_flash_attn_2_enabled", "xla_device", "memory_efficient", "fused_mlp", "fused_bias_fc",
         "tf_legacy_loss", "use_xformers", "static_cache", "base_model_tp_plan"), _SPEED),
    **dict.fromkeys(("auto_map", "custom_pipelines", "trust_remote_code"), _CODE),
    **dict.fromkeys(("finetuning_task", "fine_tuning_task", "train_batch_size",
                     "learning_rate", "use_gradient_checkpointing", "output_past", "loss_type"), _TRAINED),
    **dict.fromkeys(("sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id", "prefix", "model_max_length",
                     "do_lower_case", "padding_side", "pad_token", "eos_token", "bos_token"), _TOKENIZER),
    "_num_labels": "id2label says it",
    "use_return_dict": "return_dict says it",
    "is_decoder": "each class says itself whether a token sees what follows",
}  # fmt: skip

_ELSEWHERE = "The field belongs to another family; take it out of config.json if the model was trained without it."
REFUSED: dict[str, Only] = {
    "quantization_config": only(
        None, {}, instead="Weights that other software packed are not read; load the model they were made from."
    ),
    "compression_config": only(
        None, {}, instead="Weights that other software packed are not read; load the model they were made from."
    ),
    "pruned_heads": only(
        None, {}, instead="Models with heads cut out are not built; save the model with its heads and ablate them here."
    ),
    "per_layer_config": only(None, {}),
    "cross_attention_hidden_size": only(None),
    "tie_encoder_decoder": only(None, False),
    # What changes the numbers without leaving a trace among the weights, in families that have no such field.
    **dict.fromkeys(("sliding_window", "layer_types", "no_rope_layers", "attention_chunk_size",
                     "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "clip_qkv",
                     "rotary_dim", "rotary_pct",
                     "rope_scaling", "rope_parameters", "kv_lora_rank", "scale_attn_weights"),
                    only(None, instead=_ELSEWHERE)),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), only(None, 0, instead=_ELSEWHERE)),
    **dict.fromkeys(("attention_bias", "mlp_bias", "qkv_bias", "add_cross_attention", "use_sliding_window", "alibi",
                     "parallel_attn", "new_decoder_architecture", "multi_query",
                     "rope_interleaved", "rope_interleave", "qk_norm", "qk_layernorm", "use_qk_norm", "use_mrope",
                     "scale_embedding", "scale_attn_by_inverse_layer_idx",
                     "use_bidirectional_attention"), only(None, False, instead=_ELSEWHERE)),
    **dict.fromkeys(("logit_scale", "logits_scaling", "embedding_multiplier", "residual_multiplier",
                     "output_multiplier", "partial_rotary_factor"), only(None, 1, 1.0, instead=_ELSEWHERE)),
    "attention_multiplier": only(None, instead=_ELSEWHERE),
    "position_embedding_type": only(None, "absolute"),
}  # fmt: skip


class Checked(Protocol):
    """What a config remembers of its file: the fields that it gave, and those set aside."""

    _given: Collection[str]
    _aside: dict[str, Any]

    @property
    def model_type(self) -> str: ...


def rows(config: type) -> dict[str, Row]:
    """The table of a config class: its family's rows go before the shared ones."""
    table: dict[str, Row] = {}
    for name in sorted(GENERATION):
        table[name] = Row(name, "used", "a setting of generation")
    for own in (_Shared, config):
        refused, silent = _merged(own, "refused"), _merged(own, "without_effect")
        for name in (*_merged(own, "defaults"), *_listed(own, "used"), *_merged(own, "attribute_map")):
            table[name] = Row(name, "used")
        for name, why in silent.items():
            table[name] = Row(name, "without effect", why)
        for name, allowed in _merged(own, "refused_in_training").items():
            table[name] = Row(name, "refused in training", f"unless {allowed_values(allowed)}")
        for name, allowed in refused.items():
            values = allowed_values(allowed)
            table[name] = Row(name, "refused", f"unless {values}")
    return table


class _Shared:
    used = USED
    without_effect = WITHOUT_EFFECT
    refused = REFUSED


def check_fields(config: Checked) -> None:
    """ConfigError where a field asks for what is not built; fields that nobody knows are said once in the log."""
    kind, values = type(config), _values(config)
    _refuse(config, {**REFUSED, **_merged(kind, "refused")}, "build")
    known = rows(kind)
    unknown = [name for name in config._given if name in values and name not in known]
    say_once(f"config.json of a {config.model_type} model", unknown)


def check_training(config: Checked) -> None:
    """ConfigError where a field asks for what is not built in training."""
    _refuse(config, _merged(type(config), "refused_in_training"), "train with")


def _refuse(config: Checked, refused: Mapping[str, Only], do: str) -> None:
    values, table = _values(config), rows(type(config))
    for name, allowed in refused.items():
        if name in values and table[name].does.startswith("refused") and not allowed.allows(values[name]):
            raise ConfigError(
                f"{name} is {shown_value(values[name])}, which cutaway does not {do} for {config.model_type}. "
                f"{allowed.way_out}"
            )


def _values(config: Checked) -> Mapping[str, Any]:
    public = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    return {**public, **config._aside}


def _bases(config: type) -> Iterator[Mapping[str, Any]]:
    return (vars(base) for base in reversed(config.__mro__))


def _merged(config: type, name: str) -> dict[str, Any]:
    return {key: value for base in _bases(config) for key, value in dict(base.get(name, {})).items()}


def _listed(config: type, name: str) -> tuple[str, ...]:
    return tuple(value for base in _bases(config) for value in base.get(name, ()))

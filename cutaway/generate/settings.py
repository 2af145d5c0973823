"""GenerationConfig: the settings of generation, as generation_config.json stores them."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cutaway.checkpoint.field_table import FieldTable, only, say_once
from cutaway.errors import ConfigError, GenerationError, nearest
from cutaway.generate.watermark import read_watermark
from cutaway.hub.argument_names import also_called
from cutaway.hub.folder_save import folder_save
from cutaway.hub.upstream_types import KnownUpstream
from cutaway.jsonfile import read_json, write_text

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

# What a setting is where neither the call nor the model's files say.
DEFAULTS: dict[str, Any] = {
    "max_length": None,  # 20 new tokens, or up to the model's last position
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "stop_strings": None,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "seed": None,
    "num_return_sequences": 1,
    "use_cache": True,
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": False,
    "output_logprobs": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    # beams
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "force_words_ids": None,
    # rules on the scores
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "exponential_decay_length_penalty": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "watermarking_config": None,
    "guidance_scale": None,
    "negative_prompt_ids": None,
    "negative_prompt_attention_mask": None,
    "prefix_allowed_tokens_fn": None,
    "logits_processor": None,
    "stopping_criteria": None,
    # when to stop, what is known already, and guesses
    "max_time": None,
    "cancel": None,
    "past_key_values": None,
    "prompt_lookup_num_tokens": None,
    "max_matching_ngram_size": None,
    # the form of the answer
    "json_schema": None,
    "regex": None,
    "grammar": None,
}
DEFAULT_NEW_TOKENS = 20
# What no file can hold.
OF_ONE_CALL = frozenset(
    {
        "cancel",
        "past_key_values",
        "prefix_allowed_tokens_fn",
        "logits_processor",
        "stopping_criteria",
        "negative_prompt_ids",
        "negative_prompt_attention_mask",
    }
)

# Settings that would change the result and are not built: the value beside each means "off".
NOT_BUILT: dict[str, Any] = {
    "constraints": None,
    "top_h": None,
    "penalty_alpha": None,
    "token_healing": False,
    "dola_layers": None,
    "custom_generate": None,
}
# Hints about speed or memory that do not change the result; cutaway has its own ways.
HINTS = frozenset(
    {
        "cache_implementation",
        "cache_config",
        "max_cache_len",
        "return_legacy_cache",
        "low_memory",
        "prefill_chunk_size",
        "compile_config",
        "disable_compile",
        "use_mtp",
        "synced_gpus",
        "is_assistant",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_lookbehind",
        "target_lookbehind",
        "assistant_ensemble_weight",
        "speculation_type",
        "continuous_batching_config",
        "logits_to_keep",  # no more logits are computed than a step needs
        "assistant_model",  # it changes how fast a text is written, not the text
    }
)
KNOWN = frozenset(DEFAULTS) | frozenset(NOT_BUILT) | HINTS
FILE_NAME = "generation_config.json"
TABLE = FieldTable(
    FILE_NAME,
    used=frozenset(DEFAULTS) - OF_ONE_CALL,
    without_effect={
        **dict.fromkeys(sorted(HINTS), "speed or memory; cutaway has its own ways"),
        **dict.fromkeys(("transformers_version", "_from_model_config", "_name_or_path"), "a note on the file"),
    },
    refused={name: only(None, off) for name, off in NOT_BUILT.items()},
)


def require_known(names: Mapping[str, Any] | list[str]) -> None:
    """Raises GenerationError for the first name that is no setting of generation."""
    for name in names:
        if name not in KNOWN:
            raise GenerationError(f"{name!r} is not a setting of generate().{nearest(name, KNOWN)}")


class GenerationMode(enum.StrEnum):
    """How `generate` searches, as upstream names it."""

    CONTRASTIVE_SEARCH = "contrastive_search"
    GREEDY_SEARCH = "greedy_search"
    SAMPLE = "sample"
    ASSISTED_GENERATION = "assisted_generation"
    DOLA_GENERATION = "dola_generation"
    BEAM_SEARCH = "beam_search"
    BEAM_SAMPLE = "beam_sample"
    CONSTRAINED_BEAM_SEARCH = "constrained_beam_search"
    GROUP_BEAM_SEARCH = "group_beam_search"


class GenerationConfig(KnownUpstream):
    """Settings of generation. A setting that is None is unset: the model's own value, then the default, applies.

    Attributes are the names of `DEFAULTS`; other published settings are kept, so that a file that is read and written
    again loses nothing.
    """

    upstream = ("transformers.generation.configuration_utils:GenerationConfig",)

    def __init__(self, **settings: object) -> None:
        require_known(settings)
        self._set(settings)

    def __getattr__(self, name: str) -> Any:
        if name in KNOWN:  # a published setting that was not set
            return None
        raise AttributeError(f"GenerationConfig has no {name!r}.{nearest(name, KNOWN)}")

    def _set(self, settings: Mapping[str, Any]) -> None:
        for name in DEFAULTS:
            setattr(self, name, None)
        for name, value in settings.items():
            setattr(self, name, value)
        self.watermarking_config = read_watermark(settings.get("watermarking_config"))

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **changes: object) -> GenerationConfig:
        """From the content of a generation_config.json, unknown fields included; `changes` win over it."""
        require_known(changes)
        config = cls()
        config._set({**settings, **changes})
        return config

    @classmethod
    def from_model_config(cls, config: PretrainedConfig) -> GenerationConfig:
        """From the settings that an older config.json holds; what a pair does not say, its decoder's may.

        The output flags are left behind: a model that was loaded with `output_attentions=True` still generates ids.
        """
        stored = config if isinstance(config, Mapping) else config.to_dict()
        writer = stored if isinstance(config, Mapping) else config.get_text_config(decoder=True).to_dict()
        names = (KNOWN - HINTS) - {n for n in DEFAULTS if n.startswith("output_")} - {"return_dict_in_generate"}
        # A config.json also holds the defaults of long-gone versions, where None and "unset" were one.
        settings = {n: stored[n] if stored.get(n) is not None else writer.get(n) for n in sorted(names)}
        return cls.from_dict({n: value for n, value in settings.items() if value is not None})

    @classmethod
    @also_called(pretrained_model_name="name", config_name="config_file_name", pretrained_model_name_or_path="name")
    def from_pretrained(cls, name: str | Path, config_file_name: str | None = None, **options: Any) -> GenerationConfig:
        """From the generation_config.json of a folder, a built-in or a hub name.

        `options` are those of `cutaway.hub.files.resolve` (revision, token, cache_dir, local_files_only, subfolder) and
        settings that win over the file. A file that is missing is a HubError, a damaged one a ConfigError.
        """
        from cutaway.hub.files import resolve

        settings = {n: options.pop(n) for n in list(options) if n in KNOWN}
        path = resolve(str(name), **options).require(config_file_name or FILE_NAME)
        fields = read_json(path, ConfigError)
        say_once(FILE_NAME, (name for name in fields if name not in TABLE.known))
        return cls.from_dict(fields, **settings)

    def to_dict(self) -> dict[str, Any]:
        """The settings that are set."""
        return {n: v for n, v in vars(self).items() if v is not None}

    to_diff_dict = to_dict

    def to_json_string(self) -> str:
        """What a file holds: phrases as pairs [ids, bias], and no functions, which belong to a call."""
        stored = {n: v for n, v in self.to_dict().items() if n not in OF_ONE_CALL}
        if isinstance(stored.get("sequence_bias"), Mapping):
            stored["sequence_bias"] = [[list(ids), bias] for ids, bias in stored["sequence_bias"].items()]
        if self.watermarking_config is not None:
            stored["watermarking_config"] = self.watermarking_config.to_dict()
        return json.dumps(stored, indent=2, sort_keys=True) + "\n"

    @also_called(config_name="config_file_name", save_directory="folder")
    def save_pretrained(self, folder: str | Path, config_file_name: str | None = None) -> None:
        """Writes generation_config.json into `folder`, which is created where it is missing."""
        with folder_save(folder) as save:
            save.write_text(config_file_name or FILE_NAME, self.to_json_string())

    def to_json_file(self, json_file_path: str | Path, use_diff: bool = True) -> None:
        """Write the settings under a name of your own."""
        write_text(Path(json_file_path), self.to_json_string())

    def validate(self, strict: bool = False) -> None:
        """GenerationError for a setting that is known not to be built; contradictions show in `generate`."""
        for name, off in NOT_BUILT.items():
            value = getattr(self, name, None)
            if value is not None and value != off:
                raise GenerationError(f"{name}={value!r} is not built; leave it out.")

    def update(self, **changes: object) -> dict[str, Any]:
        """Sets the known names among `changes` and returns the others, as upstream does."""
        for name in KNOWN & changes.keys():
            setattr(self, name, changes.pop(name))
        return changes

    def get_generation_mode(self, assistant_model: object = None) -> GenerationMode:
        """Which search these settings ask for; an `assistant_model` or a prompt lookup makes the first two assisted."""
        if self.constraints is not None or self.force_words_ids is not None:
            return GenerationMode.CONSTRAINED_BEAM_SEARCH
        if (self.num_beams or 1) > 1:
            if (self.num_beam_groups or 1) > 1:
                return GenerationMode.GROUP_BEAM_SEARCH
            return GenerationMode.BEAM_SAMPLE if self.do_sample else GenerationMode.BEAM_SEARCH
        if not self.do_sample and (self.top_k or 0) > 1 and (self.penalty_alpha or 0) > 0:
            return GenerationMode.CONTRASTIVE_SEARCH
        if assistant_model is not None or self.prompt_lookup_num_tokens is not None:
            return GenerationMode.ASSISTED_GENERATION
        return GenerationMode.SAMPLE if self.do_sample else GenerationMode.GREEDY_SEARCH

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"GenerationConfig {self.to_json_string()}"


class Configured(Protocol):
    """A model, as its settings are asked for: what else it knows of them is read where it is there."""

    @property
    def config(self) -> PretrainedConfig: ...


def model_settings(model: Configured) -> GenerationConfig:
    """The model's own settings: `model.generation_config` (a GenerationConfig or a mapping), else what it came with."""
    own = getattr(model, "generation_config", None)
    if own is None:
        return stored_settings(model)
    return own if isinstance(own, GenerationConfig) else GenerationConfig.from_dict(own)


def stored_settings(model: Configured) -> GenerationConfig:
    """The settings of the generation_config.json that the model came with, or of its config where there was none."""
    stored = getattr(model, "stored_generation_settings", None)
    if stored is None:
        return GenerationConfig.from_model_config(model.config)
    return GenerationConfig.from_dict(stored)

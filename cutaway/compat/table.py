"""Which paths of upstream's there are, and where each name lives. Nothing but strings: nothing is imported here.

A path that is not here is not served. A name that is nowhere here may still be any public name of `cutaway`, since
upstream's modules also show what they import themselves.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import Any

# names that upstream has below its top level alone -> where they live
HOMES = {
    "cutaway.compat.argument_parser": "HfArg make_choice_type_function string_to_bool",
    "cutaway.compat.constants": (
        "ADAPTER_CONFIG_NAME ADAPTER_SAFE_WEIGHTS_NAME ADAPTER_WEIGHTS_NAME DUMMY_INPUTS DUMMY_MASK "
        "ENV_VARS_TRUE_VALUES ExplicitEnum OptimizerNames GENERATION_CONFIG_NAME LARGE_INTEGER PaddingStrategy "
        "SAFE_WEIGHTS_INDEX_NAME SAFE_WEIGHTS_NAME SENTENCEPIECE_UNDERLINE TRAINER_STATE_NAME TRAINING_ARGS_NAME "
        "TruncationStrategy VERY_LARGE_INTEGER WEIGHTS_INDEX_NAME"
    ),
    "cutaway.compat.decorators": "can_return_tuple filter_out_non_signature_kwargs",
    "cutaway.compat.docstrings": (
        "add_code_sample_docstrings copy_func add_start_docstrings_to_model_forward replace_return_docstrings"
    ),
    "cutaway.compat.trainer_names": (
        "ALL_LAYERNORM_LAYERS BestRun EvalLoopOutput HubStrategy LabelSmoother PREFIX_CHECKPOINT_DIR atleast_1d "
        "default_compute_objective denumpify_detensorize distributed_concat find_batch_size get_last_checkpoint "
        "get_model_param_count get_parameter_names has_length is_main_process nested_concat nested_detach "
        "nested_numpify nested_truncate numpy_pad_and_concatenate prune_linear_layer reissue_pt_warnings seed_worker "
        "speed_metrics torch_pad_and_concatenate unwrap_model EvalLoopContainer RemoveColumnsCollator "
        "check_target_module_exists find_executable_batch_size rotate_checkpoints sort_checkpoints"
    ),
    "cutaway.compat.activations": (
        "ACT2CLS ACT2FN AccurateGELUActivation ClippedGELUActivation FastGELUActivation GELUActivation GELUTanh "
        "LaplaceActivation LinearActivation MishActivation NewGELUActivation PytorchGELUTanh QuickGELUActivation "
        "ReLUSquaredActivation SiLUActivation gelu gelu_fast gelu_new gelu_python get_activation linear_act mish "
        "quick_gelu silu"
    ),
    "cutaway.compat.mappings": (
        "CONFIG_MAPPING_NAMES MODEL_FOR_CAUSAL_LM_MAPPING_NAMES MODEL_FOR_MASKED_LM_MAPPING_NAMES "
        "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES "
        "MODEL_FOR_PRETRAINING_MAPPING_NAMES "
        "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES "
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES "
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES MODEL_MAPPING_NAMES TOKENIZER_MAPPING_NAMES "
        "config_class_to_model_type get_values"
    ),
    "cutaway.compat.verbosity": (
        "add_handler captureWarnings disable_default_handler disable_progress_bar disable_propagation "
        "enable_default_handler enable_explicit_format enable_progress_bar enable_propagation get_log_levels_dict "
        "get_logger get_verbosity is_progress_bar_enabled log_levels remove_handler reset_format set_tqdm_hook "
        "set_verbosity set_verbosity_debug set_verbosity_error set_verbosity_info set_verbosity_warning tqdm CRITICAL "
        "DEBUG ERROR FATAL INFO NOTSET WARN WARNING"
    ),
    "cutaway.compat.versions": ("check_min_version require_version require_version_core send_example_telemetry"),
    "cutaway.compat.tensors": (
        "ContextManagers cached_file can_return_loss expand_dims find_adapter_config_file find_labels flatten_dict "
        "http_user_agent id_tensor_storage "
        "is_numpy_array is_tensor is_torch_device is_torch_dtype is_torch_tensor load_state_dict reshape "
        "apply_rotary_pos_emb repeat_kv rotate_half "
        "shift_tokens_right squeeze strtobool tensor_size to_numpy to_py_obj torch_float torch_int transpose"
    ),
    "cutaway.compat.availability": (
        "is_deepspeed_zero3_enabled is_in_notebook is_torch_bf16_available_on_device is_torch_fp16_available_on_device "
        "is_torch_greater_or_equal is_flash_attn_greater_or_equal_2_10 is_fsdp_enabled is_sagemaker_mp_enabled "
        "is_torchdynamo_compiling"
    ),
    "cutaway.compat.captured_logger": "CaptureLogger",
    "cutaway.compat.refused": "HfDeepSpeedConfig QuantizationConfigMixin",
    "cutaway.hub.upload": "Publishing PushToHubMixin",
    "cutaway.tokenization.tool_schema": (
        "DocstringParsingException TypeHintParsingException get_json_schema tool_schema"
    ),
    "cutaway.train.callback": "CallbackHandler DEFAULT_CALLBACKS ExportableState",
    "cutaway.train.accelerator_config": "AcceleratorConfig",
    "cutaway.train.neftune": "activate_neftune deactivate_neftune",
    "cutaway.train.optimizer": "is_optimizer_factory",
    "cutaway.train.process": "ParallelMode",
    "cutaway.train.adafactor": "AdafactorSchedule",
    "cutaway.train.collator": "DataCollatorMixin",
    "cutaway.pipelines.data_sets": "KeyDataset KeyPairDataset",
    "cutaway.pipelines.iterators": "PipelineChunkIterator PipelineDataset PipelineIterator PipelinePackIterator",
    "cutaway.pipelines.arguments": "ArgumentHandler TokenClassificationArgumentHandler",
    "cutaway.nn.block": "GradientCheckpointingLayer",
    "cutaway.pipelines.factory": "PipelineRegistry TASKS SUPPORTED_TASKS TASK_ALIASES check_task",
    "cutaway.generate.stopping_criteria": "ConfidenceCriteria validate_stopping_criteria",
    "cutaway.generate.streaming": "BaseStreamer",
    "cutaway.generate.prompt_lookup": "PromptLookupCandidateGenerator",
    "cutaway.compat.samplers": (
        "DistributedLengthGroupedSampler DistributedSamplerWithLoop IterableDatasetShard LengthGroupedSampler "
        "ShardSampler get_length_grouped_indices"
    ),
    "cutaway.generate.settings": "GenerationMode",
    "cutaway.generate.results": (
        "GenerateBeamDecoderOnlyOutput GenerateBeamEncoderDecoderOutput GenerateDecoderOnlyOutput "
        "GenerateEncoderDecoderOutput GenerateOutput"
    ),
    "cutaway.nn.cache_face": "CacheLayer",
}
_GENERATION = (
    "AsyncTextIteratorStreamer BaseStreamer ClassifierFreeGuidanceLogitsProcessor EosTokenCriteria GenerationConfig "
    "GenerationMixin LogitsProcessor LogitsProcessorList MaxLengthCriteria MaxTimeCriteria StopStringCriteria "
    "StoppingCriteria StoppingCriteriaList TextIteratorStreamer TextStreamer GenerateBeamDecoderOnlyOutput "
    "GenerateBeamEncoderDecoderOutput GenerateDecoderOnlyOutput GenerateEncoderDecoderOutput"
)
# path -> its own names; "" for those that only lead further, or that show what the top level has
MODULES = {
    "activations": HOMES["cutaway.compat.activations"],
    "cache_utils": "Cache CacheLayer DynamicCache EncoderDecoderCache StaticCache",
    "configuration_utils": "PreTrainedConfig PretrainedConfig",
    "data": "",
    "data.data_collator": (
        "DataCollator DataCollatorForLanguageModeling DataCollatorForMultipleChoice "
        "DataCollatorForPermutationLanguageModeling DataCollatorForSeq2Seq DataCollatorForTokenClassification "
        "DataCollatorForWholeWordMask DataCollatorMixin DataCollatorWithFlattening DataCollatorWithPadding "
        "DefaultDataCollator default_data_collator"
    ),
    "debug_utils": "",
    "dynamic_module_utils": "",
    "file_utils": "ModelOutput PaddingStrategy TensorType ExplicitEnum CONFIG_NAME WEIGHTS_NAME",
    "generation": _GENERATION,
    "generation.beam_search": "",
    "generation.configuration_utils": "GenerationConfig GenerationMode",
    "generation.logits_process": "LogitsProcessor LogitsProcessorList",
    "generation.stopping_criteria": (
        "ConfidenceCriteria EosTokenCriteria MaxLengthCriteria MaxTimeCriteria StopStringCriteria StoppingCriteria "
        "StoppingCriteriaList validate_stopping_criteria"
    ),
    "generation.streamers": "AsyncTextIteratorStreamer BaseStreamer TextIteratorStreamer TextStreamer",
    "generation.utils": _GENERATION,
    "generation_utils": _GENERATION,
    "hf_argparser": "HfArg HfArgumentParser make_choice_type_function string_to_bool",
    "integrations": "is_deepspeed_zero3_enabled",
    "integrations.deepspeed": "HfDeepSpeedConfig is_deepspeed_zero3_enabled",
    "modeling_utils": "PreTrainedModel unwrap_model",
    "models": "",
    "models.auto": "",
    "models.auto.auto_factory": "get_values",
    "models.auto.configuration_auto": "AutoConfig CONFIG_MAPPING CONFIG_MAPPING_NAMES config_class_to_model_type",
    "models.auto.modeling_auto": "",
    "models.auto.tokenization_auto": "AutoTokenizer TOKENIZER_MAPPING TOKENIZER_MAPPING_NAMES",
    "optimization": "Adafactor AdafactorSchedule get_adafactor_schedule get_scheduler",
    "modeling_layers": "GradientCheckpointingLayer",
    "pipelines.pt_utils": (
        "KeyDataset KeyPairDataset PipelineChunkIterator PipelineDataset PipelineIterator PipelinePackIterator"
    ),
    "pytorch_utils": "ALL_LAYERNORM_LAYERS Conv1D apply_chunking_to_forward prune_linear_layer",
    "tokenization_utils": "AddedToken BatchEncoding PreTrainedTokenizer PreTrainedTokenizerBase",
    "testing_utils": "CaptureLogger",
    "tokenization_python": "PreTrainedTokenizer",
    "tokenization_utils_base": (
        "AddedToken BatchEncoding CharSpan PaddingStrategy PreTrainedTokenizerBase TensorType TokenSpan "
        "TruncationStrategy LARGE_INTEGER VERY_LARGE_INTEGER"
    ),
    "tokenization_utils_sentencepiece": "SentencePieceBackend",
    "tokenization_utils_fast": "PreTrainedTokenizerFast",
    "tokenization_utils_tokenizers": "PreTrainedTokenizerFast TokenizersBackend",
    "trainer": "DEFAULT_CALLBACKS Trainer TRAINER_STATE_NAME TRAINING_ARGS_NAME",
    "trainer_optimizer": "is_optimizer_factory",
    "integrations.neftune": "activate_neftune deactivate_neftune",
    "trainer_callback": (
        "CallbackHandler DefaultFlowCallback EarlyStoppingCallback ExportableState PrinterCallback ProgressCallback "
        "TrainerCallback TrainerControl TrainerState"
    ),
    "trainer_pt_utils": (
        "LabelSmoother distributed_concat find_batch_size get_model_param_count get_parameter_names nested_concat "
        "nested_detach nested_numpify nested_truncate torch_distributed_zero_first AcceleratorConfig "
        "DistributedLengthGroupedSampler "
        "DistributedSamplerWithLoop EvalLoopContainer IterableDatasetShard LengthGroupedSampler ShardSampler"
    ),
    "trainer_seq2seq": "Seq2SeqTrainer",
    "trainer_utils": (
        "BestRun EvalLoopOutput EvalPrediction HubStrategy IntervalStrategy PREFIX_CHECKPOINT_DIR PredictionOutput "
        "SaveStrategy SchedulerType TrainOutput default_compute_objective denumpify_detensorize "
        "RemoveColumnsCollator check_target_module_exists enable_full_determinism find_executable_batch_size "
        "get_last_checkpoint has_length is_main_process rotate_checkpoints seed_worker set_seed sort_checkpoints "
        "speed_metrics"
    ),
    "training_args": "OptimizerNames ParallelMode TrainingArguments",
    "training_args_seq2seq": "Seq2SeqTrainingArguments",
    "utils": (
        "CONFIG_NAME ModelOutput PaddingStrategy PushToHubMixin TensorType WEIGHTS_NAME check_min_version "
        "get_json_schema send_example_telemetry can_return_tuple filter_out_non_signature_kwargs copy_func "
        "find_adapter_config_file http_user_agent"
    ),
    "utils.chat_template_utils": "DocstringParsingException TypeHintParsingException get_json_schema",
    "utils.constants": "",
    "utils.dummy_pt_objects": "",
    "utils.doc": "add_end_docstrings add_start_docstrings copy_func",
    "utils.generic": (
        "ContextManagers ExplicitEnum ModelOutput PaddingStrategy TensorType can_return_tuple to_numpy to_py_obj"
    ),
    "utils.hub": "PushToHubMixin cached_file http_user_agent",
    "utils.import_utils": "is_torch_greater_or_equal requires_backends",
    "utils.peft_utils": "find_adapter_config_file",
    "utils.logging": HOMES["cutaway.compat.verbosity"],
    "utils.quantization_config": "BitsAndBytesConfig QuantizationConfigMixin",
    "utils.versions": "require_version require_version_core",
}  # fmt: skip
# families whose folder upstream calls otherwise than ours, or that have only a tokenizer of their own
_FOLDERS = {"mbart50": "mbart"}
_FIRST = {"gemma3": "Gemma3"}  # whose class names begin otherwise than its config's


def _package() -> Any:
    """`cutaway` with its own table of names, which its stub does not show."""
    return sys.modules["cutaway"]


@cache
def _families() -> dict[str, str]:
    """Upstream's folder of each family -> the beginning of its class names."""
    found: dict[str, str] = {}
    for home, names in _package()._MODULES.items():
        if home.startswith("cutaway.families."):
            configs = [name for name in names.split() if name.endswith("Config")]
            found[home.rpartition(".")[2]] = configs[0].removesuffix("Config")
    return found | _FIRST | {folder: found[ours] for folder, ours in _FOLDERS.items()}


@cache
def _first_of(name: str) -> str:
    """The family's part of a class name: the longest, since Gemma2Model is none of Gemma's."""
    firsts = (first for first in _families().values() if name.startswith(first))
    return max((first for first in firsts if not name[len(first) :][:1].islower()), key=len, default="")


def _family_names(path: str) -> tuple[str, ...] | None:
    """The names of `models.bert`, `models.bert.modeling_bert` and their like; None for another path."""
    parts = path.split(".")
    if parts[0] != "models" or len(parts) not in (2, 3) or parts[1] not in _families():
        return None
    first = _families()[parts[1]]
    mine = [
        name
        for name, home in _package()._HOME.items()
        if name.startswith(first) and _first_of(name) == first and not home.startswith("cutaway.compat")
    ]
    if len(parts) == 2:
        return tuple(mine)
    kinds = {
        f"modeling_{parts[1]}": lambda name: not name.endswith(("Config", "Tokenizer", "TokenizerFast")),
        f"configuration_{parts[1]}": lambda name: name.endswith("Config"),
        f"tokenization_{parts[1]}": lambda name: "Tokenizer" in name,
        f"tokenization_{parts[1]}_fast": lambda name: name.endswith("TokenizerFast"),
    }
    return tuple(filter(kinds[parts[2]], mine)) if parts[2] in kinds else None


def module_names(path: str) -> tuple[str, ...] | None:
    """The names of a path of upstream's; None where it is not served."""
    if path in MODULES:
        return tuple(MODULES[path].split())
    return _family_names(path) if path.startswith("models.") else None


def is_module(name: str) -> bool:
    """Whether upstream's top level has a module of this name that is one here."""
    return name in MODULES or name in ("pipelines", "modeling_outputs")


def is_package(path: str) -> bool:
    """Whether there are paths below this one."""
    return (path.startswith("models.") and path.count(".") == 1) or any(p.startswith(f"{path}.") for p in MODULES)


@cache
def _below() -> dict[str, str]:
    return {name: home for home, names in HOMES.items() for name in names.split()}


def absent_home(name: str) -> str | None:
    """Where a name of upstream's comes from that no `cutaway` has: the tables of other tasks, and what is not built."""
    if re.fullmatch(r"MODEL_(FOR|WITH)_[A-Z_0-9]+_MAPPING(_NAMES)?", name):
        return "cutaway.compat.mappings"
    from cutaway.compat.refused import is_refused

    return "cutaway.compat.refused" if is_refused(name) else None


def home(name: str) -> str | None:
    """The module in which a name lives; None for one that is nowhere."""
    if name in _below():
        return _below()[name]
    if name in _package()._HOME:
        return str(_package()._HOME[name])
    if name.startswith("is_") and name.endswith("_available"):
        from cutaway.compat.availability import known

        return "cutaway.compat.availability" if known(name) else None
    if (lives := absent_home(name)) is not None:
        return lives
    if name in ("BertForPreTrainingOutput", "AlbertForPreTrainingOutput"):
        return "cutaway.outputs"
    outputs = ("Output", "OutputWithPast", "OutputWithPooling", "CrossAttentions")
    return "cutaway.modeling_outputs" if name.endswith(outputs) else None

"""cutaway: transformer text models that are fast and open at every joint.

Public names are imported when they are first used, so `import cutaway` costs no torch.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder

MYPY = False  # true for type checkers alone: `typing` is half of what this import would cost
if MYPY:
    from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "cutaway.auto": (
        "AutoConfig AutoTokenizer AutoModel AutoModelForCausalLM AutoModelForMaskedLM AutoModelForMultipleChoice "
        "AutoModelForNextSentencePrediction AutoModelForPreTraining AutoModelForQuestionAnswering "
        "AutoModelForSeq2SeqLM AutoModelForSequenceClassification AutoModelForTextEncoding "
        "AutoModelForTokenClassification"
    ),
    "cutaway.pairs.encoder_decoder": "EncoderDecoderConfig EncoderDecoderModel",
    "cutaway.config.config": "PretrainedConfig PreTrainedConfig",
    "cutaway.errors": "CutawayError",
    "cutaway.nn.activations.edits": "Edit",
    "cutaway.models.pretrained": "PreTrainedModel",
    "cutaway.families.bert": (
        "BertConfig BertPreTrainedModel BertModel BertForMaskedLM BertLMHeadModel BertForMultipleChoice "
        "BertForNextSentencePrediction BertForPreTraining BertForQuestionAnswering BertForSequenceClassification "
        "BertForTokenClassification"
    ),
    "cutaway.families.distilbert": (
        "DistilBertConfig DistilBertPreTrainedModel DistilBertModel DistilBertForMaskedLM DistilBertForMultipleChoice "
        "DistilBertForQuestionAnswering DistilBertForSequenceClassification DistilBertForTokenClassification"
    ),
    "cutaway.families.roberta": (
        "RobertaConfig RobertaPreTrainedModel RobertaModel RobertaForCausalLM RobertaForMaskedLM "
        "RobertaForMultipleChoice RobertaForQuestionAnswering RobertaForSequenceClassification "
        "RobertaForTokenClassification"
    ),
    "cutaway.families.xlm_roberta": (
        "XLMRobertaConfig XLMRobertaPreTrainedModel XLMRobertaModel XLMRobertaForCausalLM XLMRobertaForMaskedLM "
        "XLMRobertaForMultipleChoice XLMRobertaForQuestionAnswering XLMRobertaForSequenceClassification "
        "XLMRobertaForTokenClassification"
    ),
    "cutaway.families.camembert": (
        "CamembertConfig CamembertPreTrainedModel CamembertModel CamembertForCausalLM CamembertForMaskedLM "
        "CamembertForMultipleChoice CamembertForQuestionAnswering CamembertForSequenceClassification "
        "CamembertForTokenClassification"
    ),
    "cutaway.families.electra": (
        "ElectraConfig ElectraPreTrainedModel ElectraModel ElectraForCausalLM ElectraForMaskedLM "
        "ElectraForMultipleChoice ElectraForPreTraining ElectraForQuestionAnswering ElectraForSequenceClassification "
        "ElectraForTokenClassification"
    ),
    "cutaway.families.albert": (
        "AlbertConfig AlbertPreTrainedModel AlbertModel AlbertForMaskedLM AlbertForMultipleChoice "
        "AlbertForPreTraining AlbertForQuestionAnswering AlbertForSequenceClassification AlbertForTokenClassification"
    ),
    "cutaway.families.mpnet": (
        "MPNetConfig MPNetPreTrainedModel MPNetModel MPNetForMaskedLM MPNetForMultipleChoice MPNetForQuestionAnswering "
        "MPNetForSequenceClassification MPNetForTokenClassification"
    ),
    "cutaway.families.modernbert": (
        "ModernBertConfig ModernBertPreTrainedModel ModernBertModel ModernBertForMaskedLM ModernBertForMultipleChoice "
        "ModernBertForQuestionAnswering ModernBertForSequenceClassification ModernBertForTokenClassification"
    ),
    "cutaway.families.deberta_v2": (
        "DebertaV2Config DebertaV2PreTrainedModel DebertaV2Model DebertaV2ForMaskedLM DebertaV2ForMultipleChoice "
        "DebertaV2ForQuestionAnswering DebertaV2ForSequenceClassification DebertaV2ForTokenClassification"
    ),
    "cutaway.families.gpt2": (
        "GPT2Config GPT2PreTrainedModel GPT2Model GPT2LMHeadModel GPT2DoubleHeadsModel GPT2ForQuestionAnswering "
        "GPT2ForSequenceClassification GPT2ForTokenClassification"
    ),
    "cutaway.families.llama": (
        "LlamaConfig LlamaPreTrainedModel LlamaModel LlamaForCausalLM LlamaForQuestionAnswering "
        "LlamaForSequenceClassification LlamaForTokenClassification"
    ),
    "cutaway.families.mistral": (
        "MistralConfig MistralPreTrainedModel MistralModel MistralForCausalLM MistralForQuestionAnswering "
        "MistralForSequenceClassification MistralForTokenClassification"
    ),
    "cutaway.families.qwen2": (
        "Qwen2Config Qwen2PreTrainedModel Qwen2Model Qwen2ForCausalLM Qwen2ForQuestionAnswering "
        "Qwen2ForSequenceClassification Qwen2ForTokenClassification"
    ),
    "cutaway.families.smollm3": (
        "SmolLM3Config SmolLM3PreTrainedModel SmolLM3Model SmolLM3ForCausalLM SmolLM3ForQuestionAnswering "
        "SmolLM3ForSequenceClassification SmolLM3ForTokenClassification"
    ),
    "cutaway.families.qwen3": (
        "Qwen3Config Qwen3PreTrainedModel Qwen3Model Qwen3ForCausalLM Qwen3ForQuestionAnswering "
        "Qwen3ForSequenceClassification Qwen3ForTokenClassification"
    ),
    "cutaway.families.gemma": (
        "GemmaConfig GemmaPreTrainedModel GemmaModel GemmaForCausalLM GemmaForSequenceClassification "
        "GemmaForTokenClassification"
    ),
    "cutaway.families.gemma2": (
        "Gemma2Config Gemma2PreTrainedModel Gemma2Model Gemma2ForCausalLM Gemma2ForSequenceClassification "
        "Gemma2ForTokenClassification"
    ),
    "cutaway.families.gemma3": (
        "Gemma3TextConfig Gemma3PreTrainedModel Gemma3TextModel Gemma3ForCausalLM Gemma3TextForSequenceClassification"
    ),
    "cutaway.families.olmo2": (
        "Olmo2Config Olmo2PreTrainedModel Olmo2Model Olmo2ForCausalLM Olmo2ForSequenceClassification"
    ),
    "cutaway.families.granite": ("GraniteConfig GranitePreTrainedModel GraniteModel GraniteForCausalLM"),
    "cutaway.families.phi": (
        "PhiConfig PhiPreTrainedModel PhiModel PhiForCausalLM PhiForSequenceClassification PhiForTokenClassification"
    ),
    "cutaway.families.stablelm": (
        "StableLmConfig StableLmPreTrainedModel StableLmModel StableLmForCausalLM "
        "StableLmForSequenceClassification StableLmForTokenClassification"
    ),
    "cutaway.families.cohere": ("CohereConfig CoherePreTrainedModel CohereModel CohereForCausalLM"),
    "cutaway.families.cohere2": ("Cohere2Config Cohere2PreTrainedModel Cohere2Model Cohere2ForCausalLM"),
    "cutaway.families.gptj": (
        "GPTJConfig GPTJPreTrainedModel GPTJModel GPTJForCausalLM GPTJForQuestionAnswering "
        "GPTJForSequenceClassification"
    ),
    "cutaway.families.gpt_neo": (
        "GPTNeoConfig GPTNeoPreTrainedModel GPTNeoModel GPTNeoForCausalLM GPTNeoForQuestionAnswering "
        "GPTNeoForSequenceClassification GPTNeoForTokenClassification"
    ),
    "cutaway.families.falcon": (
        "FalconConfig FalconPreTrainedModel FalconModel FalconForCausalLM FalconForQuestionAnswering "
        "FalconForSequenceClassification FalconForTokenClassification"
    ),
    "cutaway.families.bloom": (
        "BloomConfig BloomPreTrainedModel BloomModel BloomForCausalLM BloomForQuestionAnswering "
        "BloomForSequenceClassification BloomForTokenClassification"
    ),
    "cutaway.families.qwen3_moe": (
        "Qwen3MoeConfig Qwen3MoePreTrainedModel Qwen3MoeModel Qwen3MoeForCausalLM "
        "Qwen3MoeForQuestionAnswering Qwen3MoeForSequenceClassification Qwen3MoeForTokenClassification"
    ),
    "cutaway.families.olmoe": ("OlmoeConfig OlmoePreTrainedModel OlmoeModel OlmoeForCausalLM"),
    "cutaway.families.phi3": (
        "Phi3Config Phi3PreTrainedModel Phi3Model Phi3ForCausalLM Phi3ForSequenceClassification "
        "Phi3ForTokenClassification"
    ),
    "cutaway.families.gpt_neox": (
        "GPTNeoXConfig GPTNeoXPreTrainedModel GPTNeoXModel GPTNeoXForCausalLM GPTNeoXForQuestionAnswering "
        "GPTNeoXForSequenceClassification GPTNeoXForTokenClassification"
    ),
    "cutaway.families.opt": (
        "OPTConfig OPTPreTrainedModel OPTModel OPTForCausalLM OPTForQuestionAnswering OPTForSequenceClassification"
    ),
    "cutaway.families.marian": ("MarianConfig MarianPreTrainedModel MarianModel MarianMTModel"),
    "cutaway.families.mbart": (
        "MBartConfig MBartPreTrainedModel MBartModel MBartForConditionalGeneration MBartForQuestionAnswering "
        "MBartForSequenceClassification"
    ),
    "cutaway.families.m2m_100": ("M2M100Config M2M100PreTrainedModel M2M100Model M2M100ForConditionalGeneration"),
    "cutaway.families.pegasus": ("PegasusConfig PegasusPreTrainedModel PegasusModel PegasusForConditionalGeneration"),
    "cutaway.families.t5": (
        "T5Config T5PreTrainedModel T5Model T5EncoderModel T5ForConditionalGeneration T5ForQuestionAnswering "
        "T5ForSequenceClassification T5ForTokenClassification"
    ),
    "cutaway.families.mt5": (
        "MT5Config MT5PreTrainedModel MT5Model MT5EncoderModel MT5ForConditionalGeneration MT5ForQuestionAnswering "
        "MT5ForSequenceClassification MT5ForTokenClassification"
    ),
    "cutaway.families.umt5": (
        "UMT5Config UMT5PreTrainedModel UMT5Model UMT5EncoderModel UMT5ForConditionalGeneration "
        "UMT5ForQuestionAnswering UMT5ForSequenceClassification UMT5ForTokenClassification"
    ),
    "cutaway.families.bart": (
        "BartConfig BartPreTrainedModel BartPretrainedModel PretrainedBartModel BartModel "
        "BartForConditionalGeneration BartForQuestionAnswering BartForSequenceClassification"
    ),
    "cutaway.tokenization.byte_tokens": "ByT5Tokenizer",
    "cutaway.tokenization.many_languages": ("M2M100Tokenizer NllbTokenizer NllbTokenizerFast"),
    "cutaway.families.nomic_bert": (
        "NomicBertConfig NomicBertPreTrainedModel NomicBertModel NomicBertForMaskedLM "
        "NomicBertForSequenceClassification NomicBertForTokenClassification"
    ),
    "cutaway.families.gte": (
        "GteConfig GtePreTrainedModel GteModel GteForMaskedLM GteForSequenceClassification GteForTokenClassification"
    ),
    "cutaway.families.jina_embeddings_v3": (
        "JinaEmbeddingsV3Config JinaEmbeddingsV3PreTrainedModel JinaEmbeddingsV3Model JinaEmbeddingsV3ForMaskedLM "
        "JinaEmbeddingsV3ForSequenceClassification JinaEmbeddingsV3ForTokenClassification "
        "JinaEmbeddingsV3ForQuestionAnswering"
    ),
    "cutaway.families.eurobert": (
        "EuroBertConfig EuroBertPreTrainedModel EuroBertModel EuroBertForMaskedLM EuroBertForSequenceClassification "
        "EuroBertForTokenClassification"
    ),
    "cutaway.tokenization.base": (
        "PreTrainedTokenizer PreTrainedTokenizerBase PreTrainedTokenizerFast TokenizersBackend"
    ),
    "cutaway.tokenization.wordpiece": (
        "BertTokenizer BertTokenizerFast DistilBertTokenizer DistilBertTokenizerFast ElectraTokenizer "
        "ElectraTokenizerFast MPNetTokenizer MPNetTokenizerFast"
    ),
    "cutaway.tokenization.byte_level_bpe": (
        "BartTokenizer BartTokenizerFast GPT2Tokenizer GPT2TokenizerFast GPTNeoXTokenizer GPTNeoXTokenizerFast "
        "Qwen2Tokenizer Qwen2TokenizerFast RobertaTokenizer RobertaTokenizerFast"
    ),
    "cutaway.outputs": "ModelOutput strict_outputs",
    "cutaway.nn.cache_kinds": "StaticCache EncoderDecoderCache",
    "cutaway.nn.kv_cache": "Cache DynamicCache",
    "cutaway.models.generation_mixin": "GenerationMixin",
    "cutaway.tokenization.special_tokens": "AddedToken",
    "cutaway.tokenization.batch_encoding": "BatchEncoding CharSpan TokenSpan",
    "cutaway.generate.logits_process": (
        "ClassifierFreeGuidanceLogitsProcessor EncoderNoRepeatNGramLogitsProcessor "
        "EncoderRepetitionPenaltyLogitsProcessor ExponentialDecayLengthPenalty ForcedBOSTokenLogitsProcessor "
        "ForcedEOSTokenLogitsProcessor InfNanRemoveLogitsProcessor LogitNormalization LogitsProcessor "
        "LogitsProcessorList LogitsWarper MinLengthLogitsProcessor MinNewTokensLengthLogitsProcessor "
        "NoBadWordsLogitsProcessor NoRepeatNGramLogitsProcessor PrefixConstrainedLogitsProcessor "
        "RepetitionPenaltyLogitsProcessor SequenceBiasLogitsProcessor SuppressTokensAtBeginLogitsProcessor "
        "SuppressTokensLogitsProcessor"
    ),
    "cutaway.generate.guidance": "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    "cutaway.generate.synthid": "SynthIDTextWatermarkLogitsProcessor SynthIDTextWatermarkingConfig",
    "cutaway.generate.watermark": "WatermarkDetector WatermarkLogitsProcessor WatermarkingConfig",
    "cutaway.generate.logits_warpers": (
        "EpsilonLogitsWarper EtaLogitsWarper MinPLogitsWarper TemperatureLogitsWarper TopHLogitsWarper "
        "TopKLogitsWarper TopPLogitsWarper TypicalLogitsWarper"
    ),
    "cutaway.generate.stopping_criteria": (
        "EosTokenCriteria MaxLengthCriteria MaxTimeCriteria StopStringCriteria StoppingCriteria StoppingCriteriaList"
    ),
    "cutaway.compat.argument_parser": "HfArgumentParser",
    "cutaway.compat.constants": "CONFIG_NAME MODEL_CARD_NAME SPIECE_UNDERLINE TensorType WEIGHTS_NAME",
    "cutaway.compat.trainer_names": (
        "Conv1D apply_chunking_to_forward enable_full_determinism torch_distributed_zero_first"
    ),
    "cutaway.compat.docstrings": "DataCollator add_end_docstrings add_start_docstrings requires_backends",
    "cutaway.compat.mappings": (
        "CONFIG_MAPPING MODEL_FOR_CAUSAL_LM_MAPPING MODEL_FOR_MASKED_LM_MAPPING MODEL_FOR_MULTIPLE_CHOICE_MAPPING "
        "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING MODEL_FOR_PRETRAINING_MAPPING MODEL_FOR_QUESTION_ANSWERING_MAPPING "
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING "
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING MODEL_FOR_TEXT_ENCODING_MAPPING MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING "
        "MODEL_MAPPING TOKENIZER_MAPPING get_values"
    ),
    "cutaway.tokenization.sentencepiece_bpe": ("GemmaTokenizer GemmaTokenizerFast LlamaTokenizer LlamaTokenizerFast"),
    "cutaway.tokenization.unigram": (
        "AlbertTokenizer AlbertTokenizerFast CamembertTokenizer CamembertTokenizerFast DebertaV2Tokenizer "
        "DebertaV2TokenizerFast PegasusTokenizer PegasusTokenizerFast T5Tokenizer T5TokenizerFast XLMRobertaTokenizer "
        "XLMRobertaTokenizerFast"
    ),
    "cutaway.tokenization.translation": "MarianTokenizer MBartTokenizer MBartTokenizerFast",
    "cutaway.nn.lora_config": "LoraConfig",
    "cutaway.generate": "AsyncTextIteratorStreamer GenerationConfig TextIteratorStreamer TextStreamer",
    "cutaway.inspect": "Explanation explain",
    "cutaway.pipelines": (
        "Embedder Pipeline FeatureExtractionPipeline FillMaskPipeline MultipleChoicePipeline NerPipeline "
        "PIPELINE_REGISTRY PerplexityPipeline QuestionAnsweringPipeline RerankPipeline SentenceSimilarityPipeline "
        "SummarizationPipeline Text2TextGenerationPipeline TextClassificationPipeline TextGenerationPipeline "
        "TokenClassificationPipeline TranslationPipeline ZeroShotClassificationPipeline pipeline"
    ),
    "cutaway.train": (
        "Adafactor DataCollatorForLanguageModeling DataCollatorForMultipleChoice "
        "DataCollatorForPermutationLanguageModeling DataCollatorForSeq2Seq DataCollatorForTokenClassification "
        "DataCollatorForWholeWordMask DataCollatorWithFlattening DataCollatorWithPadding DefaultDataCollator "
        "DefaultFlowCallback EarlyStoppingCallback EvalPrediction IntervalStrategy PredictionOutput PrinterCallback "
        "ProgressCallback SaveStrategy SchedulerType Seq2SeqTrainer Seq2SeqTrainingArguments TrainOutput Trainer "
        "TrainerCallback TrainerControl TrainerState TrainingArguments default_data_collator get_adafactor_schedule "
        "get_constant_schedule get_constant_schedule_with_warmup get_cosine_schedule_with_warmup "
        "get_cosine_with_hard_restarts_schedule_with_warmup get_cosine_with_min_lr_schedule_with_warmup "
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate get_inverse_sqrt_schedule get_linear_schedule_with_warmup "
        "get_polynomial_decay_schedule_with_warmup get_reduce_on_plateau_schedule get_scheduler get_wsd_schedule "
        "set_seed"
    ),
}
# of upstream's top level: is_..._available, and names that can be imported and not used
_ASKED = (
    "accelerate apex av bitsandbytes clearml comet datasets dvclive faiss matplotlib mlx neptune optuna phonemizer "
    "psutil py3nvml pyctcdecode ray ray_tune sacremoses scipy sentencepiece sklearn speech swanlab tensorboard timm "
    "tokenizers torch torch_hpu torch_mlu torch_musa torch_neuroncore torch_npu torch_xla torch_xpu torchvision "
    "trackio vision wandb"
)
_MODULES["cutaway.compat.availability"] = " ".join([f"is_{name}_available" for name in _ASKED.split()])
_MODULES["cutaway.compat.refused"] = (
    "AqlmConfig AutoRoundConfig AwqConfig BayesianDetectorConfig BayesianDetectorModel BitNetQuantConfig "
    "BitsAndBytesConfig CompileConfig CompressedTensorsConfig ContinuousBatchingConfig ContinuousBatchingManager "
    "DistributedConfig EetqConfig FPQuantConfig FbgemmFp8Config FineGrainedFP8Config FourOverSixConfig "
    "Fp8QuantizedLayer GPTQConfig GemmaQuantizationConfig GgufConfig GreedyLR HQQQuantizedLayer HiggsConfig HqqConfig "
    "KernelConfig MetalConfig Mxfp4Config NVFP4Config QuantizedCache QuantoConfig QuantoQuantizedLayer QuarkConfig "
    "SinqConfig SpQRConfig SynthIDTextWatermarkDetector TorchAoConfig TorchExportableModuleWithStaticCache VptqConfig "
    "convert_and_export_with_cache get_greedy_schedule"
)
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
_HOME["logging"] = "cutaway.compat"  # upstream's top level has the module
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        if not name.startswith("_"):
            if PathFinder.find_spec(f"{__name__}.{name}", __path__) is not None:  # `from cutaway import nn` asks, too
                return importlib.import_module(f"{__name__}.{name}")
            table = importlib.import_module("cutaway.compat.table")
            if table.is_module(name):  # `import cutaway; cutaway.utils.logging.get_logger()`
                return importlib.import_module(f"{__name__}.{name}")
            if (absent := table.absent_home(name)) is not None:  # it can be imported, and says why it cannot be used
                return getattr(importlib.import_module(absent), name)
        from cutaway.errors import nearest

        raise AttributeError(f"cutaway has no {name!r}.{nearest(name, _HOME)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _UpstreamPaths:
    """The last finder that Python asks: upstream's module paths, such as `cutaway.trainer_utils`."""

    def find_spec(self, name: str, path: object = None, target: Any = None) -> Any:
        if not name.startswith(__name__ + "."):
            return None
        return importlib.import_module("cutaway.compat.finder").find_spec(name)


if not any(type(finder).__name__ == "_UpstreamPaths" for finder in sys.meta_path):
    sys.meta_path.append(_UpstreamPaths())


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

"""cutaway: transformer text models that are fast and open at every joint.

Public names are imported when they are first used, so `import cutaway` costs no torch.
"""

from __future__ import annotations

import importlib

MYPY = False  # true for type checkers alone: `typing` is half of what this import would cost
if MYPY:
    from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "cutaway.auto": (
        "AutoConfig AutoTokenizer AutoModel AutoModelForCausalLM AutoModelForMaskedLM AutoModelForMultipleChoice "
        "AutoModelForPreTraining AutoModelForQuestionAnswering AutoModelForSeq2SeqLM "
        "AutoModelForSequenceClassification AutoModelForTokenClassification"
    ),
    "cutaway.config.config": "PretrainedConfig PreTrainedConfig",
    "cutaway.errors": "CutawayError",
    "cutaway.nn.activations.edits": "Edit",
    "cutaway.models.pretrained": "PreTrainedModel",
    "cutaway.families.bert": (
        "BertConfig BertPreTrainedModel BertModel BertForMaskedLM BertLMHeadModel BertForMultipleChoice "
        "BertForQuestionAnswering BertForSequenceClassification BertForTokenClassification"
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
    "cutaway.families.electra": (
        "ElectraConfig ElectraPreTrainedModel ElectraModel ElectraForCausalLM ElectraForMaskedLM "
        "ElectraForMultipleChoice ElectraForPreTraining ElectraForQuestionAnswering ElectraForSequenceClassification "
        "ElectraForTokenClassification"
    ),
    "cutaway.families.albert": (
        "AlbertConfig AlbertPreTrainedModel AlbertModel AlbertForMaskedLM AlbertForMultipleChoice "
        "AlbertForQuestionAnswering AlbertForSequenceClassification AlbertForTokenClassification"
    ),
    "cutaway.families.mpnet": (
        "MPNetConfig MPNetPreTrainedModel MPNetModel MPNetForMaskedLM MPNetForMultipleChoice "
        "MPNetForQuestionAnswering MPNetForSequenceClassification MPNetForTokenClassification"
    ),
    "cutaway.families.modernbert": (
        "ModernBertConfig ModernBertPreTrainedModel ModernBertModel ModernBertForMaskedLM ModernBertForMultipleChoice "
        "ModernBertForQuestionAnswering ModernBertForSequenceClassification ModernBertForTokenClassification"
    ),
    "cutaway.families.gpt2": (
        "GPT2Config GPT2PreTrainedModel GPT2Model GPT2LMHeadModel GPT2ForQuestionAnswering "
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
    "cutaway.families.pegasus": ("PegasusConfig PegasusPreTrainedModel PegasusModel PegasusForConditionalGeneration"),
    "cutaway.families.t5": (
        "T5Config T5PreTrainedModel T5Model T5EncoderModel T5ForConditionalGeneration T5ForQuestionAnswering "
        "T5ForSequenceClassification T5ForTokenClassification"
    ),
    "cutaway.families.bart": (
        "BartConfig BartPreTrainedModel BartModel BartForConditionalGeneration BartForQuestionAnswering "
        "BartForSequenceClassification"
    ),
    "cutaway.tokenization.base": "PreTrainedTokenizerFast",
    "cutaway.tokenization.wordpiece": (
        "BertTokenizer BertTokenizerFast DistilBertTokenizer DistilBertTokenizerFast ElectraTokenizer "
        "ElectraTokenizerFast MPNetTokenizer MPNetTokenizerFast"
    ),
    "cutaway.tokenization.byte_level_bpe": (
        "BartTokenizer BartTokenizerFast GPT2Tokenizer GPT2TokenizerFast GPTNeoXTokenizer GPTNeoXTokenizerFast "
        "Qwen2Tokenizer Qwen2TokenizerFast RobertaTokenizer RobertaTokenizerFast"
    ),
    "cutaway.tokenization.sentencepiece_bpe": ("GemmaTokenizer GemmaTokenizerFast LlamaTokenizer LlamaTokenizerFast"),
    "cutaway.tokenization.unigram": (
        "AlbertTokenizer AlbertTokenizerFast PegasusTokenizer PegasusTokenizerFast T5Tokenizer T5TokenizerFast "
        "XLMRobertaTokenizer XLMRobertaTokenizerFast"
    ),
    "cutaway.tokenization.translation": "MarianTokenizer MBartTokenizer MBartTokenizerFast",
    "cutaway.tokenization.batch_encoding": "BatchEncoding",
    "cutaway.nn.lora_config": "LoraConfig",
    "cutaway.generate": "GenerationConfig TextStreamer TextIteratorStreamer",
    "cutaway.inspect": "Explanation explain",
    "cutaway.pipelines": (
        "Embedder Pipeline FeatureExtractionPipeline FillMaskPipeline MultipleChoicePipeline PerplexityPipeline "
        "QuestionAnsweringPipeline RerankPipeline SentenceSimilarityPipeline SummarizationPipeline "
        "Text2TextGenerationPipeline TextClassificationPipeline TextGenerationPipeline TokenClassificationPipeline "
        "TranslationPipeline ZeroShotClassificationPipeline pipeline"
    ),
    "cutaway.train": (
        "DataCollatorForLanguageModeling DataCollatorForSeq2Seq DataCollatorForTokenClassification "
        "DataCollatorWithFlattening DataCollatorWithPadding EarlyStoppingCallback EvalPrediction IntervalStrategy "
        "PredictionOutput ProgressCallback SaveStrategy TrainOutput Trainer TrainerCallback TrainerControl "
        "TrainerState TrainingArguments default_data_collator get_constant_schedule "
        "get_constant_schedule_with_warmup get_cosine_schedule_with_warmup get_linear_schedule_with_warmup set_seed"
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        from cutaway.errors import nearest

        raise AttributeError(f"cutaway has no {name!r}.{nearest(name, _HOME)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

"""One name for every family: the class is chosen by the `model_type` in config.json."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, overload

from cutaway.checkpoint.collector_pause import collector_paused
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError, HubError, nearest
from cutaway.hub.argument_names import also_called
from cutaway.hub.files import HUB_OPTIONS, HubOptions, hub_options, take_hub_options

if TYPE_CHECKING:  # named below as strings, so that no torch is loaded here
    from cutaway.models.backbone import Backbone  # noqa: F401
    from cutaway.models.label_heads import (
        MultipleChoice,  # noqa: F401
        QuestionAnswering,  # noqa: F401
        ReplacedTokens,  # noqa: F401
        SequenceClassification,  # noqa: F401
        TokenClassification,  # noqa: F401
    )
    from cutaway.models.lm_heads import CausalLM, MaskedLM  # noqa: F401
    from cutaway.models.loading import LoadReport
    from cutaway.models.pretrained import PreTrainedModel
    from cutaway.models.pretraining_heads import NextSentence  # noqa: F401
    from cutaway.models.seq2seq_heads import Seq2SeqLM  # noqa: F401
    from cutaway.tokenization.base import PreTrainedTokenizerFast
    from cutaway.tokenization.protocols import TokenizerProtocol

# model_type -> (module, the class name's first part, how its base models are called)
FAMILIES: dict[str, tuple[str, str]] = {
    "bert": ("cutaway.families.bert", "Bert"),
    "distilbert": ("cutaway.families.distilbert", "DistilBert"),
    "roberta": ("cutaway.families.roberta", "Roberta"),
    "xlm-roberta": ("cutaway.families.xlm_roberta", "XLMRoberta"),
    "camembert": ("cutaway.families.camembert", "Camembert"),
    "electra": ("cutaway.families.electra", "Electra"),
    "albert": ("cutaway.families.albert", "Albert"),
    "mpnet": ("cutaway.families.mpnet", "MPNet"),
    "modernbert": ("cutaway.families.modernbert", "ModernBert"),
    "deberta-v2": ("cutaway.families.deberta_v2", "DebertaV2"),
    "eurobert": ("cutaway.families.eurobert", "EuroBert"),
    "nomic_bert": ("cutaway.families.nomic_bert", "NomicBert"),
    "gte": ("cutaway.families.gte", "Gte"),
    "jina_embeddings_v3": ("cutaway.families.jina_embeddings_v3", "JinaEmbeddingsV3"),
    "xlnet": ("cutaway.families.xlnet", "XLNet"),
    "gpt2": ("cutaway.families.gpt2", "GPT2"),
    "llama": ("cutaway.families.llama", "Llama"),
    "mistral": ("cutaway.families.mistral", "Mistral"),
    "smollm3": ("cutaway.families.smollm3", "SmolLM3"),
    "qwen2": ("cutaway.families.qwen2", "Qwen2"),
    "qwen3": ("cutaway.families.qwen3", "Qwen3"),
    "gemma": ("cutaway.families.gemma", "Gemma"),
    "gemma2": ("cutaway.families.gemma2", "Gemma2"),
    "gemma3_text": ("cutaway.families.gemma3", "Gemma3Text"),
    "olmo2": ("cutaway.families.olmo2", "Olmo2"),
    "granite": ("cutaway.families.granite", "Granite"),
    "phi": ("cutaway.families.phi", "Phi"),
    "stablelm": ("cutaway.families.stablelm", "StableLm"),
    "cohere": ("cutaway.families.cohere", "Cohere"),
    "cohere2": ("cutaway.families.cohere2", "Cohere2"),
    "gptj": ("cutaway.families.gptj", "GPTJ"),
    "gpt_neo": ("cutaway.families.gpt_neo", "GPTNeo"),
    "falcon": ("cutaway.families.falcon", "Falcon"),
    "bloom": ("cutaway.families.bloom", "Bloom"),
    "qwen3_moe": ("cutaway.families.qwen3_moe", "Qwen3Moe"),
    "olmoe": ("cutaway.families.olmoe", "Olmoe"),
    "phi3": ("cutaway.families.phi3", "Phi3"),
    "gpt_neox": ("cutaway.families.gpt_neox", "GPTNeoX"),
    "opt": ("cutaway.families.opt", "OPT"),
    "marian": ("cutaway.families.marian", "Marian"),
    "mbart": ("cutaway.families.mbart", "MBart"),
    "m2m_100": ("cutaway.families.m2m_100", "M2M100"),
    "pegasus": ("cutaway.families.pegasus", "Pegasus"),
    "t5": ("cutaway.families.t5", "T5"),
    "mt5": ("cutaway.families.mt5", "MT5"),
    "umt5": ("cutaway.families.umt5", "UMT5"),
    "bart": ("cutaway.families.bart", "Bart"),
}
# the same of models that are made of two, each of a family of its own
PAIRS: dict[str, tuple[str, str]] = {"encoder-decoder": ("cutaway.pairs.encoder_decoder", "EncoderDecoder")}


# what a program has registered: model_type -> config class
_CONFIGS: dict[str, type[PretrainedConfig]] = {}
# config class -> tokenizer class
_TOKENIZERS: dict[type[PretrainedConfig], Any] = {}


def _check_free(what: str, taken: bool, exist_ok: bool) -> None:
    if taken and not exist_ok:
        raise ConfigError(f"{what} is registered already; pass exist_ok=True to put another in its place.")


def _family(model_type: str, where: str = "") -> tuple[str, str]:
    known = FAMILIES | PAIRS
    if model_type not in known:
        said = f"{where}: " if where else ""
        raise ConfigError(
            f"{said}model_type is {model_type!r}; cutaway has {', '.join(known)}.{nearest(model_type, known)}"
        )
    return known[model_type]


def config_class(model_type: str, where: str = "") -> type[PretrainedConfig]:
    """The config class of a family.

    Raises:
        ConfigError: the family is unknown; the message lists those that are not.
    """
    if model_type in _CONFIGS:
        return _CONFIGS[model_type]
    module, first = _family(model_type, where)
    found: type[PretrainedConfig] = getattr(importlib.import_module(module), f"{first}Config")
    return found


def read_config(name: str | Path, **kwargs: Any) -> PretrainedConfig:
    """The config of a checkpoint, of its family's class."""
    how = take_hub_options(kwargs)
    gguf_file = kwargs.pop("gguf_file", None)
    fields = (
        PretrainedConfig.get_config_dict(name, **how)[0] if gguf_file is None else _gguf_fields(name, gguf_file, how)
    )
    model_type = fields.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(f"{name}: config.json has no model_type, so cutaway cannot tell which family it is.")
    config: PretrainedConfig = config_class(model_type, str(name)).from_dict(fields, name_or_path=str(name), **kwargs)
    return config


def _gguf_fields(name: str | Path, gguf_file: str, how: HubOptions) -> dict[str, Any]:
    from cutaway.checkpoint.gguf import read_gguf
    from cutaway.hub.files import resolve

    return read_gguf(resolve(name, **how).require(gguf_file)).config


def check_config(config: object) -> None:
    """ConfigError unless `config` is a configuration."""
    if not isinstance(config, PretrainedConfig):
        raise ConfigError(
            f"config must be a PretrainedConfig, not {type(config).__name__}; AutoConfig.from_pretrained(name) or "
            "AutoConfig.for_model(model_type) makes one."
        )


class AutoConfig:
    """`AutoConfig.from_pretrained(name)`; `AutoConfig.for_model("bert", hidden_size=128)`."""

    @staticmethod
    @also_called(pretrained_model_name_or_path="name")
    def from_pretrained(name: str | Path, **kwargs: object) -> PretrainedConfig:
        """The config of a checkpoint; keyword arguments that are fields override it."""
        return read_config(name, **kwargs)

    @staticmethod
    def for_model(model_type: str, **fields: object) -> PretrainedConfig:
        """A fresh config of a family."""
        return config_class(model_type)(**fields)

    @staticmethod
    def register(model_type: str, config: type[PretrainedConfig], exist_ok: bool = False) -> None:
        """Let checkpoints whose config.json says `model_type` be read with this class of your own.

        Raises:
            ConfigError: it is no configuration, says another model_type, or one of this name is there.
        """
        if not (isinstance(config, type) and issubclass(config, PretrainedConfig)):
            raise ConfigError(f"AutoConfig.register needs a PretrainedConfig class, not {config!r}.")
        if config.model_type != model_type:
            raise ConfigError(
                f"{config.__name__}.model_type is {config.model_type!r}, and it is registered as {model_type!r}; "
                "make them equal."
            )
        _check_free(model_type, model_type in (FAMILIES | PAIRS | _CONFIGS), exist_ok)
        _CONFIGS[model_type] = config


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(name)`: the tokenizer that belongs to a checkpoint."""

    @staticmethod
    @also_called(pretrained_model_name_or_path="name")
    @collector_paused()
    def from_pretrained(name: str | Path, **kwargs: object) -> PreTrainedTokenizerFast:
        """Load by hub name, folder or built-in name.

        `tokenizer_type`, a model type such as "gpt2", says the kind of tokenizer where the files do not.
        """
        from cutaway.tokenization.registry import load_tokenizer

        config = kwargs.pop("config", None)
        if (
            _TOKENIZERS
            and "tokenizer_type" not in kwargs
            and (own := _registered_tokenizer(name, config, kwargs)) is not None
        ):
            return own.from_pretrained(name, **kwargs)  # type: ignore[no-any-return]
        return load_tokenizer(name, **kwargs) if config is None else load_tokenizer(name, config=config, **kwargs)

    @staticmethod
    def register(
        config_class: type[PretrainedConfig],
        tokenizer_class: type[TokenizerProtocol] | None = None,
        slow_tokenizer_class: type[TokenizerProtocol] | None = None,
        fast_tokenizer_class: type[TokenizerProtocol] | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Let checkpoints with this configuration be read with a tokenizer class of your own."""
        found = fast_tokenizer_class or tokenizer_class or slow_tokenizer_class
        if found is None:
            raise ConfigError("AutoTokenizer.register needs a tokenizer class.")
        _check_free(config_class.__name__, config_class in _TOKENIZERS, exist_ok)
        _TOKENIZERS[config_class] = found


def _registered_tokenizer(name: Any, config: Any, options: dict[str, Any]) -> Any:
    """The tokenizer class that a program has registered for a checkpoint, or None."""
    if config is None:
        try:
            config = read_config(name, **hub_options(options))
        except (ConfigError, HubError):
            return None
    return _TOKENIZERS.get(type(config))


Model = TypeVar("Model", bound="PreTrainedModel", covariant=True)


class _AutoModel(Generic[Model]):
    # family -> what follows the first part of the class name, where it is not `ending`
    ending: ClassVar[str] = "Model"
    others: ClassVar[dict[str, str]] = {}
    _registered: ClassVar[dict[type[PretrainedConfig], Any]] = {}

    def __init__(self) -> None:
        raise TypeError(
            f"{type(self).__name__} is made by {type(self).__name__}.from_pretrained(name) or .from_config(config)."
        )

    @classmethod
    def model_class(cls, model_type: str, where: str = "") -> type[PreTrainedModel]:
        """The family's class for this task.

        Raises:
            ConfigError: the family is unknown, or has no such head.
        """
        module, first = _family(model_type, where)
        name = f"{first}{cls.others.get(model_type, cls.ending)}"
        found = getattr(importlib.import_module(module), name, None)
        if found is None:
            raise ConfigError(
                f"{model_type} models have no {name}; {cls.__name__} does not fit {where or 'this family'}."
            )
        return found  # type: ignore[no-any-return]

    @classmethod
    def register(
        cls, config_class: type[PretrainedConfig], model_class: type[PreTrainedModel], exist_ok: bool = False
    ) -> None:
        """Let models with this configuration be of a class of your own.

        Raises:
            ConfigError: the class says that it has another configuration, or one is there.
        """
        own = getattr(model_class, "config_class", None)
        if own is not None and own is not PretrainedConfig and own is not config_class:
            raise ConfigError(
                f"{model_class.__name__}.config_class is {own.__name__}, and it is registered for "
                f"{config_class.__name__}; make them equal."
            )
        _check_free(f"{config_class.__name__} of {cls.__name__}", config_class in cls.registered(), exist_ok)
        cls.registered()[config_class] = model_class

    @classmethod
    def registered(cls) -> dict[type[PretrainedConfig], Any]:
        """What a program has registered here: config class -> model class."""
        if "_registered" not in vars(cls):
            cls._registered = {}
        return cls._registered

    @classmethod
    def class_for(cls, config: PretrainedConfig, where: str = "") -> Any:
        """The class of a model with this configuration."""
        own = cls.registered().get(type(config))
        return cls.model_class(config.model_type, where) if own is None else own

    @overload
    @classmethod
    def from_pretrained(
        cls, name: str | Path, *args: Any, output_loading_info: Literal[False] = False, **kwargs: object
    ) -> Model: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, name: str | Path, *args: Any, output_loading_info: Literal[True], **kwargs: object
    ) -> tuple[Model, LoadReport]: ...

    @overload
    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **kwargs: object) -> Model: ...

    @classmethod
    @also_called(pretrained_model_name_or_path="name")
    @collector_paused()
    def from_pretrained(cls, name: str | Path, *args: Any, **kwargs: Any) -> object:
        """Load a checkpoint; the arguments are those of `PreTrainedModel.from_pretrained`."""
        config = kwargs.pop("config", None)
        if isinstance(config, str | Path):
            config = read_config(config)
        if config is None:
            where = {k: kwargs[k] for k in (*HUB_OPTIONS, "gguf_file") if k in kwargs}
            config = read_config(name, **where)
        check_config(config)
        return cls.class_for(config, str(name)).from_pretrained(name, *args, config=config, **kwargs)

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: object) -> Model:
        """A model with fresh random weights."""
        check_config(config)
        return cls.class_for(config).from_config(config, **kwargs)  # type: ignore[no-any-return]


class AutoModel(_AutoModel["Backbone"]):
    """The base model: hidden states."""


class AutoModelForTextEncoding(_AutoModel["Backbone"]):
    """The hidden states of a text: the base model, of T5 the encoder alone."""

    others: ClassVar[dict[str, str]] = dict.fromkeys(("t5", "mt5", "umt5"), "EncoderModel")


class AutoModelForMaskedLM(_AutoModel["MaskedLM"]):
    """Which token belongs at each place."""

    ending = "ForMaskedLM"
    others: ClassVar[dict[str, str]] = {"xlnet": "LMHeadModel"}


class AutoModelForPreTraining(_AutoModel["ReplacedTokens"]):
    """What the family was first trained for (ELECTRA: which tokens another model put there)."""

    ending = "ForPreTraining"
    others: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("distilbert", "roberta", "xlm-roberta", "mpnet"), "ForMaskedLM"),
        **dict.fromkeys(("gpt2", "xlnet"), "LMHeadModel"),
        **dict.fromkeys(("t5", "bart"), "ForConditionalGeneration"),
    }


class AutoModelForNextSentencePrediction(_AutoModel["NextSentence"]):
    """Whether a text follows another."""

    ending = "ForNextSentencePrediction"


class AutoModelForCausalLM(_AutoModel["CausalLM"]):
    """Which token comes next."""

    ending = "ForCausalLM"
    others: ClassVar[dict[str, str]] = dict.fromkeys(("gpt2", "bert", "xlnet"), "LMHeadModel")


class AutoModelForSeq2SeqLM(_AutoModel["Seq2SeqLM"]):
    """A text from a text."""

    ending = "ForConditionalGeneration"
    others: ClassVar[dict[str, str]] = {"marian": "MTModel", "encoder-decoder": "Model"}


class AutoModelForSequenceClassification(_AutoModel["SequenceClassification"]):
    """A label for a text."""

    ending = "ForSequenceClassification"


class AutoModelForTokenClassification(_AutoModel["TokenClassification"]):
    """A label for each token."""

    ending = "ForTokenClassification"


class AutoModelForQuestionAnswering(_AutoModel["QuestionAnswering"]):
    """Where the answer stands in the text."""

    ending = "ForQuestionAnswering"
    others: ClassVar[dict[str, str]] = {"xlnet": "ForQuestionAnsweringSimple"}


class AutoModelForMultipleChoice(_AutoModel["MultipleChoice"]):
    """Which of several texts is right."""

    ending = "ForMultipleChoice"

"""`CONFIG_MAPPING`, `MODEL_FOR_CAUSAL_LM_MAPPING` and the like: which classes there are, by family and by task."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from cutaway import auto
from cutaway.errors import ConfigError, nearest
from cutaway.hub.upstream_types import own_class

T = TypeVar("T")


class LazyMapping(Mapping[Any, Any]):
    """A mapping whose keys and values are imported when they are read."""

    def __init__(
        self, name: str, pairs: Callable[[], dict[Any, Callable[[], Any]]], register: Callable[..., None]
    ) -> None:
        self._name, self._pairs, self._register = name, pairs, register

    def __getitem__(self, key: Any) -> Any:
        pairs, key = self._pairs(), own_class(key)  # a script asks with config.__class__
        if key not in pairs:
            shown = getattr(key, "__name__", key)
            raise KeyError(f"{self._name} has no {shown!r}.{nearest(str(shown), [str(k) for k in pairs])}")
        return pairs[key]()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pairs())

    def __len__(self) -> int:
        return len(self._pairs())

    def register(self, key: object, value: object, exist_ok: bool = False) -> None:
        """Add a class of your own, as `AutoConfig.register` and `AutoModel.register` do."""
        self._register(key, value, exist_ok=exist_ok)


def _refuse(key: object, value: object, exist_ok: bool = False) -> None:
    raise ConfigError("no family of cutaway is built for this task, so nothing can be registered for it.")


def _import(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _itself(value: T) -> T:
    return value


def _configs() -> dict[Any, Callable[[], Any]]:
    return {t: partial(auto.config_class, t) for t in (*auto.FAMILIES, *auto._CONFIGS)}


def _class_name(kind: type[auto._AutoModel[Any]], model_type: str) -> str | None:
    """The name of the family's class for a task; None where it has none."""
    module, first = auto.FAMILIES[model_type]
    name = f"{first}{kind.others.get(model_type, kind.ending)}"
    found = getattr(importlib.import_module(module), name, None)
    return None if found is None else str(found.__name__)


def _models(kind: type[auto._AutoModel[Any]]) -> dict[Any, Callable[[], Any]]:
    found: dict[Any, Callable[[], Any]] = {}
    for model_type, (module, _) in auto.FAMILIES.items():
        if (name := _class_name(kind, model_type)) is not None:
            found[auto.config_class(model_type)] = partial(_import, module, name)
    return found | {config: partial(_itself, model) for config, model in kind.registered().items()}


def _tokenizer_name(model_type: str) -> str | None:
    first = auto.FAMILIES[model_type][1]
    public = importlib.import_module("cutaway")
    return next((n for n in (f"{first}TokenizerFast", f"{first}Tokenizer") if hasattr(public, n)), None)


def _tokenizers() -> dict[Any, Callable[[], Any]]:
    found: dict[Any, Callable[[], Any]] = {}
    for model_type in auto.FAMILIES:
        name = _tokenizer_name(model_type) or "PreTrainedTokenizerFast"
        found[auto.config_class(model_type)] = partial(_import, "cutaway", name)
    return found | {config: partial(_itself, kind) for config, kind in auto._TOKENIZERS.items()}


TASKS: dict[str, str] = {
    "MODEL_MAPPING": "AutoModel",
    "MODEL_FOR_PRETRAINING_MAPPING": "AutoModelForPreTraining",
    "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING": "AutoModelForNextSentencePrediction",
    "MODEL_FOR_CAUSAL_LM_MAPPING": "AutoModelForCausalLM",
    "MODEL_FOR_MASKED_LM_MAPPING": "AutoModelForMaskedLM",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING": "AutoModelForSeq2SeqLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": "AutoModelForSequenceClassification",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING": "AutoModelForQuestionAnswering",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING": "AutoModelForTokenClassification",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING": "AutoModelForMultipleChoice",
    "MODEL_FOR_TEXT_ENCODING_MAPPING": "AutoModelForTextEncoding",
}
CONFIG_MAPPING = LazyMapping("CONFIG_MAPPING", _configs, auto.AutoConfig.register)
TOKENIZER_MAPPING = LazyMapping(
    "TOKENIZER_MAPPING",
    _tokenizers,
    lambda key, value, exist_ok: auto.AutoTokenizer.register(key, value, exist_ok=exist_ok),
)
CONFIG_MAPPING_NAMES = {model_type: f"{first}Config" for model_type, (_, first) in auto.FAMILIES.items()}


def config_class_to_model_type(name: str) -> str | None:
    """The model_type of a config class, by its name; None for one that no family has."""
    return next((t for t, config in CONFIG_MAPPING_NAMES.items() if config == name), None)


def __getattr__(name: str) -> Any:
    """The mappings of the tasks, and with `_NAMES` behind, model_type -> name of the class."""
    if name == "TOKENIZER_MAPPING_NAMES":
        return {t: found for t in auto.FAMILIES if (found := _tokenizer_name(t)) is not None}
    task = name.removesuffix("_NAMES")
    if task not in TASKS:
        if not (task.startswith(("MODEL_FOR_", "MODEL_WITH_")) and task.endswith("_MAPPING")):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return {} if name != task else LazyMapping(name, dict, _refuse)  # no family is built for that task
    kind = getattr(auto, TASKS[task])
    if name != task:
        return {t: found for t in auto.FAMILIES if (found := _class_name(kind, t)) is not None}
    made = LazyMapping(name, lambda: _models(kind), kind.register)
    globals()[name] = made
    return made


def get_values(model_mapping: Mapping[Any, Any]) -> list[Any]:
    """All classes of a mapping, those that stand in tuples too."""
    found: list[Any] = []
    for value in model_mapping.values():
        found += list(value) if isinstance(value, list | tuple) else [value]
    return found

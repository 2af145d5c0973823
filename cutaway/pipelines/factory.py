"""From a task's name and a model's name to a pipeline that runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from cutaway.errors import ConfigError, HubError, InputError, nearest
from cutaway.hub.class_endings import ending_of
from cutaway.hub.files import hub_options

if TYPE_CHECKING:
    import torch

    from cutaway.models.protocols import LanguageModel
    from cutaway.pipelines.base import Device, Pipeline
    from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline
    from cutaway.pipelines.fill_mask import FillMaskPipeline
    from cutaway.pipelines.multiple_choice import MultipleChoicePipeline
    from cutaway.pipelines.perplexity import PerplexityPipeline
    from cutaway.pipelines.question_answering import QuestionAnsweringPipeline
    from cutaway.pipelines.rerank import RerankPipeline
    from cutaway.pipelines.sentence_similarity import SentenceSimilarityPipeline
    from cutaway.pipelines.summarization import SummarizationPipeline
    from cutaway.pipelines.text2text_generation import Text2TextGenerationPipeline
    from cutaway.pipelines.text_classification import TextClassificationPipeline
    from cutaway.pipelines.text_generation import TextGenerationPipeline
    from cutaway.pipelines.token_classification import TokenClassificationPipeline
    from cutaway.pipelines.translation import TranslationPipeline
    from cutaway.pipelines.zero_shot_classification import ZeroShotClassificationPipeline
    from cutaway.tokenization.protocols import TokenizerLike

    # a name on the hub, a folder, a .gguf file, a built-in, or what is loaded already
    ModelSource: TypeAlias = LanguageModel | str | Path
    TokenizerSource: TypeAlias = TokenizerLike | str | Path
    DType: TypeAlias = torch.dtype | str


log = logging.getLogger("cutaway.pipelines.base")  # where upstream says it


@dataclass(frozen=True)
class Task:
    """What a task needs: its pipeline class, its kind of model, and the model that the tutorials use for it.

    `models` are names of the same checkpoint, in the order in which they are tried; `builtin` comes with the package.
    """

    module: str
    pipeline: str
    auto: str
    models: tuple[str, ...]
    builtin: str = ""


TASKS: dict[str, Task] = {
    "feature-extraction": Task(
        module="cutaway.pipelines.feature_extraction",
        pipeline="FeatureExtractionPipeline",
        auto="AutoModel",
        models=("distilbert/distilbert-base-cased", "distilbert-base-cased"),
    ),
    "fill-mask": Task(
        module="cutaway.pipelines.fill_mask",
        pipeline="FillMaskPipeline",
        auto="AutoModelForMaskedLM",
        models=("distilbert/distilroberta-base", "distilroberta-base"),
    ),
    "multiple-choice": Task(
        module="cutaway.pipelines.multiple_choice",
        pipeline="MultipleChoicePipeline",
        auto="AutoModelForMultipleChoice",
        models=(),
    ),
    "perplexity": Task(
        module="cutaway.pipelines.perplexity",
        pipeline="PerplexityPipeline",
        auto="AutoModelForCausalLM",
        models=("openai-community/gpt2", "gpt2"),
    ),
    "question-answering": Task(
        module="cutaway.pipelines.question_answering",
        pipeline="QuestionAnsweringPipeline",
        auto="AutoModelForQuestionAnswering",
        models=("distilbert/distilbert-base-cased-distilled-squad", "distilbert-base-cased-distilled-squad"),
    ),
    "rerank": Task(
        module="cutaway.pipelines.rerank",
        pipeline="RerankPipeline",
        auto="AutoModelForSequenceClassification",
        models=("cross-encoder/ms-marco-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L-6-v2"),
    ),
    "sentence-similarity": Task(
        module="cutaway.pipelines.sentence_similarity",
        pipeline="SentenceSimilarityPipeline",
        auto="AutoModel",
        models=("sentence-transformers/all-MiniLM-L6-v2",),
    ),
    "summarization": Task(
        module="cutaway.pipelines.summarization",
        pipeline="SummarizationPipeline",
        auto="AutoModelForSeq2SeqLM",
        models=("sshleifer/distilbart-cnn-12-6",),
    ),
    "text-classification": Task(
        module="cutaway.pipelines.text_classification",
        pipeline="TextClassificationPipeline",
        auto="AutoModelForSequenceClassification",
        models=(
            "distilbert-base-uncased-finetuned-sst-2-english",
            "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        ),
        builtin="cutaway/sentiment",
    ),
    "text-generation": Task(
        module="cutaway.pipelines.text_generation",
        pipeline="TextGenerationPipeline",
        auto="AutoModelForCausalLM",
        models=("openai-community/gpt2", "gpt2"),
    ),
    "text2text-generation": Task(
        module="cutaway.pipelines.text2text_generation",
        pipeline="Text2TextGenerationPipeline",
        auto="AutoModelForSeq2SeqLM",
        models=("google-t5/t5-base", "t5-base"),
    ),
    "token-classification": Task(
        module="cutaway.pipelines.token_classification",
        pipeline="TokenClassificationPipeline",
        auto="AutoModelForTokenClassification",
        models=("dbmdz/bert-large-cased-finetuned-conll03-english",),
    ),
    "translation": Task(
        module="cutaway.pipelines.translation",
        pipeline="TranslationPipeline",
        auto="AutoModelForSeq2SeqLM",
        models=("google-t5/t5-base", "t5-base"),
    ),
    "zero-shot-classification": Task(
        module="cutaway.pipelines.zero_shot_classification",
        pipeline="ZeroShotClassificationPipeline",
        auto="AutoModelForSequenceClassification",
        models=("facebook/bart-large-mnli",),
    ),
}


@dataclass(frozen=True)
class OwnTask(Task):
    """A task that a program has registered: `kind` is the pipeline's class, `autos` what loads its model.

    `type` and `default` are what the program said of it. By upstream's names: "impl", "pt", "type", "default".
    """

    kind: Callable[..., Pipeline] | None = None
    autos: tuple[Any, ...] = ()
    revision: str | None = None
    type: str | None = None
    default: object = None

    def __getitem__(self, name: str) -> object:
        """What upstream calls `name`; KeyError for another name, or where the program did not say it."""
        said = {"impl": self.kind, "pt": self.autos, "type": self.type, "default": self.default}
        if said.get(name) is None:
            raise KeyError(name)
        return said[name]


class SupportedTasks(MutableMapping[str, Task]):
    """The tasks by their names. One of a program's own is put in and taken out; ours come back behind it."""

    def __init__(self, registry: PipelineRegistry) -> None:
        self.registry = registry

    def __getitem__(self, name: str) -> Task:
        return self.registry.own.get(name) or TASKS[name]

    def __setitem__(self, name: str, task: Task) -> None:
        if isinstance(task, OwnTask):
            self.registry.own[name] = task
        elif TASKS.get(name) is task:
            self.registry.own.pop(name, None)
        else:
            raise InputError(f"{name!r} needs a task of your own: call register_pipeline.")

    def __delitem__(self, name: str) -> None:
        del self.registry.own[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**TASKS, **self.registry.own})

    def __len__(self) -> int:
        return len({**TASKS, **self.registry.own})


class PipelineRegistry:
    """`PIPELINE_REGISTRY`: the tasks there are, and those of one's own."""

    def __init__(self) -> None:
        self.own: dict[str, OwnTask] = {}
        self.supported_tasks = SupportedTasks(self)

    def get_supported_tasks(self) -> list[str]:
        """The names of all tasks."""
        return sorted({*TASKS, *ALIASES, *self.own})

    def check_task(self, task: str) -> tuple[str, Any, Any]:
        """(the task's own name, its entry, None); InputError for an unknown one."""
        name, entry = task_of(task)
        return name, entry, None

    def register_pipeline(
        self,
        task: str,
        pipeline_class: Callable[..., Pipeline],
        pt_model: object = None,
        default: object = None,
        type: str | None = None,
        **others: object,
    ) -> None:
        """Let `pipeline(task)` make a pipeline of this class.

        Args:
            task: its name. One of ours is put out of the way.
            pipeline_class: a `Pipeline`.
            pt_model: the class, or classes, that load its model, such as AutoModelForSequenceClassification.
            default: {"pt": (name, revision)} or {"model": {"pt": ...}}, the model without model=.
            type: "text"; it changes nothing.
            others: models of other frameworks, which change nothing.
        """
        if task in self.supported_tasks:
            log.warning("%s is already registered; this pipeline takes its place.", task)
        found = default.get("model", default) if isinstance(default, dict) else default
        found = found.get("pt", found) if isinstance(found, dict) else found
        name, revision = found if isinstance(found, tuple) else (found, None)
        autos = tuple(pt_model) if isinstance(pt_model, list | tuple) else () if pt_model is None else (pt_model,)
        self.own[task] = OwnTask(
            module="", pipeline="", auto="", models=() if name is None else (str(name),),
            kind=pipeline_class, autos=autos, revision=revision, type=type, default=default,
        )  # fmt: skip


PIPELINE_REGISTRY = PipelineRegistry()
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
# The pairs that the default model of translation was trained on; another pair needs a model of its own.
T5_PAIRS = ("translation_en_to_de", "translation_en_to_fr", "translation_en_to_ro")


def task_of(name: str) -> tuple[str, Task]:
    """The canonical name and the entry of a task.

    Raises InputError for a task that is unknown, naming the nearest.
    """
    if name in PIPELINE_REGISTRY.own:
        return name, PIPELINE_REGISTRY.own[name]
    name = ALIASES.get(name, name)
    if name in TASKS:
        return name, TASKS[name]
    if re.fullmatch(r"translation_\w+_to_\w+", name):
        return name, TASKS["translation"]
    raise InputError(
        f"task={name!r} is not a task that cutaway knows.{nearest(name, PIPELINE_REGISTRY.get_supported_tasks())}"
    )


class NoTaskError(InputError):
    """A model whose class says no task. class_name: that class, or "" where config.json names none."""

    def __init__(self, class_name: str) -> None:
        known = ", ".join(repr(task) for task in TASKS)
        super().__init__(
            f"The model ({class_name or 'no class named'}) does not say its task. Pass task=, one of {known}."
        )
        self.class_name = class_name


def class_of(name: str, load: dict[str, Any]) -> str:
    """The class that a checkpoint's config.json names, or ""."""
    config = _auto("AutoConfig").from_pretrained(name, **load)
    return str((getattr(config, "architectures", None) or [""])[0])


def _task_of_model(model: ModelSource, load: dict[str, Any]) -> str:
    """The task of a model without one: by its class, or by the class that its config.json names."""
    name = class_of(str(model), load) if isinstance(model, str | Path) else type(model).__name__
    if (end := ending_of(name)) is not None:
        return end.task
    raise NoTaskError(name)


# fmt: off
@overload
def pipeline(
    task: Literal["feature-extraction"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> FeatureExtractionPipeline: ...
@overload
def pipeline(
    task: Literal["fill-mask"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> FillMaskPipeline: ...
@overload
def pipeline(
    task: Literal["multiple-choice"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> MultipleChoicePipeline: ...
@overload
def pipeline(
    task: Literal["perplexity"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> PerplexityPipeline: ...
@overload
def pipeline(
    task: Literal["question-answering"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> QuestionAnsweringPipeline: ...
@overload
def pipeline(
    task: Literal["rerank"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> RerankPipeline: ...
@overload
def pipeline(
    task: Literal["sentence-similarity"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> SentenceSimilarityPipeline: ...
@overload
def pipeline(
    task: Literal["summarization"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> SummarizationPipeline: ...
@overload
def pipeline(
    task: Literal["text-classification", "sentiment-analysis"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> TextClassificationPipeline: ...
@overload
def pipeline(
    task: Literal["text-generation"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> TextGenerationPipeline: ...
@overload
def pipeline(
    task: Literal["text2text-generation"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> Text2TextGenerationPipeline: ...
@overload
def pipeline(
    task: Literal["token-classification", "ner"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> TokenClassificationPipeline: ...
@overload
def pipeline(
    task: Literal["translation", "translation_en_to_de", "translation_en_to_fr", "translation_en_to_ro"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> TranslationPipeline: ...
@overload
def pipeline(
    task: Literal["zero-shot-classification"],
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> ZeroShotClassificationPipeline: ...
@overload
def pipeline(
    task: str | None = None,
    model: ModelSource | None = None, tokenizer: TokenizerSource | None = None, *,
    device: Device | None = None, batch_size: int | None = None, revision: str | None = None,
    token: str | None = None, dtype: DType | None = None, torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None, **settings: object,
) -> Pipeline: ...
# fmt: on


def pipeline(
    task: str | None = None,
    model: ModelSource | None = None,
    tokenizer: TokenizerSource | None = None,
    *,
    device: Device | None = None,
    batch_size: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    dtype: DType | None = None,
    torch_dtype: DType | None = None,
    model_kwargs: dict[str, Any] | None = None,
    config: Any = None,
    device_map: Any = None,
    pipeline_class: Any = None,
    **settings: object,
) -> Pipeline:
    """Make the pipeline of a task.

    Args:
        task: a name of `TASKS`, or another name of one ("sentiment-analysis"). May be left out when `model` is given:
            the class that its config.json names decides.
        model: a name on the hub, a folder, a .gguf file, a built-in ("cutaway/sentiment"), or a loaded model. Without
            one, the tutorials' default is loaded.
        tokenizer: a name, a folder, a loaded tokenizer, or (name, arguments of from_pretrained). Without one, the
            model's own.
        device: "cpu", "cuda", "cuda:1", a number (-1: the CPU) or a torch device.
        batch_size: at most so many texts go through the model at once; without it, batches are made by their number of
            tokens. It never changes a result.
        revision, token, dtype: as in `from_pretrained`; `torch_dtype` is the older name of `dtype`.
        model_kwargs: further arguments of the model's `from_pretrained`.
        config: a configuration, or the name of one, for the model.
        device_map: as in `from_pretrained`.
        pipeline_class: a class of your own instead of the task's.
        settings: defaults of the pipeline's call, for example `top_k=None`, `truncation=True`.

    Raises:
        InputError: an unknown task or setting. HubError: the model cannot be reached.
    """
    if settings.pop("trust_remote_code", False):
        raise InputError("trust_remote_code=True: cutaway never runs code from a checkpoint. Leave the argument out.")
    if settings.pop("framework", "pt") not in ("pt", None):
        raise InputError("framework= can only be 'pt': cutaway runs on PyTorch.")
    settings.pop("use_fast", None)  # every tokenizer here is a fast one
    settings.pop("num_workers", None)  # texts are encoded by the tokenizer's own threads
    for other in ("feature_extractor", "image_processor", "processor"):
        if settings.pop(other, None) is not None:
            raise InputError(f"{other}= is for pictures and sounds; cutaway reads text. Leave it out.")
    if task is None and model is None:
        raise InputError("pipeline() needs a task or a model, for example pipeline('sentiment-analysis').")
    gguf_file = (model_kwargs or {}).get("gguf_file")
    if isinstance(model, str | Path) and str(model).endswith(".gguf") and Path(model).is_file():
        model, gguf_file = str(Path(model).absolute().parent), Path(model).name
    load: dict[str, Any] = {"revision": revision, "token": token, "gguf_file": gguf_file}
    load = {key: value for key, value in load.items() if value is not None}
    if task is None:
        assert model is not None
        task = _task_of_model(model, load)
    name, entry = task_of(task)

    model_load = {**load, **(model_kwargs or {})}
    dtype = dtype if dtype is not None else torch_dtype
    if dtype is not None:
        model_load["dtype"] = dtype
    if device_map is not None:
        if device is not None:
            raise InputError(f"device={device!r} and device_map={device_map!r} both say where the model is; pass one.")
        model_load["device_map"] = device_map
    if config is not None:
        model_load["config"] = _auto("AutoConfig").from_pretrained(config) if isinstance(config, str | Path) else config

    if model is None:
        model, source = _default_model(name, entry, model_load)
    elif isinstance(model, str | Path):
        source = str(model)
        if name in ("feature-extraction", "sentence-similarity") and gguf_file is None:
            from cutaway.pipelines.sentence_modules import transformer_folder

            if inner := transformer_folder(source):
                load["subfolder"] = model_load["subfolder"] = inner
            # of an encoder-decoder, that part alone
            if "config" not in model_load and class_of(source, {**load, **hub_options(model_load)}).endswith(
                "EncoderModel"
            ):
                entry = replace(entry, auto="AutoModelForTextEncoding")
        model = _load(entry, source, model_load)
    else:
        source = str(getattr(model, "name_or_path", "") or getattr(model.config, "_name_or_path", "") or "")
    if tokenizer is None:
        if not source:
            raise InputError("pipeline(model=<a loaded model>) needs the tokenizer too: pass tokenizer=.")
        tokenizer = source
    how: dict[str, Any] = {}
    if isinstance(tokenizer, tuple) and len(tokenizer) == 2 and isinstance(tokenizer[1], dict):
        tokenizer, how = tokenizer
        how = {k: v for k, v in how.items() if k != "use_fast"}
    if isinstance(tokenizer, str | Path):
        tokenizer = _auto("AutoTokenizer").from_pretrained(str(tokenizer), **{**load, **how})

    if pipeline_class is not None:
        kind = pipeline_class
    elif isinstance(entry, OwnTask) and entry.kind is not None:
        kind = entry.kind
    else:
        kind = getattr(import_module(entry.module), entry.pipeline)
    made: Pipeline = kind(model=model, tokenizer=tokenizer, task=name, device=device, batch_size=batch_size, **settings)
    return made


def _load(entry: Task, source: str, how: dict[str, Any]) -> Any:
    """The model of a task: by the task's auto class, or by the first class of a registered one that can."""
    if not isinstance(entry, OwnTask):
        return _auto(entry.auto).from_pretrained(source, **how)
    if entry.revision is not None and source in entry.models:
        how = {"revision": entry.revision, **how}
    autos = entry.autos or (_auto("AutoModel"),)
    for auto in autos[:-1]:
        try:
            return auto.from_pretrained(source, **how)
        except ConfigError:
            continue
    return autos[-1].from_pretrained(source, **how)


def _auto(name: str) -> Any:
    return getattr(import_module("cutaway.auto"), name)


def _default_model(task: str, entry: Task, load: dict[str, Any]) -> tuple[Any, str]:
    """The task's default model and the name it was found under. A local folder of either name wins."""
    if entry is TASKS["translation"] and task not in T5_PAIRS:
        raise InputError(
            f"task={task!r} has no default model. Name the languages as in 'translation_en_to_fr' (t5-base knows "
            f"{', '.join(T5_PAIRS)}), or pass model=."
        )
    if not entry.models:
        raise InputError(f"task={task!r} has no default model: there is no well-known one. Pass model=.")
    names = sorted(entry.models, key=lambda name: not Path(name).is_dir())
    failures: list[HubError] = []
    for name in names:
        try:
            return _load(entry, name, load), name
        except HubError as error:
            failures.append(error)
    built_in = (
        f"A model that needs no network comes with cutaway: pipeline({task!r}, model={entry.builtin!r}). Or: "
        if entry.builtin
        else ""
    )
    raise HubError(
        f"The default model of {task!r}, {names[0]!r}, cannot be reached ({failures[0]}). "
        f"{built_in}Pass model= with a folder that holds a model of this task, or another name."
    ) from failures[0]


SUPPORTED_TASKS, TASK_ALIASES = TASKS, ALIASES  # upstream's names
check_task = PIPELINE_REGISTRY.check_task

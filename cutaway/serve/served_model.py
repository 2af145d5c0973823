"""A model that is served: its tokenizer, what it can do, and what computes for it."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from cutaway.errors import ConfigError
from cutaway.generate.search import reads_both_ways
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.factory import NoTaskError, pipeline
from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline
from cutaway.pipelines.sentence_modules import sentence_modules
from cutaway.serve.encoder_batches import EncoderBatches
from cutaway.serve.engine import Engine, Jobs
from cutaway.serve.generator import Generator
from cutaway.serve.metrics import Metrics
from cutaway.serve.settings import Limits

EMBEDDING = ("feature-extraction", "sentence-similarity")
WRITTEN = ("text2text-generation", "summarization", "translation")
# what a model is first asked, so that its weights are laid out; a task that is not here is told tokens alone
WARM: dict[str, object] = {
    "feature-extraction": "warm",
    "multiple-choice": {"prompt": "warm", "choices": ["one", "two"]},
    "question-answering": {"question": "warm", "context": "one two"},
    "text-classification": "warm",
    "token-classification": "warm",
}


def load_pipeline(source: object, options: dict[str, Any]) -> Pipeline:
    """The pipeline of a name, a folder or a .gguf file; one that is loaded stays as it is.

    Raises:
        ConfigError: a checkpoint of a class that says no task (BertForPreTraining).
    """
    if isinstance(source, Pipeline):
        return source
    name = str(source)
    task = "text-generation" if name.lower().endswith(".gguf") else None
    try:
        return pipeline(task, name, **options)
    except NoTaskError as error:
        raise ConfigError(
            f"it is stored as {error.class_name or 'no class that is named'}, which says no task. Load it with the "
            "head that it has or shall have, AutoModelForMaskedLM.from_pretrained for one, call save_pretrained, and "
            "give that folder."
        ) from None


class ServedModel:
    """One loaded model under its name.

    Attributes:
        task: what it was made for. tasks: {task: pipeline} of all it can do.
        texts: the one thread that uses `tokenizer`. reader: the tokenizer that streams use. explainer: the engine's.
        generator: writes texts; None where it is no decoder.
    """

    def __init__(self, name: str, pipe: Pipeline, engine: Engine, jobs: Jobs, limits: Limits, metrics: Metrics) -> None:
        self.name, self.task, self.model, self.tokenizer = name, pipe.task, pipe.model, pipe.tokenizer
        self.jobs, self.limits = jobs, limits
        self.created = int(time.time())
        # a tokenizer that is told to cut or to pad cannot be used by another thread meanwhile, so each has its own
        self.reader, self.explainer = copy.deepcopy(self.tokenizer), copy.deepcopy(self.tokenizer)
        if self.task in WRITTEN:  # whose pipelines run whole on the engine's thread
            self.tokenizer = copy.deepcopy(self.tokenizer)
        self.texts = ThreadPoolExecutor(1, thread_name_prefix="cutaway-texts")
        self.batches = EncoderBatches(engine, self.texts, limits.batch_tokens)
        self.batches.watch = lambda texts, tokens: metrics.encoded(name, texts, tokens)
        engine.add(self.batches)
        self.generator: Generator | None = None
        if self.task == "text-generation":
            if reads_both_ways(self.model):
                raise ConfigError(
                    f"{name} reads its whole text both ways for each token that it writes, and the server's batches go "
                    "on from what was read: write with model.generate, or `cutaway generate`."
                )
            self.generator = Generator(name, self.model, engine, limits, metrics)
            engine.add(self.generator)
        self.tasks = {pipe.task: pipe, **self._others(pipe)}

    def _others(self, pipe: Pipeline) -> dict[str, Pipeline]:
        """What else the same weights can do."""
        model, tokenizer, config = self.model, pipe.tokenizer, self.model.config
        found: dict[str, Pipeline] = {}
        if pipe.task == "feature-extraction":
            found["sentence-similarity"] = pipeline("sentence-similarity", model, tokenizer)
        elif pipe.task == "text-generation":
            found["feature-extraction"] = FeatureExtractionPipeline(model.base, tokenizer, task="feature-extraction")
        elif pipe.task in WRITTEN:
            found |= {task: pipeline(task, model, tokenizer) for task in WRITTEN if task != pipe.task}
        elif pipe.task == "text-classification":
            if any(str(label).lower().startswith("entail") for label in config.id2label.values()):
                found["zero-shot-classification"] = pipeline("zero-shot-classification", model, tokenizer)
            if config.num_labels == 1:
                found["rerank"] = pipeline("rerank", model, tokenizer)
        return found

    @property
    def longest(self) -> int | None:
        """The most tokens that it takes, or None for no bound."""
        bounds = (self.tokenizer.model_max_length, self.model.architecture.stack.longest)
        found = min(bound for bound in bounds if bound is not None)
        return int(found) if found < 10**9 else None

    @property
    def pools(self) -> bool:
        """Whether the checkpoint says how its tokens' vectors become one (sentence-transformers' modules.json)."""
        name = str(getattr(self.model, "name_or_path", "") or "")
        return bool(name) and sentence_modules(name) is not None

    def warm(self) -> None:
        """Lay the weights out by using them once, as requests will; called by the engine."""
        if self.task in WARM:
            self.tasks[self.task](WARM[self.task])
            return
        ids = torch.tensor([self.tokenizer("warm")["input_ids"][:8] or [0]], device=self.model.device)
        with torch.no_grad():
            if self.task in WRITTEN:
                self.model.generate(ids, max_new_tokens=3, do_sample=False)
            elif self.generator is not None:
                self.model.generate(ids.repeat(2, 1), max_new_tokens=4, do_sample=False)
            else:
                self.model(input_ids=ids)

    def close(self) -> None:
        self.texts.shutdown(wait=False, cancel_futures=True)

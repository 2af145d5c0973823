"""`pipeline(task, model=...)`: one task in one line, with the shapes of the Transformers tutorials.

Nothing here imports torch or the engine until a pipeline is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.pipelines.factory import PIPELINE_REGISTRY, TASKS, pipeline

if TYPE_CHECKING:
    from cutaway.pipelines.base import Pipeline
    from cutaway.pipelines.embedder import Embedder
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
    from cutaway.pipelines.token_classification import TokenClassificationPipeline as NerPipeline
    from cutaway.pipelines.translation import TranslationPipeline
    from cutaway.pipelines.zero_shot_classification import ZeroShotClassificationPipeline

__all__ = [
    "PIPELINE_REGISTRY",
    "TASKS",
    "Embedder",
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "MultipleChoicePipeline",
    "NerPipeline",
    "PerplexityPipeline",
    "Pipeline",
    "QuestionAnsweringPipeline",
    "RerankPipeline",
    "SentenceSimilarityPipeline",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TextClassificationPipeline",
    "TextGenerationPipeline",
    "TokenClassificationPipeline",
    "TranslationPipeline",
    "ZeroShotClassificationPipeline",
    "pipeline",
]

_LAZY = {
    "Embedder": "cutaway.pipelines.embedder",
    "Pipeline": "cutaway.pipelines.base",
    "TokenClassificationArgumentHandler": "cutaway.pipelines.arguments",
    **{task.pipeline: task.module for task in TASKS.values()},
}


def __getattr__(name: str) -> Any:
    if name == "pt_utils":  # a path of upstream's, which is made when it is asked for
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    if name == "NerPipeline":
        name = "TokenClassificationPipeline"
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.embedder import Embedder
from cutaway.pipelines.factory import PIPELINE_REGISTRY, TASKS, pipeline
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

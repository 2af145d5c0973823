"""The gist of a text."""

from __future__ import annotations

from typing import ClassVar

from cutaway.pipelines.text2text_generation import Text2TextGenerationPipeline


class SummarizationPipeline(Text2TextGenerationPipeline):
    """`pipe(text, max_length=60)` gives [{"summary_text": ...}], a list of texts one dict for each text."""

    name: ClassVar[str] = "summary"

"""A text in another language."""

from __future__ import annotations

from typing import ClassVar

from cutaway.pipelines.text2text_generation import Text2TextGenerationPipeline


class TranslationPipeline(Text2TextGenerationPipeline):
    """`pipeline("translation_en_to_fr")(text)` gives [{"translation_text": ...}], a list of texts a dict for each.

    The languages are part of the task's name. A model for several pairs (T5) says in the `task_specific_params` of its
    config.json what is put before the text ("translate English to French: "); `prefix=` does the same by hand.
    """

    name: ClassVar[str] = "translation"

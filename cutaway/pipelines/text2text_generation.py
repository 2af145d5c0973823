"""A text from a text, by an encoder-decoder: whatever it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cutaway.errors import InputError
from cutaway.pipelines.base import text_only
from cutaway.pipelines.generating import GeneratingPipeline, Written
from cutaway.pipelines.plan import Row

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike


class Text2TextGenerationPipeline(GeneratingPipeline):
    """`pipe("question: ... context: ...")` gives [{"generated_text": ...}], a list of texts one dict for each text.

    With `num_return_sequences` above 1 each text of a list gives a list of dicts. `return_tensors=True` gives the ids
    ("generated_token_ids") instead. What config.json says about the task in `task_specific_params` (lengths, a prefix)
    is followed.
    """

    name: ClassVar[str] = "generated"
    settings: ClassVar[dict[str, Any]] = {
        "return_text": None,
        "return_tensors": None,
        "clean_up_tokenization_spaces": None,
        "skip_special_tokens": None,
        "prefix": None,
        "stop_sequence": None,
        "long": None,
    }

    def __init__(self, model: LanguageModel, tokenizer: TokenizerLike, **options: object) -> None:
        super().__init__(model, tokenizer, **options)
        if not self.model.is_encoder_decoder:
            raise InputError(
                f"{self.task} needs an encoder-decoder, and {type(self.model).__name__} is none. For this model use "
                'the task "text-generation".'
            )

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        if settings["return_tensors"] and settings["return_text"]:
            raise InputError("return_tensors and return_text exclude each other: pass one of them.")
        if settings["stop_sequence"] is not None:
            settings = {**settings, "stop_strings": settings["stop_sequence"]}
        return {**settings, **self.generation(settings)}

    def check(self, item: object) -> str:
        return text_only(self.task, item)

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        prefix = self.own_prefix(settings)
        return self.fitted([prefix + item for item in items], settings)

    def whole(self, item: str, answer: str, settings: Mapping[str, Any]) -> str:
        return answer

    def shaped(self, result: Written, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        if settings["return_tensors"]:
            return result.entries(f"{self.name}_token_ids", [list(tokens) for tokens in result.tokens])
        return result.entries(f"{self.name}_text", result.texts)

    def several(self, answers: list[Any], settings: Mapping[str, Any]) -> object:
        return [answer[0] for answer in answers] if all(len(answer) == 1 for answer in answers) else answers

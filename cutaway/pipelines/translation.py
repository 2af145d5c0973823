"""A text in another language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from cutaway.errors import InputError
from cutaway.pipelines.plan import Row
from cutaway.pipelines.text2text_generation import Text2TextGenerationPipeline
from cutaway.tokenization.translation import CodedTokenizer

# a language and a place, as mBART writes them, or a script, as NLLB
CODE = re.compile(r"[a-z]{2,3}_([A-Z]{2}|[A-Z][a-z]{3})")


class TranslationPipeline(Text2TextGenerationPipeline):
    """`pipeline("translation_en_to_fr")(text)` gives [{"translation_text": ...}], a list of texts a dict for each.

    Which languages: a model for several pairs (T5) says in the `task_specific_params` of its config.json what is put
    before the text ("translate English to French: "), by the task's name; `prefix=` does the same by hand. A model with
    language codes (mBART, M2M-100, NLLB, Marian for several targets) takes `src_lang=` and `tgt_lang=` ("en_XX",
    "fr_XX"; "en" where one code begins so), or the two of the task's name.
    """

    name: ClassVar[str] = "translation"
    settings: ClassVar[dict[str, Any]] = {
        **Text2TextGenerationPipeline.settings,
        "src_lang": None,
        "tgt_lang": None,
    }

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        source, target = settings["src_lang"], settings["tgt_lang"]
        pair = re.fullmatch(r"translation_(\w+)_to_(\w+)", self.task)
        if pair and self._has_codes():
            source, target = source or pair[1], target or pair[2]
        if source is not None:
            settings = {**settings, "src_lang": self._code(source, "src_lang")}
        if target is None:
            return super().ready(settings)
        code = self._code(target, "tgt_lang")
        if self._has_codes():
            if settings.get(where := self._place()) is None:
                settings = {**settings, where: self.tokenizer.convert_tokens_to_ids(self._token(code))}
        else:  # Marian reads the target's code in front of the text
            settings = {**settings, "prefix": f"{code} {self.own_prefix(settings)}"}
        return super().ready(settings)

    def _has_codes(self) -> bool:
        """Whether the tokenizer writes the codes of languages itself."""
        return getattr(self.tokenizer, "src_lang", None) is not None

    def _place(self) -> str:
        """Where the target's code goes: the first mBART starts with it, the later ones have it as their first token."""
        start = self.model.config.decoder_start_token_id
        begins = start is not None and CODE.fullmatch(str(self.tokenizer.convert_ids_to_tokens(start)))
        return "decoder_start_token_id" if begins else "forced_bos_token_id"

    def _token(self, code: str) -> str:
        """The token of a code: M2M-100's is `__en__` of "en", the others are the codes."""
        return self.tokenizer.code_token(code) if isinstance(self.tokenizer, CodedTokenizer) else code

    def _code(self, language: str, setting: str) -> str:
        """The token of a language. Raises InputError where the model has none."""
        vocabulary = self.tokenizer.get_vocab()
        if self._token(language) in vocabulary and self._token(language) != language:
            return language
        if self._has_codes():
            codes = [token for token in vocabulary if CODE.fullmatch(token)]
            found = [str(code) for code in codes if code == language or code.partition("_")[0] == language]
        else:
            found = [token for token in (language, f">>{language}<<") if setting == "tgt_lang" and token in vocabulary]
        if len(found) != 1:
            raise InputError(
                f"{setting}={language!r} is no language code of this model. mBART's look like 'en_XX', NLLB's like "
                "'eng_Latn', M2M-100's like 'en', Marian's like 'fra' (only models for several target languages have "
                "them); T5 takes the task 'translation_en_to_fr'."
            )
        code: str = found[0]
        return code

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        if settings["src_lang"] is None:
            return super().encode(items, settings)
        tokenizer = cast("CodedTokenizer", self.tokenizer)  # the one whose texts name their language
        before = tokenizer.src_lang
        tokenizer.src_lang = settings["src_lang"]
        try:
            return super().encode(items, settings)
        finally:
            tokenizer.src_lang = before

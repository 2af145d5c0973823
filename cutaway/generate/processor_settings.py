"""ProcessorSettings: the settings that change scores by the text so far, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.options import Settings
from cutaway.generate.watermark import Watermark, read_watermark

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike

FORMS = ("json_schema", "regex", "grammar")


@dataclass(frozen=True)
class Form:
    """The form that an answer must have: `kind` is one of FORMS, `text` its definition."""

    kind: str
    text: str


@dataclass(frozen=True)
class ProcessorSettings:
    """What `cutaway.generate.logits_processors.LogitsProcessors` does; the neutral values switch a rule off."""

    phrases: tuple[tuple[tuple[int, ...], float], ...] = ()  # sequence_bias
    bad_words: tuple[tuple[int, ...], ...] = ()
    repetition_penalty: float = 1.0
    source_penalty: float = 1.0  # encoder_repetition_penalty, as what the score is divided by
    no_repeat_ngram: int = 0
    source_no_repeat_ngram: int = 0
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    decay: tuple[int, float] | None = None  # (generated tokens before it begins, factor)
    guidance: float = 1.0
    negative_ids: object = None
    negative_mask: object = None
    allowed: Callable[[int, Tensor], Any] | None = None
    processors: tuple[Callable[..., Tensor], ...] = ()
    criteria: tuple[Callable[..., Any], ...] = ()
    finite: bool = False
    renormalize: bool = False
    form: Form | None = None
    watermark: Watermark | None = None

    @property
    def reads_text(self) -> bool:
        """Whether a rule reads the text before the token, padding left out."""
        runs = self.phrases or self.bad_words or self.no_repeat_ngram or self.source_no_repeat_ngram
        return bool(runs) or self.repetition_penalty != 1.0

    @property
    def has_callables(self) -> bool:
        """Whether functions of the user see every sequence of the call in every step."""
        return bool(self.processors or self.criteria or self.allowed)


def read_processor_settings(
    s: Settings, eos: tuple[int, ...], vocab_size: int | None, tokenizer: TokenizerLike | None
) -> ProcessorSettings:
    """Reads and checks the rules of one call; GenerationError where one cannot be kept."""
    penalty = s.above_zero("repetition_penalty", "pass a number above 0; 1 changes nothing")
    source = s.above_zero(
        "encoder_repetition_penalty", "pass a number above 0; 1 changes nothing, more favours the source"
    )
    bad = tuple(words for words in read_phrases(s, "bad_words_ids", vocab_size) if words not in [(i,) for i in eos])
    return ProcessorSettings(
        phrases=read_bias(s, vocab_size),
        bad_words=bad,
        repetition_penalty=penalty,
        source_penalty=1 / source,
        no_repeat_ngram=s.integer("no_repeat_ngram_size", 0) or 0,
        source_no_repeat_ngram=s.integer("encoder_no_repeat_ngram_size", 0) or 0,
        suppress=s.ids("suppress_tokens", vocab_size),
        begin_suppress=s.ids("begin_suppress_tokens", vocab_size),
        decay=read_decay(s, eos),
        guidance=s.number("guidance_scale", -math.inf, math.inf, "pass a number; 1 changes nothing", default=1.0),
        negative_ids=read_negative(s),
        negative_mask=s["negative_prompt_attention_mask"],
        allowed=None if s["prefix_allowed_tokens_fn"] is None else read_callables(s, "prefix_allowed_tokens_fn")[0],
        processors=read_callables(s, "logits_processor"),
        criteria=read_callables(s, "stopping_criteria"),
        finite=s.flag("remove_invalid_values"),
        renormalize=s.flag("renormalize_logits"),
        form=read_form(s, eos, tokenizer),
        watermark=read_watermark(s["watermarking_config"]),
    )


def read_phrases(s: Settings, name: str, vocab_size: int | None) -> tuple[tuple[int, ...], ...]:
    """A list of lists of ids."""
    value = s[name]
    if value is None:
        return ()
    try:
        phrases = tuple(tuple(int(i) for i in phrase) for phrase in value)
    except (TypeError, ValueError):
        phrases = ()
    if not phrases:
        raise GenerationError(f"{name}={value!r}: pass a list of lists of token ids, such as [[5, 8], [13]].")
    for phrase in phrases:
        check_phrase(name, phrase, vocab_size)
    return phrases


def check_phrase(name: str, phrase: tuple[int, ...], vocab_size: int | None) -> None:
    if not phrase or not all(0 <= i < (vocab_size or math.inf) for i in phrase):
        raise GenerationError(
            f"{name} holds {list(phrase)}: each phrase needs at least one id, from 0 to {(vocab_size or 0) - 1}."
        )


def read_bias(s: Settings, vocab_size: int | None) -> tuple[tuple[tuple[int, ...], float], ...]:
    """sequence_bias: {(5, 8): -2.0}, or a list of pairs [[[5, 8], -2.0]], which is what a file holds."""
    value = s["sequence_bias"]
    if value is None:
        return ()
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    try:
        biases = tuple((tuple(int(i) for i in phrase), float(bias)) for phrase, bias in pairs)
    except (TypeError, ValueError):
        biases = ()
    if not biases or any(math.isnan(bias) for _, bias in biases):
        raise GenerationError(
            f"sequence_bias={value!r}: pass a dict from tuples of ids to numbers, such as {{(5, 8): -2.0}}."
        )
    for phrase, _ in biases:
        check_phrase("sequence_bias", phrase, vocab_size)
    return biases


def read_decay(s: Settings, eos: tuple[int, ...]) -> tuple[int, float] | None:
    value = s["exponential_decay_length_penalty"]
    if value is None:
        return None
    try:
        start, factor = int(value[0]), float(value[1])
    except (TypeError, ValueError, IndexError) as error:
        raise GenerationError(
            f"exponential_decay_length_penalty={value!r}: pass (tokens before it begins, factor), such as (30, 1.05)."
        ) from error
    if not eos:
        raise GenerationError(
            "exponential_decay_length_penalty makes the end token likelier, and there is none: pass eos_token_id."
        )
    return start, factor


def read_callables(s: Settings, name: str) -> tuple[Callable[..., Any], ...]:
    """One function or a list of them (a LogitsProcessorList is one)."""
    value = s[name]
    several = tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)
    for function in several:
        if not callable(function):
            raise GenerationError(f"{name} holds {function!r:.80}, which cannot be called. Pass functions.")
    return several


def read_negative(s: Settings) -> object:
    value, scale = s["negative_prompt_ids"], s["guidance_scale"]
    if value is not None and (scale is None or scale == 1):
        raise GenerationError(
            "negative_prompt_ids only acts through guidance_scale: pass guidance_scale above 1, or leave it out."
        )
    if s["negative_prompt_attention_mask"] is not None and value is None:
        raise GenerationError("negative_prompt_attention_mask belongs to negative_prompt_ids: pass both or neither.")
    return value


def read_form(s: Settings, eos: tuple[int, ...], tokenizer: TokenizerLike | None) -> Form | None:
    """The one form that is asked for, and what contradicts it."""
    asked = [name for name in FORMS if s[name] is not None]
    if not asked:
        return None
    name = asked[0]
    if len(asked) > 1:
        raise GenerationError(f"{' and '.join(asked)} exclude each other: an answer has one form. Pass one of them.")
    if tokenizer is None:
        raise GenerationError(f"{name} needs the tokenizer to know what each token writes: pass tokenizer= as well.")
    if not eos:
        raise GenerationError(f"{name} needs an end token, and the model has none: pass eos_token_id.")
    for other, off in (("min_length", 0), ("min_new_tokens", 0), ("forced_bos_token_id", None), ("stop_strings", None),
                       ("forced_eos_token_id", None)):  # fmt: skip
        if s.call.get(other) not in (None, off):
            raise GenerationError(
                f"{other}={s.call[other]!r} contradicts {name}, which says where the answer ends. Drop one."
            )
    return Form(name, schema_text(s[name]) if name == "json_schema" else text_of(name, s[name]))


def text_of(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise GenerationError(f"{name}={value!r:.80}: pass a text.")
    return value


def schema_text(value: object) -> str:
    """A JSON schema as text: from a dict, a text, a file, or a class that says its own (pydantic's)."""
    if isinstance(value, Path):
        value = value.read_text(encoding="utf-8")
    elif hasattr(value, "model_json_schema"):
        value = value.model_json_schema()
    try:
        schema = json.loads(value) if isinstance(value, str) else value
        if not isinstance(schema, Mapping | bool):
            raise ValueError("it is neither an object nor true or false")
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise GenerationError(f"json_schema is not a JSON schema ({error}): {value!r:.80}. Pass a dict.") from error

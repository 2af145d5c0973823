"""BeamSettings: the settings of beam search, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import GenerationError
from cutaway.generate.options import Settings
from cutaway.generate.processor_settings import check_phrase
from cutaway.generate.required_words import RequiredWords

BEAM_ONLY: dict[str, Any] = {
    "length_penalty": 1.0,
    "early_stopping": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "force_words_ids": None,
}


@dataclass(frozen=True)
class BeamSettings:
    """How many beams, in how many groups, and when they are done."""

    number: int
    groups: int
    diversity: float
    length_penalty: float
    early_stopping: bool | Literal["never"]
    returned: int
    required_words: RequiredWords | None

    @property
    def size(self) -> int:
        """Beams in each group."""
        return self.number // self.groups


def read_beam_settings(s: Settings, new_tokens: int, vocab_size: int | None) -> BeamSettings | None:
    """None without beam search. `new_tokens` is how many an answer can have."""
    number = s.integer("num_beams", 1) or 1
    if number == 1:
        for name, off in BEAM_ONLY.items():
            if s.call.get(name, off) != off:
                raise GenerationError(
                    f"{name}={s.call[name]!r} belongs to beam search: pass num_beams above 1, or leave {name} out."
                )
        return None
    groups, diversity = (
        s.integer("num_beam_groups", 1) or 1,
        s.number("diversity_penalty", 0.0, math.inf, "pass 0 or more"),
    )
    returned = s.integer("num_return_sequences", 1) or 1
    if returned > number:
        raise GenerationError(
            f"num_return_sequences={returned} is more than num_beams={number} can give: raise num_beams, or lower it."
        )
    if number % groups:
        raise GenerationError(f"num_beams={number} cannot be shared out to num_beam_groups={groups} equally.")
    if (groups > 1) != (diversity > 0):
        raise GenerationError(
            f"num_beam_groups={groups} and diversity_penalty={diversity:g} go together: groups above 1 with a penalty "
            "above 0, or neither."
        )
    required_words = read_required_words(s, new_tokens, vocab_size)
    if groups > 1 and s.flag("do_sample"):
        raise GenerationError("num_beam_groups and do_sample=True exclude each other: pass one of them.")
    if required_words is not None and (groups > 1 or s.flag("do_sample")):
        raise GenerationError("force_words_ids goes with plain beam search: drop num_beam_groups and do_sample.")
    return BeamSettings(
        number=number,
        groups=groups,
        diversity=diversity,
        length_penalty=s.number(
            "length_penalty", -50.0, 50.0, "pass a number from -50 to 50; above 0 favours long answers"
        ),
        early_stopping=read_early_stopping(s),
        returned=returned,
        required_words=required_words,
    )


def read_early_stopping(s: Settings) -> bool | Literal["never"]:
    value = s["early_stopping"]
    if value == "never":
        return "never"
    if value not in (True, False, None):
        raise GenerationError(f"early_stopping={value!r}: pass True, False or 'never'.")
    return bool(value)


def read_required_words(s: Settings, new_tokens: int, vocab_size: int | None) -> RequiredWords | None:
    """force_words_ids: a list of words [[5, 8], [13]], where a word may also be a list of forms [[5, 8], [7]]."""
    value = s["force_words_ids"]
    if value is None:
        return None
    try:
        words = tuple(
            tuple(tuple(int(i) for i in form) for form in (word if isinstance(word[0], list | tuple) else [word]))
            for word in value
        )
    except (TypeError, ValueError, IndexError) as error:
        raise GenerationError(
            f"force_words_ids={value!r}: pass a list of words, each a list of ids, or a list of such lists of which "
            "one must appear."
        ) from error
    for word in words:
        for form in word:
            check_phrase("force_words_ids", form, vocab_size)
    if not words:
        raise GenerationError("force_words_ids=[]: pass at least one word, or leave it out.")
    required_words = RequiredWords(words)
    if required_words.total > new_tokens:
        raise GenerationError(
            f"force_words_ids asks for {required_words.total} tokens, and the answer has room for {new_tokens}: raise "
            "max_new_tokens."
        )
    return required_words

"""What an explanation is asked for, and what a model answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.errors import InputError
from cutaway.hub.class_endings import ending_of
from cutaway.inspect.explanation import Kind

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class Asked:
    """What `explain` is asked for beside the text and the model; each field as there.

    `vector`: what made the text's vector, of a model that has no other answer, where not all evidence is gathered.
    """

    layer: int | None = None
    head: int | None = None
    attention: str | None = None
    token: str | int | None = None
    max_new_tokens: int = 10
    truncation: bool = False
    evidence: bool = False
    context: str | None = None
    choices: Sequence[str] = ()
    vector: bool = False


# what the answer is of a model for a task; of any other, its states
KINDS: dict[str, Kind] = {
    "text-classification": "labels",
    "text-generation": "next-token",
    "text2text-generation": "target",
    "fill-mask": "mask",
    "token-classification": "token-labels",
    "question-answering": "span",
    "multiple-choice": "choices",
}


WRITES = ("next-token", "target")  # what is written is the answer


def check_explained(model: LanguageModel) -> None:
    """InputError for a model of which a pass over a text does not show what its answer is made of.

    One that reads a text twice and answers from its decoder; one that writes and reads both ways: there the pass says
    nothing of the next token.
    """
    from cutaway.generate.search import reads_both_ways  # it needs torch; pictures of a stored run do without

    if kind_of(model) not in WRITES and model.architecture.decoder is not None:
        raise InputError(
            f"{type(model).__name__} reads a text twice, by its encoder and by its decoder, and answers from the "
            "decoder's states; explain knows such a model only as one that writes (ForConditionalGeneration). Take an "
            "encoder with the same head; model.record shows this one's states and patterns."
        )
    if reads_both_ways(model):
        raise InputError(
            f"explain shows what one pass over a text says of each next token, and {type(model).__name__} reads a text "
            "both ways: there each word sees itself and those after it. generate(output_scores=True, "
            "return_dict_in_generate=True) gives what it writes by; model.record shows states and patterns; with a "
            "head for labels, the family is explained."
        )


def check_asked(kind: Kind, asked: Asked) -> None:
    """That a question has its context and a choice its choices, and nothing else has them."""
    if kind == "span" and not (asked.context or "").strip():
        raise InputError("This model answers questions from a text: pass context= (--context) with that text.")
    if kind == "choices":
        _check_choices(asked.choices)
    if kind != "span" and asked.context is not None:
        raise InputError("context= is for a model that answers questions; this one is not. Leave it out.")
    if kind != "choices" and asked.choices:
        raise InputError("choices= are for a model that chooses between texts; this one does not. Leave them out.")


def _check_choices(choices: Sequence[str]) -> None:
    """That there are two or more choices, each with something in it, none twice."""
    if len(choices) < 2:
        raise InputError("This model chooses how a text goes on: pass two or more choices= (--choice, once for each).")
    for number, choice in enumerate(choices, 1):
        if not choice.strip():
            raise InputError(f"choice {number} of {len(choices)} is empty: {choice!r}. Give each at least one word.")
        if choice in choices[: number - 1]:
            before = list(choices).index(choice) + 1
            raise InputError(f"choices {before} and {number} are the same: {choice!r}. Give each once.")


def kind_of(model: LanguageModel) -> Kind:
    """What the model answers with, from the end of its class name; "states" for a model without a known head."""
    for parent in type(model).__mro__:
        end = ending_of(parent.__name__)
        if end is not None and end.task in KINDS:
            return KINDS[end.task]
    return "states"

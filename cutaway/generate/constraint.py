"""Constraint: an answer that follows a JSON schema, a regular expression or a grammar, by the library llguidance.

In each step the tokens that cannot go on to a valid answer are ruled out, so whatever ends by itself is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import GenerationError, MissingExtraError
from cutaway.generate.processor_settings import Form
from cutaway.generate.sampling import MINUS_INF

if TYPE_CHECKING:
    from types import ModuleType

    from cutaway.tokenization.protocols import TokenizerLike

# One separator each, so that a model cannot go on writing white space for ever; a schema's "x-guidance" changes it.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Reading a vocabulary takes a second.
_vocabularies: WeakKeyDictionary[Any, dict[tuple[int, ...], Any]] = WeakKeyDictionary()


class Constraint:
    """How far each running sequence is in the form that is asked for.

    Args:
        form: what an answer must be.
        tokenizer: what the tokens mean.
        eos: ids that end an answer.
        rows: sequences at the start.

    Raises:
        GenerationError: the form is not valid, or the tokenizer is of a kind that llguidance cannot read.
    """

    def __init__(self, form: Form, tokenizer: TokenizerLike, eos: tuple[int, ...], rows: int) -> None:
        guidance = _library()
        self.form = form
        definition = _definition(guidance, form)
        matcher = guidance.LLMatcher(_vocabulary(guidance, tokenizer, eos), definition)
        if matcher.is_error():
            first = matcher.get_error().strip().splitlines()[0]
            raise GenerationError(f"{form.kind} cannot be followed: {first}. It is {form.text!r:.200}.")
        self.matchers = [matcher, *(matcher.deep_copy() for _ in range(rows - 1))]

    def mask(self, scores: Tensor) -> Tensor:
        """The scores [A, V] with what cannot follow at -inf."""
        masks = np.stack([np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8) for matcher in self.matchers])
        bits = torch.from_numpy(np.unpackbits(masks, axis=1, bitorder="little").view(np.bool_))  # [A, tokens]
        vocabulary = scores.shape[-1]
        if bits.shape[1] < vocabulary:
            bits = torch.nn.functional.pad(bits, (0, vocabulary - bits.shape[1]))
        return scores.masked_fill(~bits[:, :vocabulary].to(scores.device), MINUS_INF)

    def add(self, tokens: Tensor) -> None:
        """Takes the next token [A] of each sequence."""
        for matcher, token in zip(self.matchers, tokens.tolist(), strict=True):
            matcher.consume_token(token)
            if matcher.is_error():
                raise GenerationError(f"{self.form.kind}: {matcher.get_error()} Simplify it.")

    def select(self, index: Tensor) -> None:
        """Leaves the sequences at the positions `index` of the running ones, in that order; it may repeat."""
        self.matchers = [self.matchers[i].deep_copy() for i in index.tolist()]

    def is_complete(self) -> list[bool]:
        """Of each running sequence, whether it is valid as it stands."""
        return [matcher.is_accepting() for matcher in self.matchers]

    def is_complete_with(self, row: int, token: int) -> bool:
        """Whether the running sequence `row` is valid with one more token."""
        matcher = self.matchers[row].deep_copy()
        return bool(matcher.consume_token(token) and matcher.is_accepting())


def _library() -> ModuleType:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError(
            "json_schema, regex and grammar need the package llguidance: pip install 'cutaway[constrain]'."
        ) from error
    return llguidance


def _definition(guidance: ModuleType, form: Form) -> str:
    if form.kind == "regex":
        definition = guidance.LLMatcher.grammar_from_regex(form.text)
    elif form.kind == "json_schema":
        definition = guidance.LLMatcher.grammar_from_json_schema(form.text, defaults=JSON_STYLE)
    else:
        try:
            definition = guidance.grammar_from("grammar", form.text)  # Lark, or the GBNF of llama.cpp
        except ValueError as error:
            raise GenerationError(f"grammar cannot be read: {error}") from error
    return str(definition)


def _vocabulary(guidance: ModuleType, tokenizer: TokenizerLike, eos: Sequence[int]) -> object:
    """The tokenizer as llguidance reads it; kept for as long as the tokenizer lives."""
    known = _vocabularies.setdefault(tokenizer, {})
    key = tuple(eos)
    if key not in known:
        backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        size = 1 + max([*backend.get_vocab().values(), *eos])
        try:
            known[key] = guidance.LLTokenizer(backend.to_str(), n_vocab=size, eos_token=list(eos))
        except (ValueError, RuntimeError) as error:
            raise GenerationError(
                f"{type(tokenizer).__name__} is of a kind that llguidance cannot read: {error}"
            ) from error
    return known[key]

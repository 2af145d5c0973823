"""What a model returns: typed, and readable by key, by attribute and by index.

A field that was not asked for is absent: reading it raises `MissingOutputError`, which says how to ask. Only `loss` and
`past_key_values` read as None when absent, because a forward pass without labels or cache is not a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cutaway.errors import MissingOutputError

if TYPE_CHECKING:
    from torch import Tensor

    from cutaway.nn.kv_cache import Cache
    from cutaway.nn.packed_batch import PackedBatch

_HOW = {
    "attentions": "pass output_attentions=True (or a list of layers)",
    "hidden_states": "pass output_hidden_states=True (or a list of layers)",
    "cross_attentions": "pass output_attentions=True (or a list of layers)",
    "decoder_attentions": "pass output_attentions=True (or a list of layers)",
    "encoder_attentions": "pass output_attentions=True (or a list of layers)",
    "decoder_hidden_states": "pass output_hidden_states=True (or a list of layers)",
    "encoder_hidden_states": "pass output_hidden_states=True (or a list of layers)",
    "scores": "pass output_scores=True",
    "logprobs": "pass output_logprobs=True",
    "prompt_logprobs": "pass output_logprobs=True",
    "pooler_output": "this model has no pooler; use last_hidden_state",
}
_MAY_BE_NONE = ("loss", "past_key_values")
# What a field holds that was not asked for. It has the type of each field, since reading the field never gives this
# None: it raises MissingOutputError.
ABSENT: Any = None


class Layers(dict[int, "Tensor"]):
    """The layers that were asked for, by layer number; negative numbers count from the last layer."""

    def __init__(self, values: dict[int, Tensor], total: int, what: str) -> None:
        super().__init__(values)
        self.total, self.what = total, what

    def __missing__(self, layer: int) -> Tensor:
        if isinstance(layer, int) and -self.total <= layer < 0 and layer + self.total in self:
            return self[layer + self.total]
        raise MissingOutputError(f"{self.what}[{layer!r}] was not asked for; layers present: {sorted(self)}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (dict(self), self.total, self.what))


def _read(self: ModelOutput, name: str) -> object:
    """A field that was not asked for raises MissingOutputError, which says how to ask.

    A type checker does not see this one: it would take every misspelt field for one that is there.
    """
    value = object.__getattribute__(self, name)
    if name == "__dataclass_fields__":  # who walks through an output (torch's DDP, FSDP) finds what is present
        own = object.__getattribute__(self, "__dict__")
        return {k: field for k, field in value.items() if own.get(k) is not None}
    if value is None and name in type(self).__dataclass_fields__ and name not in _MAY_BE_NONE:
        how = _HOW.get(name, f"fields present: {', '.join(self.keys())}")
        raise MissingOutputError(f"{type(self).__name__} has no {name!r}: {how}.")
    return value


class ModelOutput:
    """Base of all outputs. Subclasses are dataclasses; the order of fields is the order of indices.

    To a type checker `hidden_states` and `attentions` are tuples, one tensor a layer; where a list of layers was asked
    for, they are `Layers`, which are read by the same numbers.
    """

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
        rows: PackedBatch  # the texts' places in the batch, set by a base model for the head on it
    else:
        __getattribute__ = _read

    def keys(self) -> list[str]:
        """The names of the fields that are present."""
        own = object.__getattribute__(self, "__dict__")
        return [name for name in type(self).__dataclass_fields__ if own.get(name) is not None]

    def values(self) -> list[Any]:
        return [self.__dict__[k] for k in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        return [(k, self.__dict__[k]) for k in self.keys()]

    def get(self, name: str, default: object = None) -> Any:
        return self.__dict__[name] if name in self.keys() else default

    def to_tuple(self) -> tuple[Any, ...]:
        """The present fields in order: what `return_dict=False` returns."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key in self.keys():
                return self.__dict__[key]
            how = _HOW.get(key, f"fields present: {', '.join(self.keys())}")
            raise MissingOutputError(f"{type(self).__name__} has no {key!r}: {how}.")
        return self.to_tuple()[key]

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.items())})"


@dataclass(repr=False)
class BaseModelOutput(ModelOutput):
    """last_hidden_state [batch, length, hidden]; hidden_states, the embeddings and each block's result; attentions.

    attentions: [batch, heads, queries, keys] for each block.
    """

    last_hidden_state: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class BaseModelOutputWithPooling(ModelOutput):
    """As `BaseModelOutput`, with pooler_output [batch, hidden], and the key/value cache of a decoder."""

    last_hidden_state: Tensor = ABSENT
    pooler_output: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    past_key_values: Cache | None = None
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class BaseModelOutputWithPast(ModelOutput):
    """As `BaseModelOutput`, with the key/value cache that continues the text."""

    last_hidden_state: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class Seq2SeqModelOutput(ModelOutput):
    """last_hidden_state [batch, target length, hidden] of the decoder, and what the encoder said."""

    last_hidden_state: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] = ABSENT
    decoder_attentions: tuple[Tensor, ...] = ABSENT
    cross_attentions: tuple[Tensor, ...] = ABSENT
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] = ABSENT
    encoder_attentions: tuple[Tensor, ...] = ABSENT


# what a base model returns: each has last_hidden_state
HiddenOutput = BaseModelOutput | BaseModelOutputWithPooling | BaseModelOutputWithPast | Seq2SeqModelOutput


@dataclass(repr=False)
class MaskedLMOutput(ModelOutput):
    """logits [batch, length, vocabulary]; loss: mean cross-entropy over labels that are not -100."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class CausalLMOutputWithPast(ModelOutput):
    """logits [batch, length, vocabulary]; loss: mean cross-entropy of each token given those before it."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


CausalLMOutput = CausalLMOutputWithPast


@dataclass(repr=False)
class Seq2SeqLMOutput(ModelOutput):
    """logits [batch, target length, vocabulary]."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] = ABSENT
    decoder_attentions: tuple[Tensor, ...] = ABSENT
    cross_attentions: tuple[Tensor, ...] = ABSENT
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] = ABSENT
    encoder_attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class SequenceClassifierOutput(ModelOutput):
    """logits [batch, labels], before softmax or sigmoid."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class SequenceClassifierOutputWithPast(ModelOutput):
    """logits [batch, labels] of a decoder, read at the last real token."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class Seq2SeqSequenceClassifierOutput(ModelOutput):
    """logits [batch, labels] of an encoder-decoder, read at the last end-of-text token."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] = ABSENT
    decoder_attentions: tuple[Tensor, ...] = ABSENT
    cross_attentions: tuple[Tensor, ...] = ABSENT
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] = ABSENT
    encoder_attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class TokenClassifierOutput(ModelOutput):
    """logits [batch, length, labels]."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """start_logits and end_logits [batch, length]."""

    loss: Tensor | None = None
    start_logits: Tensor = ABSENT
    end_logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """start_logits and end_logits [batch, length] of an encoder-decoder."""

    loss: Tensor | None = None
    start_logits: Tensor = ABSENT
    end_logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] = ABSENT
    decoder_attentions: tuple[Tensor, ...] = ABSENT
    cross_attentions: tuple[Tensor, ...] = ABSENT
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] = ABSENT
    encoder_attentions: tuple[Tensor, ...] = ABSENT


@dataclass(repr=False)
class MultipleChoiceModelOutput(ModelOutput):
    """logits [batch, choices]."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] = ABSENT
    attentions: tuple[Tensor, ...] = ABSENT

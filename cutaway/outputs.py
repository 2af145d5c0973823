"""What a model returns: typed, and readable by key, by attribute and by index.

A field that was not asked for is absent: its attribute is None, and it is no key. Inside `strict_outputs()` reading it
raises `MissingOutputError`, which says how to ask; only `loss` and `past_key_values` still read as None then, because a
forward pass without labels or cache is not a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar, cast

from cutaway.errors import InputError, MissingOutputError, nearest

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_keys, dict_values

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
# What a field holds that every plain call fills: `logits` is absent only where `return_logits=False` asked for the loss
# alone. A field that must be asked for, or that not every model has, is typed `| None` instead.
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


class strict_outputs:
    """From now on, reading a field that was not asked for is a `MissingOutputError`, which says how to ask.

    Without it such a field is None, as scripts written for upstream expect. Used in a `with` statement, it ends with
    that; called alone, it stays. `strict_outputs(False)` turns it off. It holds for the whole process.
    """

    def __init__(self, on: bool = True) -> None:
        self._before = _Strict.on
        _Strict.on = bool(on)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        _Strict.on = self._before


class _Strict:
    on = False


def _read(self: ModelOutput, name: str) -> object:
    """A field that was not asked for is None; inside `strict_outputs()` it is an error that says how to ask.

    A type checker does not see this one: it would take every misspelt field for one that is there.
    """
    value = object.__getattribute__(self, name)
    if name == "__dataclass_fields__":  # who walks through an output (torch's DDP, FSDP) finds what is present
        own = object.__getattribute__(self, "__dict__")
        return {k: field for k, field in value.items() if own.get(k) is not None}
    if value is None and _Strict.on and name in type(self).__dataclass_fields__ and name not in _MAY_BE_NONE:
        raise self._missing(name)
    return value


Made = TypeVar("Made", bound="ModelOutput")

_register: Callable[..., None] | None = None
_KINDS: list[type[ModelOutput]] = []  # those that torch has not been told of


def _are_pairs(given: object) -> bool:
    """Whether `given` is a list of pairs (name, value)."""
    return isinstance(given, list) and bool(given) and all(type(p) is tuple and len(p) == 2 for p in given)


def register_trees(register: Callable[..., None] | None) -> None:
    """Tells torch that outputs hold tensors, as DDP's static graphs and `torch.export` ask.

    `register` is torch's function for it, None where this torch has none. Classes that are made before it is given wait
    here: this module loads nothing heavy.
    """
    global _register
    _register = register
    while register is not None and _KINDS:
        kind = _KINDS.pop()
        register(
            kind,
            lambda output: (list(output.values()), list(output.keys())),
            lambda values, names, kind=kind: _rebuilt(kind, dict(zip(names, values, strict=True))),
            serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
        )


class ModelOutput(dict[str, Any]):
    """Base of all outputs. Subclasses are dataclasses; the order of fields is the order of indices.

    It is a dictionary of the fields that are present.
    """

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
        rows: PackedBatch  # the texts' places in the batch, set by a base model for the head on it
    else:
        __getattribute__ = _read

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        _KINDS.append(cls)
        if _register is not None:
            register_trees(_register)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if type(self) is not ModelOutput:
            raise TypeError(f"{type(self).__name__} is no dataclass: put @dataclass above the class.")
        super().__init__(*args, **kwargs)

    def _missing(self, name: str) -> MissingOutputError:
        how = _HOW.get(name, f"fields present: {', '.join(self)}")
        return MissingOutputError(f"{type(self).__name__} has no {name!r}: {how}.")

    def __post_init__(self) -> None:
        """Takes all fields from one mapping in the place of the first: so do libraries make one of changed parts."""
        own = object.__getattribute__(self, "__dict__")
        for first, given in own.items():  # the first field alone
            if any(v is not None for k, v in own.items() if k != first):
                return
            if type(given) is dict or _are_pairs(given):
                own[first] = None
                self.update(given)
            return

    # The fields are attributes, and what a dictionary does is read from them: nothing is stored twice. Since `__iter__`
    # is our own, `dict(output)` and `{**output}` ask `keys` too, and not what lies in the built-in type.

    def keys(self) -> dict_keys[str, Any]:
        """The names of the fields that are present."""
        return self._present().keys()

    def values(self) -> dict_values[str, Any]:
        """The fields that are present, in order."""
        return self._present().values()

    def items(self) -> dict_items[str, Any]:
        """The fields that are present, with their names."""
        return self._present().items()

    def _present(self) -> dict[str, Any]:
        if type(self) is ModelOutput:  # a bag of names, which no class describes
            return dict(dict.items(self))
        own = object.__getattribute__(self, "__dict__")
        return {name: own[name] for name in type(self).__dataclass_fields__ if own.get(name) is not None}

    def get(self, name: str, default: object = None) -> Any:
        """A field, or `default` where it is absent."""
        return self.__dict__[name] if name in self else default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.__dict__.get(name) is not None and name in type(self).__dataclass_fields__

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def __or__(self, other: Any) -> Any:
        return self._present() | dict(other)

    def __ror__(self, other: Any) -> Any:
        return dict(other) | self._present()

    def __setitem__(self, name: str, value: object) -> None:
        if name not in type(self).__dataclass_fields__:
            known = type(self).__dataclass_fields__
            raise InputError(f"{type(self).__name__} has no field {name!r}.{nearest(str(name), known)}")
        setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (type(self), dict(self.__dict__)))

    def to_tuple(self) -> tuple[Any, ...]:
        """The present fields in order: what `return_dict=False` returns."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key in self:
                return self.__dict__[key]
            raise self._missing(key)
        return self.to_tuple()[key]

    def _fixed(self, *args: object, **kwargs: object) -> NoReturn:
        raise InputError(f"{type(self).__name__} has the fields that it was made with; set a field to None to drop it.")

    __delitem__ = pop = popitem = setdefault = clear = _fixed

    def update(self, *args: Any, **fields: object) -> None:
        """Set several fields."""
        for name, value in dict(*args, **fields).items():
            self[name] = value

    def copy(self) -> Self:
        """Another output with the same fields."""
        return _rebuilt(type(self), dict(self.__dict__))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.items())})"


_KINDS.append(ModelOutput)


def _rebuilt(kind: type[Made], values: dict[str, Any]) -> Made:
    if kind is ModelOutput:
        return cast("Made", ModelOutput(values))
    made = kind.__new__(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@dataclass(repr=False)
class BaseModelOutput(ModelOutput):
    """last_hidden_state [batch, length, hidden]; hidden_states, the embeddings and each block's result; attentions.

    attentions: [batch, heads, queries, keys] for each block.
    """

    last_hidden_state: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class BaseModelOutputWithPooling(ModelOutput):
    """As `BaseModelOutput`, with pooler_output [batch, hidden], and the key/value cache of a decoder."""

    last_hidden_state: Tensor = ABSENT
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    past_key_values: Cache | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class BaseModelOutputWithPast(ModelOutput):
    """As `BaseModelOutput`, with the key/value cache that continues the text."""

    last_hidden_state: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class Seq2SeqModelOutput(ModelOutput):
    """last_hidden_state [batch, target length, hidden] of the decoder, and what the encoder said."""

    last_hidden_state: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


# what a base model returns: each has last_hidden_state
HiddenOutput = BaseModelOutput | BaseModelOutputWithPooling | BaseModelOutputWithPast | Seq2SeqModelOutput


@dataclass(repr=False)
class MaskedLMOutput(ModelOutput):
    """logits [batch, length, vocabulary]; loss: mean cross-entropy over labels that are not -100."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class CausalLMOutputWithPast(ModelOutput):
    """logits [batch, length, vocabulary]; loss: mean cross-entropy of each token given those before it."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


CausalLMOutput = CausalLMOutputWithPast


@dataclass(repr=False)
class Seq2SeqLMOutput(ModelOutput):
    """logits [batch, target length, vocabulary]."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class SequenceClassifierOutput(ModelOutput):
    """logits [batch, labels], before softmax or sigmoid."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class SequenceClassifierOutputWithPast(ModelOutput):
    """logits [batch, labels] of a decoder, read at the last real token."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class Seq2SeqSequenceClassifierOutput(ModelOutput):
    """logits [batch, labels] of an encoder-decoder, read at the last end-of-text token."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class TokenClassifierOutput(ModelOutput):
    """logits [batch, length, labels]."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """start_logits and end_logits [batch, length]."""

    loss: Tensor | None = None
    start_logits: Tensor = ABSENT
    end_logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """start_logits and end_logits [batch, length] of an encoder-decoder."""

    loss: Tensor | None = None
    start_logits: Tensor = ABSENT
    end_logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor = ABSENT
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class MultipleChoiceModelOutput(ModelOutput):
    """logits [batch, choices]."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class NextSentencePredictorOutput(ModelOutput):
    """logits [batch, 2]: the second text follows the first, or does not."""

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class BertForPreTrainingOutput(ModelOutput):
    """prediction_logits [batch, length, vocabulary]; seq_relationship_logits [batch, 2]."""

    loss: Tensor | None = None
    prediction_logits: Tensor = ABSENT
    seq_relationship_logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class AlbertForPreTrainingOutput(ModelOutput):
    """prediction_logits [batch, length, vocabulary]; sop_logits [batch, 2]: the order is right, or turned round."""

    loss: Tensor | None = None
    prediction_logits: Tensor = ABSENT
    sop_logits: Tensor = ABSENT
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(repr=False)
class GPT2DoubleHeadsModelOutput(ModelOutput):
    """logits [batch, choices, length, vocabulary] with `loss`; mc_logits [batch, choices] with `mc_loss`."""

    loss: Tensor | None = None
    mc_loss: Tensor | None = None
    logits: Tensor = ABSENT
    mc_logits: Tensor = ABSENT
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

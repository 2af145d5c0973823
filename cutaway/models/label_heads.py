"""Heads with labels: for a text, for each token, for a span, for one of several texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from cutaway.config.architecture import ACTIVATIONS, Activation
from cutaway.config.config import PretrainedConfig
from cutaway.errors import InputError
from cutaway.models.lm_heads import HeadModel, answering, check_answered, last_tokens, register_at, shown
from cutaway.models.memory_check import check_memory
from cutaway.models.output_request import LayerSelection
from cutaway.models.pooler import first_token
from cutaway.models.text_vector import TextVector, text_vector
from cutaway.nn import losses
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.call_context import current
from cutaway.nn.dropout import dropout
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear
from cutaway.nn.norm_mlp import make_norm
from cutaway.nn.packed_batch import PackedBatch
from cutaway.outputs import (
    HiddenOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)

if TYPE_CHECKING:
    from cutaway.models.protocols import called_as

# a decoder keeps a cache
SequenceOutput = SequenceClassifierOutput | SequenceClassifierOutputWithPast


def config_dropout(config: PretrainedConfig, names: tuple[str, ...], usual: float) -> float:
    """The first of these fields that is set, or the `usual` rate."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return float(config.number(name, 0.0, 1.0))
    return usual


@dataclass(frozen=True)
class Classifier:
    """Which vector is read, and the layers on it.

    Attributes:
        out: published name of the last layer. dense: of one before it, or "". activation: after `dense`.
        norm: published name of a norm after that, or "".
        pick: the pooler's vector, the first token, the last real one, or the last end-of-text token.
        dropout: config fields that may hold the rate; usual: what it is where none of them is set.
        drops: before `dense`, after its activation and norm, or both.
        activation_field, pick_field, dense_bias: config fields that say it instead, or ""; pick_field says one of
            `picks`: the first token, "mean" for the mean of all tokens, or "late" for the mean of their logits.
        dense_field: a config field that says whether `dense` is there, or ""; the activation stays without it.
        shares: whether labels [batch, labels] of no stated kind are shares of one label, not several at once.
        dense_dropout: config fields that may hold a rate of its own for what `dense` reads.
    """

    out: str = "classifier"
    pick: Literal["pooler", "first", "last", "eos"] = "pooler"
    dense: str = ""
    activation: Activation = "tanh"
    dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    usual: float = 0.0
    drops: Literal["before", "after", "both", "none"] = "before"
    bias: bool = True
    norm: str = ""
    activation_field: str = ""
    pick_field: str = ""
    picks: tuple[str, ...] = ("cls", "mean")
    dense_bias: str = ""
    dense_field: str = ""
    dense_dropout: tuple[str, ...] = ()
    shares: bool = False


class LabelHead(HeadModel):
    """What heads with labels share: one vector or all, dropout, at most two layers."""

    head_spec: ClassVar[Classifier]
    vector: TextVector | None = None  # what a head on a text reads in place of `head_spec.pick` and the layers after it

    @property
    def num_labels(self) -> int:
        """How many labels the config names; setting it sets the config's."""
        return int(self.config.num_labels)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        self.config.num_labels = value

    def _outputs(self, config: PretrainedConfig) -> int:
        return int(config.num_labels)

    def _build(self, config: PretrainedConfig) -> None:
        spec, size = self.head_spec, self.architecture.stack.out_size
        self.rate = config_dropout(config, spec.dropout, spec.usual)
        self.dense_rate = config_dropout(config, spec.dense_dropout, 0.0)
        self.vector = self._vector(config)
        check_memory(config, size * (self._outputs(config) + (size if spec.dense else 0)))
        if self.vector is not None:
            register_at(self, spec.out, Linear(size, self._outputs(config)))
            self.mean = self.late = False
            return
        if spec.dense:
            there = not spec.dense_field or config.flag(spec.dense_field)
            bias = not spec.dense_bias or config.flag(spec.dense_bias)
            register_at(self, spec.dense, Linear(size, size, bias=bias) if there else torch.nn.Identity())
        if spec.norm:
            register_at(self, spec.norm, make_norm(self.architecture.stack.norm, size))
        named = config.choice(spec.activation_field, ACTIVATIONS) if spec.activation_field else None
        self.activation = spec.activation if named is None else ACTIVATIONS[named]
        said = config.choice(spec.pick_field, spec.picks) if spec.pick_field else ""
        self.mean, self.late = said == "mean", said == "late"
        register_at(self, spec.out, Linear(size, self._outputs(config), bias=spec.bias))

    def _vector(self, config: PretrainedConfig) -> TextVector | None:
        """What is read of a text where the config says it; heads on tokens read each of them."""
        return None

    def picked(self, out: HiddenOutput, input_ids: Tensor | None, attention_mask: Tensor | None = None) -> Tensor:
        """The one vector of each text, [batch, hidden]; the mask is that of input_ids."""
        if self.vector is not None:
            return self.vector(out.last_hidden_state, None if out.rows is None else out.rows.mask)
        pick = self.head_spec.pick
        if pick == "pooler":
            pooled: Tensor = out["pooler_output"]
            return pooled
        if self.mean:
            return mean_token(out.last_hidden_state, out.rows)
        if pick == "first":
            return first_token(out.last_hidden_state, out.rows)
        if pick == "last":
            return self._last(out, input_ids)
        return self._end(out, input_ids, attention_mask)

    def _last(self, out: HiddenOutput, input_ids: Tensor | None) -> Tensor:
        """The last token that is shown and not the padding id, as upstream, even where that id also ends texts: so a
        text is read at the same token alone, with a mask and without one.
        """
        hidden, pad = out.last_hidden_state, self.config.pad_token_id
        if input_ids is None or pad is None:
            return last_tokens(out, 1)[:, 0]
        steps = torch.arange(hidden.shape[1], device=hidden.device)
        real = input_ids != pad  # [batch, length]
        if out.rows.mask is None:
            places = (real * steps).amax(1)
        else:
            places = torch.maximum((real & out.rows.mask).mul(steps).amax(1), out.rows.first())
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), places]

    def _ends(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Where the end-of-text tokens stand that the mask shows: bool [batch, length]."""
        end = self.config.eos_token_id
        if end is None:
            raise InputError("this head reads the end-of-text token, but config.eos_token_id is None; set it.")
        ends = torch.isin(input_ids, torch.tensor(end, device=input_ids.device))
        # padding may have the same id
        return ends if attention_mask is None else ends & (attention_mask != 0)

    def hides_every_end(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> bool:
        """Whether the mask hides every end-of-text token of a text that has one."""
        if input_ids is None or attention_mask is None or attention_mask.shape != input_ids.shape:
            return False
        there, shown = self._ends(input_ids, None).any(1), self._ends(input_ids, attention_mask).any(1)
        return bool((there & ~shown).any())

    def _end(self, out: HiddenOutput, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        if input_ids is None:
            raise InputError("this head reads the end-of-text token, so it needs input_ids, not inputs_embeds.")
        ends = self._ends(input_ids, attention_mask)
        if not bool(ends.any(1).all()):
            end = self.config.eos_token_id
            raise InputError(f"every text must hold the end-of-text token {end}; one does not.")
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = out.last_hidden_state
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), (ends * steps).amax(1)]

    def labels_logits(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., labels]."""
        spec = self.head_spec
        if spec.drops in ("before", "both"):
            x = dropout(x, self.rate, self.training)
        if spec.dense_dropout:
            x = dropout(x, self.dense_rate, self.training)
        if spec.dense and self.vector is None:
            x = ACTIVATION[self.activation](self.get_submodule(spec.dense)(x))
            if spec.norm:
                x = self.get_submodule(spec.norm)(x)
            if spec.drops in ("after", "both"):
                x = dropout(x, self.rate, self.training)
        return self.get_submodule(spec.out)(x)  # type: ignore[no-any-return]


def mean_token(hidden: Tensor, rows: PackedBatch | None) -> Tensor:
    """The mean over the real tokens of each text; [batch, length, hidden] -> [batch, hidden]."""
    if rows is None or rows.mask is None:
        return hidden.mean(1)
    real = rows.mask[..., None].to(hidden.dtype)  # [batch, length, 1]
    return (hidden * real).sum(1) / real.sum(1)


class TextHead(LabelHead):
    """An answer for a whole text, read from one vector of it (or the mean of what is read from each token's)."""

    def text_logits(self, out: HiddenOutput, input_ids: Tensor | None) -> Tensor:
        """[batch, labels]."""
        if self.late:
            return mean_token(self.labels_logits(out.last_hidden_state), out.rows)
        return self.labels_logits(self.picked(out, input_ids))

    def _vector(self, config: PretrainedConfig) -> TextVector | None:
        return text_vector(config)

    def _reads_pooler(self) -> bool:
        return self.head_spec.pick == "pooler"


class SequenceClassification(TextHead):
    """A label for a text (or a number, or several labels at once)."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> SequenceOutput:
        """logits [batch, labels]; labels [batch], or [batch, labels] for several at once."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values, use_cache or False,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.shown(self.text_logits(out, input_ids), out)
        shares = self.head_spec.shares
        loss = None if labels is None else losses.classification(logits, labels, self.config, shares=shares)
        result: ModelOutput
        if self.architecture.stack.causal:
            cache = out.get("past_key_values")
            result = SequenceClassifierOutputWithPast(loss=loss, logits=logits, past_key_values=cache, **shown(out))
        else:
            result = SequenceClassifierOutput(loss=loss, logits=logits, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class TokenHead(LabelHead):
    """An answer for each token."""

    def token_logits(self, hidden: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, length, labels], or [batch, length] where there is one number."""
        return self.labels_logits(hidden)

    def token_loss(self, logits: Tensor, labels: Tensor, rows: PackedBatch) -> Tensor:
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput:
        """logits [batch, length, labels], of replaced tokens [batch, length]; labels [batch, length] give a loss."""
        with answering(labels, attention_mask):
            out = self.base(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, None, False,
                output_attentions, output_hidden_states, return_dict=True,
            )  # fmt: skip
        logits = self.shown(self.token_logits(out.last_hidden_state), out)
        loss = None if labels is None else self.token_loss(logits, labels, out.rows)
        return self.finish(TokenClassifierOutput(loss=loss, logits=logits, **shown(out)), return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class TokenClassification(TokenHead):
    """A label for each token: logits [batch, length, labels]; labels [batch, length], -100 where none is asked."""

    def token_loss(self, logits: Tensor, labels: Tensor, rows: PackedBatch) -> Tensor:
        """The mean cross-entropy over labels that are not -100."""
        labels = losses.by_place(labels, logits)
        check_answered(labels, rows)
        return losses.cross_entropy(logits, labels)


class ReplacedTokens(TokenHead):
    """Which tokens another model put there (Clark et al., 2020): the discriminator of ELECTRA.

    logits [batch, length], above 0 for a replaced token; labels [batch, length], 1 for a replaced token.
    """

    def _outputs(self, config: PretrainedConfig) -> int:
        return 1

    def token_logits(self, hidden: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, length]."""
        return super().token_logits(hidden)[..., 0]

    def token_loss(self, logits: Tensor, labels: Tensor, rows: PackedBatch) -> Tensor:
        """The mean binary cross-entropy over the tokens that are not padding."""
        return losses.yes_or_no(logits, labels, rows.mask)


class SpanHead(LabelHead):
    """Where an answer begins and ends: two numbers for each token."""

    def _outputs(self, config: PretrainedConfig) -> int:
        return 2

    def span(
        self, out: HiddenOutput, start: Tensor | None, end: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """(loss, start_logits, end_logits): a loss where both positions [batch] are given, the logits [batch, length].

        mask: bool [batch, length], the tokens at which an answer may begin or end; None for all. Where hidden words
        were computed because upstream's loss is asked for, an answer is looked for among them too.

        Raises:
            InputError: upstream's loss is asked for, and the model computes no words that its mask hides.
        """
        if current().whole:
            if out.rows.mask is not None and not out.rows.whole:
                raise InputError(
                    f"match_upstream looks for answers in padding as well, which {type(self).__name__} does not "
                    "compute: leave match_upstream out, or give texts of one length."
                )
            mask = None
        logits = self.shown(self.labels_logits(out.last_hidden_state), out)  # [batch, length, 2]
        starts, ends = logits[..., 0], logits[..., 1]
        loss = None if start is None or end is None else losses.span(starts, ends, start, end, mask)
        return loss, starts, ends


class QuestionAnswering(SpanHead):
    """Where the answer begins and ends (Devlin et al., 2019, section 4.2)."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput:
        """start_logits and end_logits [batch, length]; positions [batch] give a loss."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, None, False,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        loss, starts, ends = self.span(out, start_positions, end_positions, out.rows.mask)
        result = QuestionAnsweringModelOutput(loss=loss, start_logits=starts, end_logits=ends, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class MultipleChoice(TextHead):
    """Which of several texts is the right one."""

    def _outputs(self, config: PretrainedConfig) -> int:
        return 1

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> MultipleChoiceModelOutput:
        """input_ids [batch, choices, length] -> logits [batch, choices]; labels [batch]."""
        inputs = input_ids if input_ids is not None else inputs_embeds
        if inputs is None or inputs.dim() < 3:
            raise InputError("a multiple-choice model needs input_ids [batch, choices, length].")
        choices = inputs.shape[1]
        flat = [
            None if x is None else x.flatten(0, 1)  # [batch * choices, length]
            for x in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        ]
        out = self.base(*flat, None, False, output_attentions, output_hidden_states, return_dict=True)
        logits = self.text_logits(out, flat[0]).view(-1, choices)  # [batch, choices]
        logits = self.shown(logits, out)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return self.finish(MultipleChoiceModelOutput(loss=loss, logits=logits, **shown(out)), return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...

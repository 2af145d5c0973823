"""The heads of XLNet: the token at each place, and labels for a text, for each token, for a span, for a choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cutaway.config.architecture import ACTIVATIONS
from cutaway.config.config import PretrainedConfig
from cutaway.errors import GenerationError, InputError
from cutaway.models.generation_mixin import CanGenerate
from cutaway.models.label_heads import LabelHead, SpanHead, config_dropout, mean_token
from cutaway.models.lm_heads import OutputHead, answering, check_answered, last_tokens, register_at, shown
from cutaway.models.output_request import LayerSelection
from cutaway.models.pooler import first_token
from cutaway.models.two_streams import Mems
from cutaway.nn import losses
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.dropout import dropout
from cutaway.nn.linear import Linear
from cutaway.outputs import ABSENT, CausalLMOutputWithPast, HiddenOutput, ModelOutput

if TYPE_CHECKING:
    from cutaway.models.protocols import called_as


@dataclass(repr=False)
class XLNetLMHeadModelOutput(ModelOutput):
    """logits, with the loss where labels are given, and `mems` of the base model.

    Of a text [batch, labels], of tokens [batch, length or targets, labels or vocabulary], of choices [batch, choices].
    """

    loss: Tensor | None = None
    logits: Tensor = ABSENT
    mems: list[Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


class XLNetForSequenceClassificationOutput(XLNetLMHeadModelOutput):
    """As `XLNetLMHeadModelOutput`, of a text."""


class XLNetForTokenClassificationOutput(XLNetLMHeadModelOutput):
    """As `XLNetLMHeadModelOutput`, of tokens."""


class XLNetForMultipleChoiceOutput(XLNetLMHeadModelOutput):
    """As `XLNetLMHeadModelOutput`, of choices."""


@dataclass(repr=False)
class XLNetForQuestionAnsweringSimpleOutput(ModelOutput):
    """start_logits and end_logits [batch, length]; the loss is the mean of both."""

    loss: Tensor | None = None
    start_logits: Tensor = ABSENT
    end_logits: Tensor = ABSENT
    mems: list[Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


class EarlierStates:
    """What a text that is written goes on from: the states that entered each layer, and the last word that was read.

    Attributes:
        mems: [length, batch, hidden] for each layer. shown: bool [batch, length], which of them are words, or None.
        last: [batch], the word before the one that comes next. empty: no, as a cache that was filled says.
    """

    empty = False
    buffer: ClassVar[None] = None

    def __init__(self, mems: list[Tensor], shown: Tensor | None, last: Tensor) -> None:
        self.mems, self.shown, self.last = mems, shown, last

    @property
    def batch(self) -> int:
        """How many texts there are."""
        return len(self.last)

    def select(self, index: Tensor) -> None:
        """Keep the texts `index` [n], in this order."""
        self.mems = [one[:, index] for one in self.mems]
        self.shown = None if self.shown is None else self.shown[index]
        self.last = self.last[index]


class StreamLM(OutputHead):
    """Which token belongs at each place, or at the places that are asked for."""

    if not TYPE_CHECKING:
        can_generate = CanGenerate(True)

    def decode_stepper(self) -> None:
        """None: each step asks at a place of its own."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        return_logits: bool = True,
    ) -> XLNetLMHeadModelOutput:
        """logits [batch, length or targets, vocabulary]; labels of the same places, -100 where none is asked.

        The other arguments are those of the base model. A text is continued by a token of any kind at its end, which
        `perm_mask` hides from all and `target_mapping` asks for: so `generate` does it.
        """
        with answering(labels, attention_mask):
            out = self.base(
                input_ids, attention_mask, mems, perm_mask, target_mapping, token_type_ids, input_mask, inputs_embeds,
                use_mems, output_attentions, output_hidden_states, True,
            )  # fmt: skip
        if target_mapping is not None and logits_to_keep:
            out.last_hidden_state = out.last_hidden_state[:, -logits_to_keep:]
            logits_to_keep = 0
        loss, logits = self.answer(out, labels, keep=logits_to_keep, return_logits=return_logits)
        result = XLNetLMHeadModelOutput(loss=loss, logits=logits, mems=out.mems, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...

    def next_tokens(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: EarlierStates | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        logits_to_keep: int = 1,
        return_dict: bool | None = True,
        inputs_embeds: Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        """The logits [batch, 1, vocabulary] of the token after each text, as upstream computes them.

        A token is put at the end, which no other sees, and asked for. The words of a text see each other both ways, so
        each new one changes them all; with use_cache, what was computed before is taken as it is for all but the last
        two, by which the text that is written differs a little from one without.

        Args:
            input_ids: [batch, length], or [batch, 1], the newest, where past_key_values holds those before.
        """
        if input_ids is None or inputs_embeds is not None:
            raise GenerationError("XLNet writes after ids: pass input_ids, and leave inputs_embeds out.")
        keeps = bool(use_cache) and self.config.flag("use_mems_eval")
        reuse = self.config.reuse_len
        if keeps and reuse is not None and reuse > 0 and attention_mask is not None:
            raise GenerationError(
                f"reuse_len is {reuse}, which counts padding too: write texts of one length, or with use_cache=False."
            )
        ids, mems, seen = input_ids, None, None
        if past_key_values is not None:
            ids = torch.cat((past_key_values.last[:, None], input_ids), 1)
            mems = [one[:-2] for one in past_key_values.mems]
            seen = None if past_key_values.shown is None else past_key_values.shown[:, :-2]
        batch, n = ids.shape
        asked = torch.cat((ids, ids.new_zeros(batch, 1)), 1)  # [batch, n + 1]
        perm_mask = torch.zeros(1, 1, n + 1, device=ids.device)
        perm_mask[..., -1] = 1.0
        target = torch.zeros(1, 1, n + 1, device=ids.device)
        target[..., -1] = 1.0
        mask = None if attention_mask is None else torch.nn.functional.pad(attention_mask, (0, 1), value=1)
        with_mems = mems is not None and mems[0].shape[0] > 0
        out = self.base._dense(
            asked, mask, mems if with_mems else None, perm_mask.expand(batch, n + 1, -1), target.expand(batch, -1, -1),
            None, None, keeps, output_attentions, output_hidden_states, seen if with_mems else None,
        )  # fmt: skip
        logits = self.shown(self.logits(out.last_hidden_state), out)
        past = None
        if keeps:
            past = EarlierStates(out.mems, self._shown_states(out.mems[0], mask, seen, n + 1), ids[:, -1])
        return CausalLMOutputWithPast(
            logits=logits,
            past_key_values=past,  # type: ignore[arg-type]  # what search asks of a cache, it has
            **shown(out),
        )

    @staticmethod
    def _shown_states(states: Tensor, mask: Tensor | None, before: Tensor | None, n: int) -> Tensor | None:
        """Which of the kept states [length, batch, hidden] are words: bool [batch, length], None for all.

        mask: of the n that were read now. before: of those kept before.
        """
        if mask is None and before is None:
            return None
        batch = states.shape[1]
        here = torch.ones(batch, n, dtype=torch.bool, device=states.device) if mask is None else mask != 0
        words = here if before is None else torch.cat((before, here), 1)
        return words[:, -states.shape[0] :]


class _StreamHead(LabelHead):
    """Labels from what the base model says of a text."""

    def labels_logits(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., labels]."""
        return self.get_submodule(self.head_spec.out)(x)  # type: ignore[no-any-return]


class SummaryHead(_StreamHead):
    """Labels from one vector of a text: `summary_type` says which, and a layer and an activation follow."""

    SUMMARY = "sequence_summary.summary"

    def _build(self, config: PretrainedConfig) -> None:
        size = self.architecture.stack.hidden_size
        self.reads = config.choice("summary_type", ("last", "first", "mean", "cls_index"))
        named = config.summary_activation
        self.summary_activation = ACTIVATIONS[config.choice("summary_activation", ACTIVATIONS)] if named else None
        self.rate = config_dropout(config, ("summary_last_dropout",), 0.0)
        project = config.flag("summary_use_proj")
        register_at(self, self.SUMMARY, Linear(size, size) if project else torch.nn.Identity())
        register_at(self, self.head_spec.out, Linear(size, self._outputs(config)))

    def picked(
        self, out: HiddenOutput, input_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """One vector of each text, [batch, hidden]: of its real tokens, wherever its padding is."""
        hidden = out.last_hidden_state
        if self.reads == "mean":
            return mean_token(hidden, out.rows)
        return first_token(hidden, out.rows) if self.reads == "first" else last_tokens(out, 1)[:, 0]

    def summary(self, out: HiddenOutput) -> Tensor:
        """What is made of the picked vector, [batch, hidden]."""
        x = self.get_submodule(self.SUMMARY)(self.picked(out))
        if self.summary_activation is not None:
            x = ACTIVATION[self.summary_activation](x)
        return dropout(x, self.rate, self.training)


class StreamSequenceClassification(SummaryHead):
    """A label for a text (or a number, or several labels at once)."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> XLNetForSequenceClassificationOutput:
        """logits [batch, labels]; labels [batch], or [batch, labels] for several at once."""
        out = self.base(
            input_ids, attention_mask, mems, perm_mask, target_mapping, token_type_ids, input_mask, inputs_embeds,
            use_mems, output_attentions, output_hidden_states, True,
        )  # fmt: skip
        logits = self.shown(self.labels_logits(self.summary(out)), out)
        loss = None if labels is None else losses.classification(logits, labels, self.config)
        result = XLNetForSequenceClassificationOutput(loss=loss, logits=logits, mems=out.mems, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class StreamMultipleChoice(SummaryHead):
    """Which of several texts is the right one."""

    def _outputs(self, config: PretrainedConfig) -> int:
        return 1

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> XLNetForMultipleChoiceOutput:
        """input_ids [batch, choices, length] -> logits [batch, choices]; labels [batch].

        mems, perm_mask and target_mapping are those of all choices of all texts, [batch * choices, ...].
        """
        inputs = input_ids if input_ids is not None else inputs_embeds
        if inputs is None or inputs.dim() < 3:
            raise InputError("a multiple-choice model needs input_ids [batch, choices, length].")
        choices = inputs.shape[1]
        flat_ids, flat_types, flat_hidden, flat_mask, flat_embeds = (
            None if x is None else x.flatten(0, 1)  # [batch * choices, length]
            for x in (input_ids, token_type_ids, input_mask, attention_mask, inputs_embeds)
        )
        out = self.base(
            flat_ids, flat_mask, mems, perm_mask, target_mapping, flat_types, flat_hidden, flat_embeds, use_mems,
            output_attentions, output_hidden_states, True,
        )  # fmt: skip
        logits = self.labels_logits(self.summary(out)).view(-1, choices)  # [batch, choices]
        logits = self.shown(logits, out)
        loss = None if labels is None else losses.cross_entropy(logits, labels.view(-1))
        result = XLNetForMultipleChoiceOutput(loss=loss, logits=logits, mems=out.mems, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class StreamTokenClassification(_StreamHead):
    """A label for each token: logits [batch, length, labels]; labels [batch, length], -100 where none is asked."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> XLNetForTokenClassificationOutput:
        """logits [batch, length, labels], labels [batch, length]."""
        with answering(labels, attention_mask):
            out = self.base(
                input_ids, attention_mask, mems, perm_mask, target_mapping, token_type_ids, input_mask, inputs_embeds,
                use_mems, output_attentions, output_hidden_states, True,
            )  # fmt: skip
        logits = self.shown(self.labels_logits(out.last_hidden_state), out)
        if labels is not None:
            check_answered(labels, out.rows)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        result = XLNetForTokenClassificationOutput(loss=loss, logits=logits, mems=out.mems, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class StreamQuestionAnswering(_StreamHead, SpanHead):
    """Where the answer begins and ends."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> XLNetForQuestionAnsweringSimpleOutput:
        """start_logits and end_logits [batch, length]; positions [batch] give a loss."""
        out = self.base(
            input_ids, attention_mask, mems, perm_mask, target_mapping, token_type_ids, input_mask, inputs_embeds,
            use_mems, output_attentions, output_hidden_states, True,
        )  # fmt: skip
        loss, starts, ends = self.span(out, start_positions, end_positions, out.rows.mask)
        result = XLNetForQuestionAnsweringSimpleOutput(
            loss=loss, start_logits=starts, end_logits=ends, mems=out.mems, **shown(out)
        )
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...

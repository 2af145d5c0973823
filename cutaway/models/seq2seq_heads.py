"""Heads on an encoder and a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cutaway.config.config import PretrainedConfig
from cutaway.models.backbone import EncoderOutputs
from cutaway.models.decode_step import DecodeStepper, make_stepper
from cutaway.models.generation_mixin import CanGenerate
from cutaway.models.label_heads import LabelHead, SpanHead
from cutaway.models.lm_heads import OutputHead, answering
from cutaway.models.output_request import LayerSelection
from cutaway.nn import losses
from cutaway.nn.kv_cache import Cache
from cutaway.nn.stack import Stack
from cutaway.outputs import (
    BaseModelOutput,
    ModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
)

if TYPE_CHECKING:
    from cutaway.models.protocols import called_as


def _carried(out: ModelOutput) -> dict[str, Any]:
    names = (
        "past_key_values", "decoder_hidden_states", "decoder_attentions", "cross_attentions",
        "encoder_last_hidden_state", "encoder_hidden_states", "encoder_attentions",
    )  # fmt: skip
    return {name: out.get(name) for name in names}


def read_again(
    head: LabelHead, ids: Tensor | None, mask: Tensor | None, decoder_ids: Tensor | None, decoder_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """What the decoder of a label head reads, and its mask: the text, shifted right, where a call does not say."""
    if decoder_ids is not None or ids is None:
        return decoder_ids, decoder_mask
    decoder_ids, shifted_mask = head.base.reads_again(ids, mask)
    return decoder_ids, shifted_mask if decoder_mask is None else decoder_mask


class Seq2SeqLM(OutputHead):
    """A text from a text: translation, summary, answer."""

    # a published buffer that is added to the logits (BART), or ""
    logits_bias: ClassVar[str] = ""

    def __init_subclass__(cls, *, logits_bias: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.logits_bias = logits_bias
        if logits_bias:
            cls._keys_to_ignore_on_load_missing = [logits_bias]

    def _build(self, config: PretrainedConfig) -> None:
        super()._build(config)
        if self.logits_bias:
            self.register_buffer(self.logits_bias, torch.zeros(1, self.architecture.writer.embedding.vocab_size))

    if not TYPE_CHECKING:
        can_generate = CanGenerate(True)

    def decode_stepper(self) -> DecodeStepper | None:
        """Runs single steps of decoding; None where a subclass has its own `forward`, or somebody watches modules."""
        return make_stepper(self) if type(self).forward is Seq2SeqLM.forward else None

    def get_encoder(self) -> Stack:
        return self.base.encoder  # type: ignore[no-any-return]

    def get_decoder(self) -> Stack:
        return self.base.decoder  # type: ignore[no-any-return]

    def encode(self, *args: object, **kwargs: Any) -> BaseModelOutput:
        """The encoder alone, as `encoder_outputs` for any number of forward passes."""
        return self.base.encode(*args, **kwargs)  # type: ignore[no-any-return]

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder reads when it must say `labels` [batch, length]."""
        return self.base.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[no-any-return]

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        """`prepare_decoder_input_ids_from_labels`, as scripts for T5 call it."""
        return self.prepare_decoder_input_ids_from_labels(input_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        found = super().logits(hidden)
        return found + getattr(self, self.logits_bias) if self.logits_bias else found

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: EncoderOutputs | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        return_logits: bool = True,
    ) -> Seq2SeqLMOutput:
        """logits [batch, target length, vocabulary]; labels [batch, target length] also serve as decoder_input_ids.

        return_logits=False: the loss alone, for which only the logits of labelled places are computed.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if labels is not None and self.logits_bias:  # as upstream: BART and its kin keep nothing of a known answer
            use_cache = False
        with answering(labels, decoder_attention_mask):
            out = self.base(
                input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs, past_key_values,
                inputs_embeds, decoder_inputs_embeds, use_cache, output_attentions, output_hidden_states,
                return_dict=True,
            )  # fmt: skip
        loss, logits = self.answer(out, labels, keep=logits_to_keep, return_logits=return_logits)
        return self.finish(Seq2SeqLMOutput(loss=loss, logits=logits, **_carried(out)), return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class Seq2SeqClassification(LabelHead):
    """A label for a text, read from the decoder at the end-of-text token (Lewis et al., 2020, section 3.1)."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: EncoderOutputs | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqSequenceClassifierOutput:
        """logits [batch, labels]; the decoder reads the text itself, shifted right.

        Where the mask hides every end-of-text token of a text, the decoder reads all of the texts, as upstream's always
        does: the answer is read at that token.
        """
        shown_mask = None if self.hides_every_end(input_ids, attention_mask) else attention_mask
        decoder_input_ids, decoder_attention_mask = read_again(
            self, input_ids, shown_mask, decoder_input_ids, decoder_attention_mask
        )
        out = self.base(
            input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs, None,
            inputs_embeds, None, use_cache or False, output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.shown(self.labels_logits(self.picked(out, input_ids, shown_mask)), out)
        loss = None if labels is None else losses.classification(logits, labels, self.config)
        return self.finish(Seq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **_carried(out)), return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class Seq2SeqQuestionAnswering(SpanHead):
    """Where the answer begins and ends, read from the decoder."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: EncoderOutputs | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqQuestionAnsweringModelOutput:
        """start_logits and end_logits [batch, length]."""
        no_target = decoder_input_ids is None and decoder_inputs_embeds is None
        reads_again = no_target and input_ids is not None and attention_mask is not None
        if no_target:
            decoder_input_ids, decoder_attention_mask = read_again(
                self, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask
            )
        out = self.base(
            input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs, None,
            inputs_embeds, decoder_inputs_embeds, use_cache or False, output_attentions, output_hidden_states,
            return_dict=True,
        )  # fmt: skip
        mask = attention_mask != 0 if reads_again and attention_mask is not None else out.rows.mask
        loss, starts, ends = self.span(out, start_positions, end_positions, mask)
        result = Seq2SeqQuestionAnsweringModelOutput(loss=loss, start_logits=starts, end_logits=ends, **_carried(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...

"""Heads of a family's first training: two questions asked of one pass over the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cutaway.config.architecture import ACTIVATIONS
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError, InputError
from cutaway.models.generation_mixin import CanGenerate
from cutaway.models.label_heads import Classifier, TextHead, config_dropout, mean_token
from cutaway.models.lm_heads import CausalLM, OutputHead, answering, last_tokens, register_at, shown
from cutaway.models.output_request import LayerSelection
from cutaway.nn import losses
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.dropout import dropout
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear
from cutaway.outputs import (
    AlbertForPreTrainingOutput,
    BertForPreTrainingOutput,
    GPT2DoubleHeadsModelOutput,
    HiddenOutput,
    NextSentencePredictorOutput,
)

if TYPE_CHECKING:
    from cutaway.models.protocols import called_as


class NextSentence(TextHead):
    """Whether the second text follows the first (Devlin et al., 2019, section 3.1)."""

    def _outputs(self, config: PretrainedConfig) -> int:
        return 2

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
    ) -> NextSentencePredictorOutput:
        """logits [batch, 2]; labels [batch], 0 where the second text follows the first, 1 where it does not."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.shown(self.labels_logits(self.picked(out, input_ids)), out)
        loss = None if labels is None else losses.cross_entropy(logits, labels.flatten())
        return self.finish(NextSentencePredictorOutput(loss=loss, logits=logits, **shown(out)), return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class TokensAndSentences(OutputHead):
    """Masked tokens, and two labels for a pair of texts, read from the pooler's vector."""

    sentence_spec: ClassVar[Classifier]

    def __init_subclass__(cls, *, sentence: Classifier | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if sentence is not None:
            cls.sentence_spec = sentence

    def _reads_pooler(self) -> bool:
        return True

    def _build(self, config: PretrainedConfig) -> None:
        super()._build(config)
        spec = self.sentence_spec
        self.rate = 0.0 if spec.drops == "none" else config_dropout(config, spec.dropout, spec.usual)
        register_at(self, spec.out, Linear(self.architecture.stack.hidden_size, 2))

    def both(
        self, out: HiddenOutput, labels: Tensor | None, sentence_labels: Tensor | None
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """(loss, logits [batch, length, vocabulary], of the pair [batch, 2]); the loss sums up what is labelled."""
        loss, logits = self.answer(out, labels)
        pooled: Tensor = out["pooler_output"]
        pair: Tensor = self.get_submodule(self.sentence_spec.out)(dropout(pooled, self.rate, self.training))
        if sentence_labels is not None:
            second = losses.cross_entropy(pair, sentence_labels.flatten())
            loss = second if loss is None else loss + second
        return loss, logits, pair


class TokensAndNextSentence(TokensAndSentences):
    """The first training of BERT (Devlin et al., 2019, section 3.1): masked tokens, and whether a text follows."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> BertForPreTrainingOutput:
        """prediction_logits [batch, length, vocabulary], seq_relationship_logits [batch, 2].

        labels [batch, length] are of masked tokens, next_sentence_label [batch] is 0 where the second text follows; the
        loss is the sum of those that are given.
        """
        with answering(labels, attention_mask):
            out = self.base(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
                output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            )  # fmt: skip
        loss, logits, pair = self.both(out, labels, next_sentence_label)
        result = BertForPreTrainingOutput(
            loss=loss, prediction_logits=logits, seq_relationship_logits=pair, **shown(out)
        )
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class TokensAndSentenceOrder(TokensAndSentences):
    """The first training of ALBERT (Lan et al., 2020, section 3.1): masked tokens, and which of two texts was first."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_order_label: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> AlbertForPreTrainingOutput:
        """prediction_logits [batch, length, vocabulary], sop_logits [batch, 2].

        labels [batch, length] are of masked tokens, sentence_order_label [batch] is 1 where the texts are swapped; the
        loss is the sum of those that are given.
        """
        with answering(labels, attention_mask):
            out = self.base(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
                output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            )  # fmt: skip
        loss, logits, pair = self.both(out, labels, sentence_order_label)
        result = AlbertForPreTrainingOutput(loss=loss, prediction_logits=logits, sop_logits=pair, **shown(out))
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


_READS = ("cls_index", "last", "first", "mean")


class DoubleHeads(CausalLM):
    """The next token, and which of several texts is right, read at one token of each (Radford et al., 2018)."""

    _CHOICE = "multiple_choice_head.summary"
    can_generate = CanGenerate(True)

    def _build(self, config: PretrainedConfig) -> None:
        super()._build(config)
        size = self.architecture.stack.hidden_size
        self.reads = config.summary_type
        if self.reads not in _READS:
            raise ConfigError(f"summary_type is {self.reads!r}; give one of {', '.join(_READS)}.")
        if not (config.flag("summary_use_proj") and config.flag("summary_proj_to_labels")):
            raise ConfigError(
                "summary_use_proj and summary_proj_to_labels must be true: the head gives one number of a text."
            )
        config.num_labels = 1
        self.first_rate = config.number("summary_first_dropout", 0.0, 1.0)
        named = config.summary_activation
        self.choice_activation = ACTIVATIONS[config.choice("summary_activation", ACTIVATIONS)] if named else None
        self.last_rate = config_dropout(config, ("summary_last_dropout",), 0.0)
        register_at(self, self._CHOICE, Linear(size, 1))

    def choice_logits(self, out: HiddenOutput, places: Tensor | None) -> Tensor:
        """One number of each text [rows], read at `places` [rows], or at its last real token."""
        hidden = out.last_hidden_state  # [rows, length, hidden]
        if self.reads == "mean":
            x = mean_token(hidden, out.rows)
        elif self.reads == "first":
            x = hidden[torch.arange(out.rows.batch), out.rows.first()] if out.rows.mask is not None else hidden[:, 0]
        elif self.reads == "cls_index" and places is not None:
            x = hidden[torch.arange(hidden.shape[0], device=hidden.device), places.to(hidden.device)]
        else:
            x = last_tokens(out, 1)[:, 0]
        x = self.get_submodule(self._CHOICE)(dropout(x, self.first_rate, self.training))[:, 0]
        if self.choice_activation is not None:
            x = ACTIVATION[self.choice_activation](x)
        return dropout(x, self.last_rate, self.training)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        return_logits: bool = True,
    ) -> GPT2DoubleHeadsModelOutput:
        """input_ids [batch, choices, length], or [batch, length] for one choice.

        logits [batch, choices, length, vocabulary]; mc_logits [batch, choices], read at mc_token_ids [batch, choices]
        or at the last real tokens. `loss` is that of the next tokens, `mc_loss` that of the right choice.
        """
        inputs = input_ids if input_ids is not None else inputs_embeds
        if inputs is None:
            raise InputError("give input_ids [batch, choices, length] or inputs_embeds.")
        lead = inputs.shape[: inputs.dim() - (1 if input_ids is not None else 2)]  # (batch,) or (batch, choices)

        def rows(x: Tensor | None) -> Tensor | None:
            return x if x is None or len(lead) == 1 else x.flatten(0, 1)  # [batch * choices, ...]

        with answering(rows(labels), rows(attention_mask), shifted=True):
            out = self.base(
                rows(input_ids), rows(attention_mask), rows(token_type_ids), rows(position_ids), rows(inputs_embeds),
                past_key_values, use_cache, output_attentions, output_hidden_states, return_dict=True,
            )  # fmt: skip
        loss, logits = self.answer(out, rows(labels), shifted=True, keep=logits_to_keep, return_logits=return_logits)
        places = None if mc_token_ids is None else mc_token_ids.flatten()
        choices = self.choice_logits(out, places).view(lead)  # [batch, choices]
        mc_loss = None if mc_labels is None else losses.cross_entropy(choices.view(-1, lead[-1]), mc_labels.flatten())
        if logits is not None and len(lead) == 2:
            logits = logits.unflatten(0, lead)  # [batch, choices, length, vocabulary]
        result = GPT2DoubleHeadsModelOutput(
            loss=loss, mc_loss=mc_loss, logits=logits, mc_logits=choices,
            past_key_values=out.get("past_key_values"), **shown(out),
        )  # fmt: skip
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...  # type: ignore[override]

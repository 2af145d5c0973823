"""Task heads: a base model under its published name, and a few layers under theirs.

A family names the layers of a head (`"classifier"`, `"cls.predictions.transform.dense"`); the work is done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.architecture import ACTIVATIONS, Norm
from cutaway.errors import InputError
from cutaway.model import losses
from cutaway.model.backbone import Backbone, first_token, wants_dict
from cutaway.model.layers import ACTIVATION, make_norm
from cutaway.model.loading import draw
from cutaway.model.pretrained import PreTrainedModel
from cutaway.model.rows import Rows
from cutaway.model.run import Wanted
from cutaway.outputs import (
    CausalLMOutputWithPast,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)


def attach(owner: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` at a dotted path, making the containers on the way."""
    *above, last = path.split(".")
    for step in above:
        if step not in owner._modules:
            owner.add_module(step, nn.Module())
        owner = owner._modules[step]  # type: ignore[assignment]
    owner.add_module(last, module)


class HeadModel(PreTrainedModel):
    """A base model and a head on it. `backbone`: the class of the base model."""

    backbone: ClassVar[type[Backbone]]
    lays_out: ClassVar[bool] = True
    needs_pooler: ClassVar[bool] = False
    # how this head publishes the base model where that differs from the family's prefix
    published_base: ClassVar[str | None] = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = {"add_pooling_layer": self.needs_pooler} if "add_pooling_layer" in self.backbone.own_options else {}
        self.add_module(self.base_model_prefix, self.backbone(config, **options))
        self._build(config)
        if not next(self.parameters()).is_meta:
            self.init_std = self.base.init_std
            for name, child in self.named_children():
                if name != self.base_model_prefix:
                    for module in child.modules():
                        _draw(module, self)
        self.tie_weights()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "backbone" in cls.__dict__:
            cls.config_class = cls.backbone.config_class
            cls.base_model_prefix = cls.__dict__.get("base_model_prefix", cls.backbone.base_model_prefix)

    def _build(self, config: Any) -> None:
        raise NotImplementedError

    @property
    def base(self) -> Any:
        return self._modules[self.base_model_prefix]

    @property
    def architecture(self) -> Any:
        return self.base.architecture

    @property
    def published_prefix(self) -> str:
        own = self.published_base
        return self.base.family.prefix if own is None else own  # type: ignore[no-any-return]

    @property
    def published_children(self) -> dict[str, str]:
        return {self.base_model_prefix: self.published_prefix}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get(type(self).base_model_prefix)
            # a checkpoint without a prefix has the base model's names at the top
            if base is None or name.startswith("_") or self.published_prefix or name not in base.__dict__["_published"]:
                raise
            return getattr(base, name)

    def resize_token_embeddings(self, n: int | None = None, pad_to_multiple_of: int | None = None) -> nn.Embedding:
        new = super().resize_token_embeddings(n, pad_to_multiple_of)
        self.base.note_vocabulary(new.num_embeddings)
        return new

    def finish(self, output: ModelOutput, logits: Tensor, return_dict: bool | None) -> Any:
        """Hand the logits to recorders, and the output to the caller."""
        for recorder in self.base.recorders:
            if "logits" in recorder.wanted and recorder.runs:
                recorder.runs[-1]["logits"] = logits
        return output if wants_dict(self, return_dict) else output.to_tuple()


def _draw(module: nn.Module, model: PreTrainedModel) -> None:
    draw(module, float(getattr(model.config, "initializer_range", None) or model.init_std))


def config_dropout(config: Any, names: tuple[str, ...]) -> float:
    """The first of these fields that is set."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    return 0.0


def _shown(out: Any) -> dict[str, Any]:
    return {"hidden_states": out.get("hidden_states"), "attentions": out.get("attentions")}


# -- vocabularies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Output:
    """The matrix from hidden states to the vocabulary, and what comes before it.

    Attributes:
        out: published name of the matrix, tied to the token table unless the config unties it.
        bias: published name of its bias where that stands alone, "" for the matrix's own, None for no bias.
        dense, norm: published names of a layer and a norm before it (BERT), or "".
    """

    out: str
    bias: str | None = None
    dense: str = ""
    norm: str = ""
    activation: str = ""  # config field that names the activation after `dense`; "" for gelu


class OutputHead(HeadModel):
    """What masked and causal language models share."""

    head: ClassVar[Output]

    def _build(self, config: Any) -> None:
        spec, stack = self.head, self.architecture.stack
        size = stack.hidden_size
        if spec.dense:
            attach(self, spec.dense, nn.Linear(size, size))
            norm = stack.norm if stack.norm.kind == "layer" else Norm("layer", 1e-12)
            attach(self, spec.norm, make_norm(norm, size))
            name = getattr(config, spec.activation) if spec.activation else "gelu"
            self.transform_activation = ACTIVATION[ACTIVATIONS[name]]
        if spec.bias:
            above, _, last = spec.bias.rpartition(".")
            if above not in dict(self.named_modules()):
                attach(self, above, nn.Module())
        attach(self, spec.out, nn.Linear(size, stack.embedding.vocab_size, bias=spec.bias is not None))
        if spec.bias:
            self.get_submodule(above).register_parameter(last, self.get_submodule(spec.out).bias)  # type: ignore[arg-type]

    def get_output_embeddings(self) -> nn.Module:
        return self.get_submodule(self.head.out)

    def set_output_embeddings(self, value: nn.Module) -> None:
        attach(self, self.head.out, value)

    def tie_weights(self) -> None:
        if self.architecture.tied_output:
            self.get_output_embeddings().weight = self.get_input_embeddings().weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]."""
        if self.head.dense:
            hidden = self.transform_activation(self.get_submodule(self.head.dense)(hidden))
            hidden = self.get_submodule(self.head.norm)(hidden)
        if self.architecture.output_scale != 1.0:
            hidden = hidden * self.architecture.output_scale
        return self.get_submodule(self.head.out)(hidden)  # type: ignore[no-any-return]

    def row_logits(self, out: Any) -> Tensor:
        """Logits of real tokens only, padded back to [batch, length, vocabulary]."""
        hidden, rows = out.last_hidden_state, getattr(out, "rows", None)
        if rows is None or not rows.packed:
            return self.logits(hidden)
        return rows.pad(self.logits(rows.pack(hidden)))  # type: ignore[no-any-return]


class MaskedLM(OutputHead):
    """Which token belongs at each place (Devlin et al., 2019)."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: Wanted = None,
        output_hidden_states: Wanted = None,
        return_dict: bool | None = None,
    ) -> Any:
        """logits [batch, length, vocabulary]; labels [batch, length], -100 where no answer is asked."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.row_logits(out)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return self.finish(MaskedLMOutput(loss=loss, logits=logits, **_shown(out)), logits, return_dict)


class CausalLM(OutputHead):
    """Which token comes next."""

    @property
    def can_generate(self) -> bool:
        return bool(self.architecture.stack.causal)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: Wanted = None,
        output_hidden_states: Wanted = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
    ) -> Any:
        """logits [batch, length, vocabulary]; with logits_to_keep=1 only those of each text's last real token."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values, use_cache,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.logits(last_tokens(out, logits_to_keep)) if logits_to_keep else self.row_logits(out)
        loss = None if labels is None else losses.next_token(logits, labels)
        cache = out.get("past_key_values")
        result = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache, **_shown(out))
        return self.finish(result, logits, return_dict)


def last_tokens(out: Any, n: int) -> Tensor:
    """The hidden states of each text's last n real tokens, [batch, n, hidden]."""
    hidden: Tensor = out.last_hidden_state
    rows: Rows = out.rows
    if rows.mask is None:
        return hidden[:, -n:]
    steps = torch.arange(1 - n, 1, device=hidden.device)
    places = (rows.last().to(hidden.device)[:, None] + steps).clamp(min=0)  # [batch, n]
    return hidden[torch.arange(rows.batch, device=hidden.device)[:, None], places]


# -- labels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classifier:
    """Which vector is read, and the layers on it.

    Attributes:
        out: published name of the last layer. dense: of one before it, or "". activation: after `dense`.
        pick: the pooler's vector, the first token, the last real one, or the last end-of-text token.
        dropout: config fields that may hold the rate. drops: before `dense`, after its activation, or both.
    """

    out: str = "classifier"
    pick: Literal["pooler", "first", "last", "eos"] = "pooler"
    dense: str = ""
    activation: Literal["tanh", "relu"] = "tanh"
    dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    drops: Literal["before", "after", "both", "none"] = "before"
    bias: bool = True


class LabelHead(HeadModel):
    """What heads with labels share: one vector or all, dropout, at most two layers."""

    head: ClassVar[Classifier]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "head" in cls.__dict__:
            cls.needs_pooler = cls.head.pick == "pooler"

    def _outputs(self, config: Any) -> int:
        return int(config.num_labels)

    def _build(self, config: Any) -> None:
        spec, size = self.head, self.architecture.stack.hidden_size
        self.rate = config_dropout(config, spec.dropout)
        if spec.dense:
            attach(self, spec.dense, nn.Linear(size, size))
        attach(self, spec.out, nn.Linear(size, self._outputs(config), bias=spec.bias))

    def picked(self, out: Any, input_ids: Tensor | None) -> Tensor:
        """The one vector of each text, [batch, hidden]."""
        pick = self.head.pick
        if pick == "pooler":
            return out.pooler_output  # type: ignore[no-any-return]
        if pick == "first":
            return first_token(out.last_hidden_state, out.rows)
        if pick == "last":
            return self._last(out, input_ids)
        return self._end(out, input_ids)

    def _last(self, out: Any, input_ids: Tensor | None) -> Tensor:
        hidden, pad = out.last_hidden_state, self.config.pad_token_id
        if out.rows.mask is not None or input_ids is None or pad is None:
            return last_tokens(out, 1)[:, 0]
        steps = torch.arange(hidden.shape[1], device=hidden.device)
        places = ((input_ids != pad) * steps).amax(1)  # padding without a mask is known by its id
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), places]  # type: ignore[no-any-return]

    def _end(self, out: Any, input_ids: Tensor | None) -> Tensor:
        if input_ids is None:
            raise InputError("this head reads the end-of-text token, so it needs input_ids, not inputs_embeds.")
        ends = input_ids == self.config.eos_token_id
        if not bool(ends.any(1).all()):
            raise InputError(f"every text must hold the end-of-text token {self.config.eos_token_id}; one does not.")
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = out.last_hidden_state
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), (ends * steps).amax(1)]  # type: ignore[no-any-return]

    def labels_logits(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., labels]."""
        spec = self.head
        if spec.drops in ("before", "both"):
            x = F.dropout(x, self.rate, self.training)
        if spec.dense:
            x = ACTIVATION[spec.activation](self.get_submodule(spec.dense)(x))
            if spec.drops in ("after", "both"):
                x = F.dropout(x, self.rate, self.training)
        return self.get_submodule(spec.out)(x)  # type: ignore[no-any-return]


class SequenceClassification(LabelHead):
    """A label for a text (or a number, or several labels at once)."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: Wanted = None,
        output_hidden_states: Wanted = None,
        return_dict: bool | None = None,
    ) -> Any:
        """logits [batch, labels]; labels [batch], or [batch, labels] for several at once."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values, use_cache or False,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.labels_logits(self.picked(out, input_ids))
        loss = None if labels is None else losses.classification(logits, labels, self.config)
        result: ModelOutput
        if self.architecture.stack.causal:
            cache = out.get("past_key_values")
            result = SequenceClassifierOutputWithPast(loss=loss, logits=logits, past_key_values=cache, **_shown(out))
        else:
            result = SequenceClassifierOutput(loss=loss, logits=logits, **_shown(out))
        return self.finish(result, logits, return_dict)


class TokenClassification(LabelHead):
    """A label for each token."""

    needs_pooler = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.needs_pooler = False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: Wanted = None,
        output_hidden_states: Wanted = None,
        return_dict: bool | None = None,
    ) -> Any:
        """logits [batch, length, labels]; labels [batch, length], -100 where no label is asked."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, None, False,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.labels_logits(out.last_hidden_state)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return self.finish(TokenClassifierOutput(loss=loss, logits=logits, **_shown(out)), logits, return_dict)


class QuestionAnswering(LabelHead):
    """Where the answer begins and ends (Devlin et al., 2019, section 4.2)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.needs_pooler = False

    def _outputs(self, config: Any) -> int:
        return 2

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: Wanted = None,
        output_hidden_states: Wanted = None,
        return_dict: bool | None = None,
    ) -> Any:
        """start_logits and end_logits [batch, length]; positions [batch] give a loss."""
        out = self.base(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, None, False,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.labels_logits(out.last_hidden_state)  # [batch, length, 2]
        starts, ends = logits[..., 0], logits[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = losses.span(starts, ends, start_positions, end_positions)
        result = QuestionAnsweringModelOutput(loss=loss, start_logits=starts, end_logits=ends, **_shown(out))
        return self.finish(result, logits, return_dict)


class MultipleChoice(LabelHead):
    """Which of several texts is the right one."""

    def _outputs(self, config: Any) -> int:
        return 1

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: Wanted = None,
        output_hidden_states: Wanted = None,
        return_dict: bool | None = None,
    ) -> Any:
        """input_ids [batch, choices, length] -> logits [batch, choices]; labels [batch]."""
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None or given.dim() < 3:
            raise InputError("a multiple-choice model needs input_ids [batch, choices, length].")
        choices = given.shape[1]
        flat = [
            None if x is None else x.flatten(0, 1)  # [batch * choices, length]
            for x in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        ]
        out = self.base(*flat, None, False, output_attentions, output_hidden_states, return_dict=True)
        logits = self.labels_logits(self.picked(out, flat[0])).view(-1, choices)  # [batch, choices]
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return self.finish(MultipleChoiceModelOutput(loss=loss, logits=logits, **_shown(out)), logits, return_dict)

"""Task heads: a base model under its published name, and a few layers under theirs.

A family names the layers of a head (`"classifier"`, `"cls.predictions.transform.dense"`); the work is done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from cutaway.config.architecture import ACTIVATIONS, Architecture, Norm
from cutaway.config.config import PretrainedConfig
from cutaway.errors import InputError
from cutaway.hub.argument_names import also_called
from cutaway.models.backbone import Backbone, wants_dict
from cutaway.models.decode_step import DecodeStepper, make_stepper
from cutaway.models.generation_mixin import CanGenerate
from cutaway.models.loading import init_module, init_std
from cutaway.models.output_request import LayerSelection
from cutaway.models.pretrained import PreTrainedModel
from cutaway.models.untrainable import refuse_gradients
from cutaway.nn import losses
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.activations.taps import Taps
from cutaway.nn.call_context import asked_of, hidden_words_computed, scopes_of
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear
from cutaway.nn.named_modules import NamedModule, shows_engine
from cutaway.nn.norm_mlp import make_norm
from cutaway.nn.packed_batch import PackedBatch
from cutaway.outputs import (
    ABSENT,
    CausalLMOutputWithPast,
    HiddenOutput,
    MaskedLMOutput,
    ModelOutput,
)

if TYPE_CHECKING:
    from cutaway.models.protocols import called_as

Out = TypeVar("Out", bound=ModelOutput)


def register_at(owner: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` at a dotted path, making the containers on the way."""
    *above, last = path.split(".")
    for step in above:
        if step not in owner._modules:
            owner.add_module(step, nn.Module())
        owner = owner._modules[step]  # type: ignore[assignment]
    owner.add_module(last, module)


class HeadModel(PreTrainedModel):
    """A base model and a head on it. `backbone`: the class of the base model."""

    backbone: ClassVar[type[Backbone[Any]]]
    builds_on_meta: ClassVar[bool] = True
    head_spec: ClassVar[Any]  # the head, as the family declares it; `head` is a published name (ModernBERT)
    # how this head publishes the base model where that differs from the family's prefix
    published_base: ClassVar[str | None] = None

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        options = (
            {"add_pooling_layer": self._reads_pooler()} if "add_pooling_layer" in self.backbone.model_kwargs else {}
        )
        self.add_module(self.base_model_prefix, self.backbone(config, **options))
        self._build(config)
        if not next(self.engine.parameters()).is_meta:
            self.init_std = self.base.init_std
            for name, child in self.engine.named_children():
                if name != self.base_model_prefix:
                    for module in child.modules():
                        _draw(module, self)
        self.tie_weights()

    def __init_subclass__(
        cls,
        *,
        backbone: type[Backbone[Any]] | None = None,
        head: object = None,
        prefix: str | None = None,
        published: str | None = None,
        **kwargs: Any,
    ) -> None:
        """A declaration names its parts: `class BertForMaskedLM(MaskedLM, backbone=BertModel, head=Output(...))`."""
        super().__init_subclass__(**kwargs)
        if backbone is not None:
            cls.backbone, cls.config_class = backbone, backbone.config_class
            cls.base_model_prefix = prefix or backbone.base_model_prefix
            cls.published_base = published
            cls.head_spec = head

    def _build(self, config: PretrainedConfig) -> None:
        raise NotImplementedError

    def _reads_pooler(self) -> bool:
        return False

    @property
    def base(self) -> Any:
        return self._modules[self.base_model_prefix]

    @property
    def architecture(self) -> Architecture:
        return self.base.architecture  # type: ignore[no-any-return]

    @property
    def published_prefix(self) -> str:
        own = self.published_base
        return self.base.family.prefix if own is None else own

    @property
    def published_children(self) -> dict[str, str]:
        """{child here: its name in published files}, where the two differ; "" for none of its own."""
        return {self.base_model_prefix: self.published_prefix}

    def published_items(self) -> Iterator[tuple[str, nn.Module]]:
        """As NamedModule.published_items: the base model under its published prefix, then the head."""
        children = list(self.engine.named_children())
        if shows_engine():
            yield from children
            return
        if self.backbone.head_stands_first:
            children.sort(key=lambda child: child[0] == self.base_model_prefix)
        for name, child in children:
            if name != self.base_model_prefix or not isinstance(child, NamedModule):
                yield name, child
            elif self.published_prefix:
                yield self.published_prefix, child
            else:
                yield from child.published_items()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get(type(self).base_model_prefix)
            # a checkpoint without a prefix has the base model's names at the top
            if base is None or name.startswith("_") or self.published_prefix or name not in base._published:
                raise
            return getattr(base, name)

    @also_called(new_num_tokens="n")
    def resize_token_embeddings(
        self, n: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        new = super().resize_token_embeddings(n, pad_to_multiple_of, mean_resizing)
        self.base.note_vocabulary(new.num_embeddings)
        return new

    def looks_at(self, address: str) -> bool:
        """Whether the call that runs records or edits this address."""
        return any(
            (scope.recorder is not None and address in scope.recorder.wanted)
            or (scope.edits is not None and address in scope.edits.changes)
            for scope in scopes_of(self.base)
        )

    def shown(self, logits: Tensor, out: ModelOutput) -> Tensor:
        """The logits as edits leave them, after the recorders have seen them; `out`: what the base model gave."""
        if not self.looks_at("logits"):
            return logits
        recorders, edits = asked_of(self.base)
        taps = Taps(("logits",) if any("logits" in r.wanted for r in recorders) else (), edits)
        cache = out.get("past_key_values")
        columns = out.rows.length if cache is None else cache.seen  # of the padded input so far
        logits = taps.show("logits", logits, start=columns - logits.shape[1] if logits.dim() == 3 else 0)
        for recorder in recorders:
            if "logits" in taps.values:
                recorder.add("logits", taps.values["logits"])
        return logits

    def finish(self, output: Out, return_dict: bool | None) -> Out:
        """The output, as the caller wants it; a tuple for `return_dict=False`, which the type leaves unsaid."""
        refuse_gradients(self, output)
        return output if wants_dict(self, return_dict) else output.to_tuple()  # type: ignore[return-value]


def _draw(module: nn.Module, model: PreTrainedModel) -> None:
    init_module(module, init_std(model))


def shown(out: ModelOutput) -> dict[str, Any]:
    """What the base model was asked to show."""
    return {"hidden_states": out.get("hidden_states"), "attentions": out.get("attentions")}


@dataclass(frozen=True)
class Output:
    """The matrix from hidden states to the vocabulary, and what comes before it.

    Attributes:
        out: published name of the matrix, tied to the token table unless the config unties it.
        bias: published name of its bias where that stands alone, "" for the matrix's own, None for no bias.
        dense, norm: published names of a layer and a norm before it (BERT), or "".
        activation: config field that names the activation after `dense`; "" for gelu.
        dense_bias: config field that says whether `dense` has a bias; "" for yes.
        stored: what the matrix is called in files, where that is another name (GPT-NeoX), or "".
    """

    out: str
    bias: str | None = None
    dense: str = ""
    norm: str = ""
    activation: str = ""
    dense_bias: str = ""
    stored: str = ""


@dataclass(frozen=True)
class ByFlag:
    """One head or another, by a field of the config."""

    field: str
    yes: Output
    no: Output


class OutputHead(HeadModel):
    """What masked and causal language models share."""

    head_spec: ClassVar[Output]

    def _build(self, config: PretrainedConfig) -> None:
        declared = self.head_spec
        if isinstance(declared, ByFlag):
            self.head_spec = declared.yes if config.flag(declared.field) else declared.no  # type: ignore[misc]
        spec, stack = self.head_spec, self.architecture.stack
        size = stack.width
        if spec.dense:
            bias = not spec.dense_bias or config.flag(spec.dense_bias)
            register_at(self, spec.dense, Linear(stack.hidden_size, size, bias=bias))
            norm = stack.norm if stack.norm.kind == "layer" else Norm("layer", 1e-12)
            register_at(self, spec.norm, make_norm(norm, size))
            name = config.choice(spec.activation, ACTIVATIONS) if spec.activation else "gelu"
            self.transform_activation = ACTIVATION[ACTIVATIONS[name]]
        if spec.bias:
            above, _, last = spec.bias.rpartition(".")
            if above not in dict(self.engine.named_modules()):
                register_at(self, above, nn.Module())
        register_at(
            self, spec.out, Linear(size, self.architecture.writer.embedding.vocab_size, bias=spec.bias is not None)
        )
        if spec.bias:
            self.get_submodule(above).register_parameter(last, self.get_submodule(spec.out).bias)  # type: ignore[arg-type]

    @property
    def published_children(self) -> dict[str, str]:
        return super().published_children | (
            {self.head_spec.out: self.head_spec.stored} if self.head_spec.stored else {}
        )

    @property
    def own_forward(self) -> bool:
        """Whether `forward` is the library's, not one that a user put over it."""
        return type(self).forward.__module__.startswith("cutaway.")

    def get_output_embeddings(self) -> nn.Module:
        return self.get_submodule(self.head_spec.out)

    def set_output_embeddings(self, value: nn.Module) -> None:
        register_at(self, self.head_spec.out, value)

    def tie_weights(self) -> None:
        if self.architecture.tied_output:
            self.get_output_embeddings().weight = self.base.output_table.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]."""
        if self.head_spec.dense:
            hidden = self.transform_activation(self.get_submodule(self.head_spec.dense)(hidden))
            hidden = self.get_submodule(self.head_spec.norm)(hidden)
        if self.architecture.output_scale != 1.0:
            hidden = hidden * self.architecture.output_scale
        logits: Tensor = self.get_submodule(self.head_spec.out)(hidden)
        cap = self.architecture.output_cap
        return logits if cap is None else (logits / cap).tanh() * cap

    def row_logits(self, out: HiddenOutput) -> Tensor:
        """Logits of real tokens only, padded back to [batch, length, vocabulary]."""
        hidden, rows = out.last_hidden_state, getattr(out, "rows", None)
        if rows is None or not rows.packed:
            return self.logits(hidden)
        return rows.pad(self.logits(rows.pack(hidden)))  # type: ignore[no-any-return]

    def answer(
        self,
        out: HiddenOutput,
        labels: Tensor | None,
        *,
        shifted: bool = False,
        keep: int = 0,
        return_logits: bool = True,
    ) -> tuple[Tensor | None, Tensor]:
        """(loss, logits), absent for what is not asked; `shifted`: labels are the text itself, each the next token's.

        Without `return_logits` only those of labelled places are computed: of a masked text every seventh place is
        labelled, and a row of logits is often longer than all else a place needs. Where somebody records or edits the
        logits, they are all computed.
        """
        if labels is not None:
            check_answered(labels, getattr(out, "rows", None), shifted=shifted)
        if not return_logits and not self.looks_at("logits"):
            if labels is None:
                return None, ABSENT
            hidden = out.last_hidden_state
            if shifted:
                hidden, labels = hidden[:, :-1], labels[:, 1:]
            states, wanted = losses.labelled(hidden, labels)
            if not len(wanted):
                return hidden.sum() * 0.0, ABSENT
            return losses.cross_entropy(self.logits(states), wanted), ABSENT
        logits = self.shown(self.logits(last_tokens(out, keep)) if keep else self.row_logits(out), out)
        if labels is None:
            return None, logits
        return (losses.next_token if shifted else losses.cross_entropy)(logits, labels), logits


def output_head(model: object) -> OutputHead | None:
    """The part of a model that ends in a vocabulary: itself, or the decoder of a pair; None where there is none."""
    found = getattr(model, "output_model", model)
    return found if isinstance(found, OutputHead) else None


def loss_only(model: object) -> dict[str, bool]:
    """What to add to the arguments of a call of which only the loss is wanted: `model(**batch, **loss_only(model))`.

    Nothing for a forward of the user's own, which may read the logits.
    """
    forward = getattr(type(model), "forward", None)
    is_ours = str(getattr(forward, "__module__", "")).startswith("cutaway.")
    return {"return_logits": False} if is_ours and output_head(model) is not None else {}


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
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
        return_logits: bool = True,
    ) -> MaskedLMOutput:
        """logits [batch, length, vocabulary]; labels [batch, length], -100 where no answer is asked.

        return_logits=False: the loss alone, for which only the logits of labelled places are computed.
        """
        with answering(labels, attention_mask):
            out = self.base(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
                output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            )  # fmt: skip
        loss, logits = self.answer(out, labels, return_logits=return_logits)
        return self.finish(MaskedLMOutput(loss=loss, logits=logits, **shown(out)), return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


class CausalLM(OutputHead):
    """Which token comes next."""

    if not TYPE_CHECKING:
        can_generate = CanGenerate(True, lambda model: bool(model.architecture.stack.causal))

    def decode_stepper(self) -> DecodeStepper | None:
        """Runs single steps of decoding; None where a subclass has its own `forward`, or somebody watches modules."""
        return make_stepper(self) if type(self).forward is CausalLM.forward else None

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
        logits_to_keep: int = 0,
        return_logits: bool = True,
        shift_labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        """logits [batch, length, vocabulary]; with logits_to_keep=1 only those of each text's last real token.

        return_logits=False: the loss alone, for which only the logits of labelled places are computed.
        shift_labels [batch, length] are the next tokens themselves, where `labels` would be the text. With
        num_items_in_batch the loss is the sum over labelled places divided by that number, not their mean.
        """
        asked = labels if shift_labels is None else shift_labels
        with answering(asked, attention_mask, shifted=shift_labels is None):
            out = self.base(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values, use_cache,
                output_attentions, output_hidden_states, True, encoder_hidden_states, encoder_attention_mask,
            )  # fmt: skip
        if shift_labels is None:
            loss, logits = self.answer(out, labels, shifted=True, keep=logits_to_keep, return_logits=return_logits)
            targets = None if labels is None else labels[:, 1:]
        else:
            loss, logits = self.answer(out, shift_labels, return_logits=return_logits)
            targets = shift_labels
        if num_items_in_batch is not None and targets is not None:
            loss = losses.summed(loss, targets) / num_items_in_batch
        cache = out.get("past_key_values")
        crossed = out.get("cross_attentions")
        result = CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=cache, cross_attentions=crossed, **shown(out)
        )
        return self.finish(result, return_dict)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


def answering(labels: object, attention_mask: object, *, shifted: bool = False) -> AbstractContextManager[None]:
    """Inside, a base model computes all that `labels` [batch, length] ask of, words that the mask hides included.

    Where none of those is labelled, they are not computed, as ever. `shifted`: each label is asked of the token before.
    """
    if not isinstance(labels, Tensor) or not isinstance(attention_mask, Tensor) or labels.dim() != 2:
        return nullcontext()
    if labels.shape != attention_mask.shape:
        return nullcontext()
    hidden, asked = attention_mask == 0, labels.to(attention_mask.device) != losses.IGNORED
    wrong = hidden[:, :-1] & asked[:, 1:] if shifted else hidden & asked
    return hidden_words_computed() if bool(wrong.any()) else nullcontext()


def check_answered(labels: object, rows: PackedBatch | None, *, shifted: bool = False) -> None:
    """InputError where a label [batch, length] is asked of a word that the mask hides in the middle of a text.

    Such a word is computed only where `answering` saw the label and the architecture allows it. `shifted`: each label
    is asked of the token before it.
    """
    if rows is None or not isinstance(labels, Tensor) or labels.shape != (rows.batch, rows.length) or not rows.holes:
        return
    assert rows.mask is not None
    steps = torch.arange(rows.length, device=rows.mask.device)
    inside = (steps > rows.first()[:, None]) & (steps < rows.last()[:, None])
    hidden, asked = inside & ~rows.mask, labels != losses.IGNORED
    wrong = hidden[:, :-1] & asked[:, 1:] if shifted else hidden & asked
    if bool(wrong.any()):
        text, place = wrong.nonzero()[0].tolist()
        raise InputError(
            f"labels[{text}, {place + shifted}] is asked of token {place}, which attention_mask hides and which is not "
            "computed; set it to -100."
        )


def last_tokens(out: HiddenOutput, n: int) -> Tensor:
    """The hidden states of each text's last n real tokens, [batch, n, hidden]."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise InputError(f"logits_to_keep is {n!r}; give a number of tokens, or 0 for all.")
    hidden: Tensor = out.last_hidden_state
    rows: PackedBatch = out.rows
    if rows.mask is None:
        return hidden[:, -n:]
    steps = torch.arange(1 - n, 1, device=hidden.device)
    places = (rows.last().to(hidden.device)[:, None] + steps).clamp(min=0)  # [batch, n]
    return hidden[torch.arange(rows.batch, device=hidden.device)[:, None], places]

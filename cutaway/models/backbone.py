"""The base models: one stack, or an encoder and a decoder."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import torch
from torch import Tensor, nn

from cutaway.checkpoint.field_checks import shown_value
from cutaway.config.architecture import Architecture
from cutaway.config.architecture import Stack as StackSpec
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError, InputError
from cutaway.hub.argument_names import also_called
from cutaway.models.depth import note_depth
from cutaway.models.family import Family
from cutaway.models.memory_check import check_memory, parameter_count
from cutaway.models.output_request import LayerSelection, OutputRequest
from cutaway.models.pooler import Pooler
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.activations.sparse_features import AttachedSae
from cutaway.nn.activations.taps import Taps, model_addresses
from cutaway.nn.block_order import follow_blocks
from cutaway.nn.call_context import asked_of, prefix_of, whole_of
from cutaway.nn.cpu.torch_private import REGISTER_PYTREE
from cutaway.nn.decoder_inputs import begin_with_text, decoder_start, shift_right, wrap_right
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import hooked
from cutaway.nn.named_modules import NamedModule, attach_published_names
from cutaway.nn.packed_batch import PackedBatch, check_mask, check_texts, packed_sequence_lengths
from cutaway.nn.published_layer import join_published, layer_paths
from cutaway.nn.stack import Stack, build_stack, run_stack
from cutaway.nn.stack_inputs import Batch
from cutaway.nn.weight_map import WeightSource, expand
from cutaway.outputs import (
    BaseModelOutput,
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    ModelOutput,
    Seq2SeqModelOutput,
    register_trees,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from cutaway.models.protocols import called_as

    # what `model(...)` returns: BERT and its kin have a pooler, decoders keep a cache
    Out = TypeVar("Out", covariant=True, bound=ModelOutput, default=BaseModelOutputWithPooling)
else:
    from typing import TypeVar

    Out = TypeVar("Out")

register_trees(REGISTER_PYTREE)
log = logging.getLogger("cutaway")

# what `encode` returned, or its fields in order
EncoderOutputs = ModelOutput | tuple[Tensor, ...] | list[Tensor]


class Backbone(PreTrainedModel, Generic[Out]):
    """One stack of blocks, from ids to hidden states."""

    family: ClassVar[Family]
    builds_on_meta: ClassVar[bool] = True
    model_kwargs: ClassVar[tuple[str, ...]] = ("add_pooling_layer",)
    # whether a decoder without input of its own reads the encoder's text, shifted right (BART)
    shifts_input: ClassVar[bool] = False
    # whether the decoder's text begins with its own last token, which names the language (mBART)
    wraps: ClassVar[bool] = False
    # whether a model with a head lists the head's parameters before those of the base model (XLM-RoBERTa)
    head_stands_first: ClassVar[bool] = False
    # whether the family's pooler is there where nobody says
    pools: ClassVar[bool] = True

    def __init_subclass__(
        cls,
        *,
        family: Family | None = None,
        shifts_input: bool | None = None,
        wraps: bool = False,
        pools: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if family is not None:
            cls.family = family
        if shifts_input is not None:
            cls.shifts_input = shifts_input
        cls.wraps = cls.wraps or wraps
        cls.pools = cls.pools and pools

    def __init__(self, config: PretrainedConfig, add_pooling_layer: bool | None = None) -> None:
        super().__init__(config)
        self.saes: dict[str, AttachedSae] = {}
        if not isinstance(config, self.config_class) and type(config).model_type:
            raise ConfigError(
                f"{type(self).__name__} is built from a {self.config_class.__name__}, not from a "
                f"{type(config).__name__}; use AutoModel.from_config(config)."
            )
        check_special_ids(config)
        self.architecture = self._architecture(config, self.pools if add_pooling_layer is None else add_pooling_layer)
        check_memory(config, parameter_count(self.architecture))
        self.init_std = self.architecture.init_std
        self._build()
        layers = self.layer_sources
        attach_published_names(self, layers)
        join_published(self, layers)
        if getattr(config, "gradient_checkpointing", False) is True:
            self.gradient_checkpointing_enable()
        if not next(self.engine.parameters()).is_meta:
            self.init_weights()

    @property
    def architecture(self) -> Architecture:
        """What the model is built of; it follows lists of blocks that are cut or grown."""
        architecture: Architecture = self.__dict__["_built_as"]
        stacks = self._stacks()
        changed = [follow_blocks(stack) for stack in stacks]
        specs = [stack.spec for stack in stacks]
        if specs and specs[0] is not architecture.stack:
            architecture = replace(architecture, stack=specs[0])
        if len(specs) > 1 and specs[1] is not architecture.decoder:
            architecture = replace(architecture, decoder=specs[1])
        self.__dict__["_built_as"] = architecture
        if any(changed):
            attach_published_names(self, self.layer_sources)
            join_published(self, self.layer_sources)
        return architecture

    @architecture.setter
    def architecture(self, value: Architecture) -> None:
        self.__dict__["_built_as"] = value

    def _stacks(self) -> tuple[NamedModule, ...]:
        """The stacks that are built: one, or encoder and decoder."""
        return (self,) if "blocks" in self._modules else ()

    def _architecture(self, config: PretrainedConfig, pooler: bool) -> Architecture:
        architecture = self.family.architecture(config)
        return architecture if pooler else replace(architecture, pooler=False)

    def _build(self) -> None:
        spec = self.architecture.stack
        self.prefix = ""
        build_stack(self, spec)
        if self.architecture.pooler:
            self.pooler = Pooler(spec.hidden_size)

    @property
    def layer_sources(self) -> dict[str, WeightSource]:
        """{our layer: published layer} for every layer that holds weights."""
        spec = self.architecture.stack
        table = expand(self.family.table(self.architecture), {"": spec.n_blocks})
        own = layer_paths(self)
        return {ours: source for ours, source in table.items() if ours in own}

    @property
    def published_prefix(self) -> str:
        return self.family.prefix

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        """How many tokens the table has."""
        return self.architecture.stack.embedding.vocab_size

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed.tokens = value

    @property
    def output_table(self) -> nn.Embedding:
        """The table of tokens that an output matrix may be tied to."""
        return self.get_input_embeddings()

    @also_called(new_num_tokens="n")
    def resize_token_embeddings(
        self, n: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        new = super().resize_token_embeddings(n, pad_to_multiple_of, mean_resizing)
        self.note_vocabulary(new.num_embeddings)
        return new

    def check_resizable(self) -> None:
        """InputError where the table of tokens cannot be given another size."""

    def note_vocabulary(self, size: int) -> None:
        """Let the bounds of ids follow a new table of tokens."""
        for stack in self._stacks():
            stack.spec = replace(stack.spec, embedding=replace(stack.spec.embedding, vocab_size=size))

    def note_depth(self) -> None:
        """Let the config say how many layers there are, where a list of blocks was cut or grown."""
        note_depth(self.family, self.config, self.architecture)

    def addresses(self) -> list[str]:
        return [*model_addresses(self.architecture), *(a for s in self.saes.values() for a in s.addresses)]

    def taps(self, *requests: OutputRequest | None) -> Taps:
        wanted = [a for r in requests if r is not None for a in r.addresses()]
        recorders, edits = asked_of(self)
        turn = len(recorders[0].runs) if recorders else 0
        wanted += [a for r in recorders for a in r.wanted]
        watched = bool(wanted) and any(hooked(m) for m in self.engine.modules())
        front = prefix_of(self)
        # of a part, those of the whole that stand in it; what was put at the part alone has no address there
        saes: dict[str, AttachedSae] = getattr(whole_of(self), "saes", {})
        here = tuple(sae for sae in saes.values() if sae.reads.startswith(front))
        return Taps(wanted, edits, turn, watched, recorders, front, here)

    @staticmethod
    def report(taps: Taps) -> None:
        """Hand what was seen to the recorders."""
        for recorder in taps.recorders:
            recorder.begin(taps.values.part(recorder.wanted), taps.certificate)

    def ask(
        self,
        output_hidden_states: LayerSelection,
        output_attentions: LayerSelection,
        prefix: str = "",
        spec: StackSpec | None = None,
    ) -> OutputRequest:
        config = self.config
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        attended = config.output_attentions if output_attentions is None else output_attentions
        return OutputRequest(spec or self.architecture.stack, prefix, hidden, attended)

    def cache_for(self, past: object, use_cache: bool | None, causal: bool) -> Cache | None:
        """The cache to fill: the one given, a new one where it is wanted, or None."""
        if past is not None and not isinstance(past, Cache):
            raise InputError(f"past_key_values must be the cache that this model returned, not {type(past).__name__}.")
        if past is not None:
            if not causal:
                raise InputError("past_key_values was given, but this model reads the whole text at once (not causal).")
            return past
        if use_cache is None:
            use_cache = bool(getattr(self.config, "use_cache", True)) and not self.training
        return Cache() if use_cache and causal else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Out:
        """Hidden states of a batch.

        Args:
            input_ids: [batch, length]; or inputs_embeds: [batch, length, hidden].
            attention_mask: [batch, length], 1 for tokens, 0 for padding on either side, and for words in the middle
                that no other sees. What is 0 is not computed.
            token_type_ids: [batch, length], where the family has them.
            position_ids: [batch, length]; by default they count from each text's first real token, whatever the
                padding; words hidden in the middle keep theirs (OPT numbers only those that are shown). In one row
                without a mask, a causal model takes positions that begin anew for another text, which sees only itself.
            past_key_values: the cache of earlier tokens; input_ids then holds only the new ones.
            output_attentions, output_hidden_states: True, or a list of layers.
            encoder_hidden_states: [batch, source length, hidden], what a decoder with cross-attention looks at; without
                it that decoder runs without cross-attention. encoder_attention_mask: [batch, source length].

        Raises:
            InputError: a shape, value or length that does not fit; the message names both sides.
        """
        spec = self.architecture.stack
        if encoder_hidden_states is not None and not spec.cross:
            raise InputError(
                "encoder_hidden_states was given, but this model has no cross-attention; load it with is_decoder=True, "
                "add_cross_attention=True, where its family can have it."
            )
        request = self.ask(
            output_hidden_states,
            output_attentions,
            prefix_of(self),
            replace(spec, cross=False) if spec.cross and encoder_hidden_states is None else spec,
        )
        taps = self.taps(request)
        if (
            past_key_values is None
            and use_cache is None
            and packed_sequence_lengths(position_ids, attention_mask) is not None
        ):
            use_cache = False  # several texts in a row are read, not continued
        cache = self.cache_for(past_key_values, use_cache, spec.causal)
        if token_type_ids is not None and not (spec.embedding.n_types or spec.attention.compares_types):
            if not (spec.causal or spec.embedding.takes_types) and bool((torch.as_tensor(token_type_ids) != 0).any()):
                raise InputError(
                    "token_type_ids is not 0 everywhere, but this model has no token types; leave them out."
                )
            token_type_ids = None
        batch = Batch.of(self, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, cache)
        memory = memory_rows = None
        if encoder_hidden_states is not None:
            memory, memory_rows = cross_memory(encoder_hidden_states, encoder_attention_mask, spec.hidden_size, cache)
            check_sides(memory_rows, batch.rows)
        x = run_stack(self, batch, taps, memory, memory_rows)
        last = batch.rows.pad_hidden(x)
        shown = {"hidden_states": request.hidden_states(taps), "attentions": request.attentions(taps)}
        if memory is not None:
            shown["cross_attentions"] = request.cross_attentions(taps)
        out: BaseModelOutput | BaseModelOutputWithPast | BaseModelOutputWithPooling
        if self.architecture.pooler:
            pooled = self.pooler(last, batch.rows)
            pooled = taps.show(f"{taps.front}pooler", pooled)
            out = BaseModelOutputWithPooling(
                last_hidden_state=last, pooler_output=pooled, past_key_values=cache, **shown
            )
        elif spec.causal:
            out = BaseModelOutputWithPast(last_hidden_state=last, past_key_values=cache, **shown)
        else:
            out = BaseModelOutput(last_hidden_state=last, **shown)
        self.report(taps)
        out.rows = batch.rows
        return out if wants_dict(self, return_dict) else out.to_tuple()  # type: ignore[return-value]

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


def cross_memory(
    states: object, attention_mask: Tensor | None, hidden_size: int, cache: Cache | None
) -> tuple[Tensor, PackedBatch]:
    """What cross-attention looks at, [rows, hidden], and its layout, from encoder states [batch, length, hidden].

    Raises:
        InputError: states of another shape, a mask of another shape, or a cache that belongs to other states.
    """
    if not isinstance(states, Tensor) or states.dim() != 3 or states.shape[2] != hidden_size:
        raise InputError(
            f"encoder_outputs must hold hidden states [batch, length, {hidden_size}]; they are "
            f"{list(states.shape) if isinstance(states, Tensor) else type(states).__name__}."
        )
    mask = check_mask(attention_mask, states.shape[0], states.shape[1])
    rows = PackedBatch(states.shape[0], states.shape[1], mask)
    check_texts(rows)
    for keys, _ in cache.cross.values() if cache is not None else ():
        if (keys.shape[0], keys.shape[2]) != states.shape[:2]:
            raise InputError(
                f"past_key_values belongs to encoder outputs [{keys.shape[0]}, {keys.shape[2]}], but these are "
                f"{list(states.shape[:2])}; pass the cache with the encoder_outputs it was made with."
            )
        break
    return rows.pack(states).flatten(0, -2), rows  # [rows, hidden]


def check_sides(memory_rows: PackedBatch, rows: PackedBatch) -> None:
    """InputError unless the encoder and the decoder see as many texts."""
    if rows.batch != memory_rows.batch:
        raise InputError(f"the encoder saw {memory_rows.batch} texts, but decoder_input_ids has {rows.batch}.")


def check_special_ids(config: PretrainedConfig) -> None:
    """ConfigError unless each special id is absent or a whole number; several ends are a list, and -1 is for no id."""
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        value = getattr(config, name, None)
        ends = list(value) if name == "eos_token_id" and isinstance(value, (list, tuple)) else [value]
        for one in ends if value is not None else []:
            if isinstance(one, bool) or not isinstance(one, int) or not -1 <= one <= 10_000_000:
                raise ConfigError(f"{name} is {shown_value(value)}; give the id of a token, from 0, or None.")


def wants_dict(model: PreTrainedModel, return_dict: bool | None) -> bool:
    chosen = model.config.return_dict if return_dict is None else return_dict
    return chosen is not False


class EncoderDecoder(Backbone[Seq2SeqModelOutput]):
    """An encoder and a decoder that looks at it; both read the same table of tokens."""

    model_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)

    def _build(self) -> None:
        assert self.architecture.decoder is not None
        self.encoder = Stack(self.architecture.stack, "encoder.")
        tokens = self.encoder.embed.tokens if self.architecture.shared_tokens else None
        self.decoder = Stack(self.architecture.decoder, "decoder.", tokens)

    def _stacks(self) -> tuple[NamedModule, ...]:
        return (self.encoder, self.decoder) if "decoder" in self._modules else ()

    @property
    def layer_sources(self) -> dict[str, WeightSource]:
        decoder = self.architecture.decoder
        assert decoder is not None
        counts = {"encoder.": self.architecture.stack.n_blocks, "decoder.": decoder.n_blocks}
        table = expand(self.family.table(self.architecture), counts)
        own = layer_paths(self)
        return {ours: source for ours, source in table.items() if ours in own}

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed.tokens  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.embed.tokens = value
        if self.architecture.shared_tokens:
            self.decoder.embed.tokens = value

    @property
    def output_table(self) -> nn.Embedding:
        """The table of tokens that an output matrix may be tied to: the decoder's where there are two."""
        return (self.encoder if self.architecture.shared_tokens else self.decoder).embed.tokens  # type: ignore[no-any-return]

    def check_resizable(self) -> None:
        """InputError where the two sides have vocabularies of their own, so that one size says too little."""
        if not self.architecture.shared_tokens:
            raise InputError(
                "resize_token_embeddings: the encoder and the decoder have vocabularies of their own "
                "(share_encoder_decoder_embeddings is False), and tables of other sizes are not built for them."
            )

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder reads when it must say `labels` [batch, length]."""
        if not self.wraps:
            return shift_right(labels, *decoder_start(self.config))
        return wrap_right(labels, self.config.pad_token_id)

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        """`prepare_decoder_input_ids_from_labels`, as scripts for T5 call it."""
        return self.prepare_decoder_input_ids_from_labels(input_ids)

    def reads_again(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the decoder reads where it reads the encoder's text again, and its mask or None; see begin_with_text."""
        read = self.prepare_decoder_input_ids_from_labels(input_ids)
        return begin_with_text(read, check_mask(attention_mask, *input_ids.shape[:2]))

    def get_encoder(self) -> Stack:
        return self.encoder

    def get_decoder(self) -> Stack:
        return self.decoder

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
    ) -> BaseModelOutput:
        """The encoder alone, as `encoder_outputs` for any number of forward passes."""
        request = self.ask(output_hidden_states, output_attentions, "encoder.")
        taps = self.taps(request)
        batch = Batch.of(self.encoder, input_ids, attention_mask, inputs_embeds=inputs_embeds)
        x = run_stack(self.encoder, batch, taps)
        self.report(taps)
        out = BaseModelOutput(
            last_hidden_state=batch.rows.pad_hidden(x),
            hidden_states=request.hidden_states(taps),
            attentions=request.attentions(taps),
        )
        return out

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: EncoderOutputs | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqModelOutput:
        """Hidden states of the decoder, given a text for the encoder (or what the encoder said of it).

        Args:
            input_ids, attention_mask: [batch, source length].
            decoder_input_ids, decoder_attention_mask: [batch, target length].
            encoder_outputs: the result of `encode`, in place of input_ids.

        Raises:
            InputError: a missing side, or shapes that do not fit.
        """
        spec = self.architecture.decoder
        assert spec is not None
        if encoder_outputs is None:
            encoder_outputs = self.encode(
                input_ids, attention_mask, inputs_embeds, output_attentions, output_hidden_states
            )
        elif not isinstance(encoder_outputs, ModelOutput):
            if not isinstance(encoder_outputs, (tuple, list)):
                raise InputError(
                    f"encoder_outputs must be what model.encode returned, not {type(encoder_outputs).__name__}."
                )
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        if decoder_input_ids is None and decoder_inputs_embeds is None and self.shifts_input and input_ids is not None:
            decoder_input_ids, begun = self.reads_again(input_ids, attention_mask)
            decoder_attention_mask = begun if decoder_attention_mask is None else decoder_attention_mask
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise InputError("decoder_input_ids is missing: pass it, or labels=, or call generate().")
        request = self.ask(output_hidden_states, output_attentions, "decoder.", spec)
        taps = self.taps(request)
        cache = self.cache_for(past_key_values, use_cache, True)
        padded: Tensor = encoder_outputs["last_hidden_state"]  # [batch, source length, hidden]
        memory, memory_rows = cross_memory(padded, attention_mask, spec.hidden_size, cache)
        batch = Batch.of(
            self.decoder, decoder_input_ids, decoder_attention_mask, inputs_embeds=decoder_inputs_embeds, cache=cache
        )
        check_sides(memory_rows, batch.rows)
        x = run_stack(self.decoder, batch, taps, memory, memory_rows)
        self.report(taps)
        out = Seq2SeqModelOutput(
            last_hidden_state=batch.rows.pad_hidden(x),
            past_key_values=cache,
            decoder_hidden_states=request.hidden_states(taps),
            decoder_attentions=request.attentions(taps),
            cross_attentions=request.cross_attentions(taps),
            encoder_last_hidden_state=padded,
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
        )
        out.rows = batch.rows
        return out if wants_dict(self, return_dict) else out.to_tuple()  # type: ignore[return-value]

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...  # type: ignore[override]

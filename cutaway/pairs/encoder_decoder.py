"""An encoder of one family and a decoder of another that looks at it (Rothe et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from torch import Tensor

from cutaway.auto import AutoModel, AutoModelForCausalLM, check_config, config_class, read_config
from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import check_fields
from cutaway.errors import ConfigError, InputError
from cutaway.hub.argument_names import also_called
from cutaway.models.backbone import Backbone, EncoderDecoder, EncoderOutputs, check_special_ids, wants_dict
from cutaway.models.decode_step import DecodeStepper, watched
from cutaway.models.generation_mixin import CanGenerate
from cutaway.models.lm_heads import CausalLM
from cutaway.models.loading import init_module, init_std
from cutaway.models.output_request import LayerSelection
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.activations.sparse_features import AttachedSae
from cutaway.nn.activations.taps import stack_addresses
from cutaway.nn.call_context import as_part
from cutaway.nn.decoder_inputs import decoder_start, shift_right
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear
from cutaway.outputs import BaseModelOutput, ModelOutput, Seq2SeqLMOutput

if TYPE_CHECKING:
    from torch import nn

    from cutaway.models.configured import ConfiguredModel
    from cutaway.models.protocols import called_as

_SIDES = ("encoder", "decoder")


class EncoderDecoderConfig(PretrainedConfig):
    """Two configurations, `encoder` and `decoder`, each of its own family, and what the pair as a whole says."""

    model_type = "encoder-decoder"
    is_composition: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"encoder": None, "decoder": None, "is_encoder_decoder": True}
    without_effect: ClassVar[dict[str, str]] = dict.fromkeys(
        ("vocab_size", "hidden_size", "num_hidden_layers"), "the two configurations say it"
    )

    def __setattr__(self, name: str, value: object) -> None:
        if name in _SIDES and isinstance(value, Mapping):
            model_type = value.get("model_type")
            if not isinstance(model_type, str) or model_type == self.model_type:
                raise ConfigError(f"{name}.model_type is {model_type!r}; give the family of the {name}.")
            value = config_class(model_type, name).from_dict(value)
        super().__setattr__(name, value)

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PretrainedConfig, decoder_config: PretrainedConfig, **kwargs: object
    ) -> Self:
        """The configuration of a pair; the decoder's is made one with cross-attention."""
        decoder_config.is_decoder = decoder_config.add_cross_attention = True
        return cls(encoder=encoder_config, decoder=decoder_config, **kwargs)

    def side(self, name: str) -> PretrainedConfig:
        """The configuration of the "encoder" or the "decoder".

        Raises:
            ConfigError: there is none.
        """
        found = getattr(self, name)
        if not isinstance(found, PretrainedConfig):
            raise ConfigError(f"{name} is {found!r:.60}; an encoder-decoder needs the configurations of both sides.")
        return found

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """The configuration of one side where it is asked for, else this one."""
        if decoder is encoder or (decoder and encoder):
            return self
        return self.side("decoder" if decoder else "encoder")

    def to_dict(self) -> dict[str, Any]:
        """Every field with its value; of the two sides too."""
        fields = super().to_dict()
        return fields | {n: v.to_dict() for n in _SIDES if isinstance(v := fields[n], PretrainedConfig)}

    def to_diff_dict(self) -> dict[str, Any]:
        """The fields that config.json needs, of the two sides too."""
        fields = super().to_diff_dict()
        return fields | {n: v.to_diff_dict() for n in _SIDES if isinstance(v := getattr(self, n), PretrainedConfig)}


class EncoderDecoderModel(PreTrainedModel, config=EncoderDecoderConfig, prefix="encoder_decoder"):
    """A text from a text: `encoder` is a base model, `decoder` a causal language model with cross-attention.

    Where the two differ in width, `enc_to_dec_proj` leads from the one to the other.
    """

    builds_on_meta: ClassVar[bool] = True
    encoder: Backbone[Any]
    decoder: CausalLM

    if not TYPE_CHECKING:
        can_generate = CanGenerate(True)

    def __init__(
        self,
        config: EncoderDecoderConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ) -> None:
        if config is None:
            if encoder is None or decoder is None:
                raise ConfigError("EncoderDecoderModel needs config=, or encoder= and decoder=.")
            config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        super().__init__(config)
        self.saes: dict[str, AttachedSae] = {}
        if not isinstance(config, EncoderDecoderConfig):
            raise ConfigError(
                f"EncoderDecoderModel is built from an EncoderDecoderConfig, not {type(config).__name__}."
            )
        check_special_ids(config)
        check_fields(config)
        self.encoder = _checked_encoder(AutoModel.from_config(config.side("encoder")) if encoder is None else encoder)
        self.decoder = _checked_decoder(
            AutoModelForCausalLM.from_config(config.side("decoder")) if decoder is None else decoder
        )
        for side in _SIDES:  # one configuration, whoever made it
            getattr(self, side).config = config.side(side)
        width, wanted = (side.architecture.stack.hidden_size for side in (self.encoder, self.decoder))
        if width != wanted:
            self.enc_to_dec_proj = Linear(width, wanted)
            if not self.enc_to_dec_proj.weight.is_meta:
                init_module(self.enc_to_dec_proj, init_std(self.decoder))

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | Path | None = None,
        decoder_pretrained_model_name_or_path: str | Path | None = None,
        **kwargs: Any,
    ) -> Self:
        """A pair of two checkpoints; cross-attention that the decoder's one lacks is drawn, and named in the log.

        Args:
            **kwargs: `encoder_...` and `decoder_...` are arguments of the two loads (`encoder_model`, `decoder_model`:
                a model in the place of a checkpoint), all others fields of the pair's configuration.
        """
        given = {side: {k: kwargs.pop(k) for k in list(kwargs) if k.startswith(f"{side}_")} for side in _SIDES}
        options = {side: {k.removeprefix(f"{side}_"): v for k, v in given[side].items()} for side in _SIDES}
        # of the pair itself, and no argument of a load
        kwargs |= {
            n: options["decoder"].pop("start_token_id") for n in ("decoder_start_token_id",) if n in given["decoder"]
        }
        names = dict(
            zip(_SIDES, (encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path), strict=True)
        )
        models: dict[str, PreTrainedModel] = {}
        for side, kind in (("encoder", AutoModel), ("decoder", AutoModelForCausalLM)):
            own, name = options[side], names[side]
            model = own.pop("model", None)
            if model is None:
                if name is None:
                    raise ConfigError(f"from_encoder_decoder_pretrained needs a name for the {side}, or {side}_model=.")
                config = own.pop("config", None)
                config = read_config(name) if config is None else config
                check_config(config)
                is_decoder = side == "decoder"
                if is_decoder or getattr(config, "is_decoder", False):
                    config.is_decoder = config.add_cross_attention = is_decoder
                model = kind.from_pretrained(name, config=config, **own)
            models[side] = model
        pair = EncoderDecoderConfig.from_encoder_decoder_configs(
            models["encoder"].config, models["decoder"].config, **kwargs
        )
        return cls(pair, models["encoder"], models["decoder"]).eval()

    @classmethod
    def part_classes(cls, config: EncoderDecoderConfig) -> Iterator[tuple[str, type[Any], PretrainedConfig]]:
        """(what stands before its names, class, configuration) of the models that this one is made of."""
        for side, kind in (("encoder", AutoModel), ("decoder", AutoModelForCausalLM)):
            own = config.side(side)
            yield f"{side}.", kind.class_for(own), own

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def architecture(self) -> Architecture:
        writer = self.decoder.architecture
        return Architecture(
            self.encoder.architecture.stack,
            decoder=writer.stack,
            init_std=writer.init_std,
            tied_output=writer.tied_output,
            output_scale=writer.output_scale,
            output_cap=writer.output_cap,
        )

    @property
    def output_model(self) -> ConfiguredModel:
        return self.decoder

    def addresses(self) -> list[str]:
        """Every activation of this model that has an address, in the order in which it is computed."""
        stacks = zip(_SIDES, (self.encoder, self.decoder), strict=True)
        own = [a for side, model in stacks for a in stack_addresses(model.architecture.stack, f"{side}.")]
        return [*own, *(a for sae in self.saes.values() for a in sae.addresses), "logits"]

    def get_encoder(self) -> Backbone[Any]:
        return self.encoder

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.decoder.set_output_embeddings(value)

    def tie_weights(self) -> None:
        self.decoder.tie_weights()

    @also_called(new_num_tokens="n")
    def resize_token_embeddings(
        self, n: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> NoReturn:
        """Refused: each side has a table of its own."""
        raise InputError(
            "an encoder-decoder of two families has two tables of tokens: call "
            "model.encoder.resize_token_embeddings(n) or model.decoder.resize_token_embeddings(n)."
        )

    # -- running it --------------------------------------------------------------------------------------------------

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder reads when it must say `labels` [batch, length]."""
        return shift_right(labels, *decoder_start(self.config))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]."""
        return self.decoder.logits(hidden)

    def decode_stepper(self) -> DecodeStepper | None:
        """Runs single steps of decoding; None where a subclass has its own `forward`, or somebody watches modules."""
        if type(self).forward is not EncoderDecoderModel.forward or watched(self):
            return None
        stepper = self.decoder.decode_stepper()
        if stepper is not None:
            stepper.base = self  # whose recordings and edits a step would have to show
        return stepper

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        token_type_ids: Tensor | None = None,
    ) -> BaseModelOutput:
        """The encoder alone, as `encoder_outputs` for any number of forward passes."""
        with as_part(self.encoder, self, "encoder."):
            out = self.encoder(
                input_ids, attention_mask, token_type_ids, inputs_embeds=inputs_embeds, use_cache=False,
                output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            )  # fmt: skip
        return BaseModelOutput(out.last_hidden_state, out.get("hidden_states"), out.get("attentions"))

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
        token_type_ids: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
    ) -> Seq2SeqLMOutput:
        """logits [batch, target length, vocabulary]; labels [batch, target length] also serve as decoder_input_ids.

        token_type_ids are the encoder's. return_logits=False: the loss alone, for which only the logits of labelled
        places are computed. With num_items_in_batch the loss is the sum over labelled places divided by that number.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encode(
                input_ids, attention_mask, inputs_embeds, output_attentions, output_hidden_states, token_type_ids
            )
        elif not isinstance(encoder_outputs, ModelOutput):
            if not isinstance(encoder_outputs, (tuple, list)):
                raise InputError(
                    f"encoder_outputs must be what model.encode returned, not {type(encoder_outputs).__name__}."
                )
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise InputError("decoder_input_ids is missing: pass it, or labels=, or call generate().")
        states = padded = encoder_outputs["last_hidden_state"]  # [batch, source length, hidden]
        if "enc_to_dec_proj" in self._modules and isinstance(padded, Tensor):
            width = self.enc_to_dec_proj.in_features
            if padded.dim() != 3 or padded.shape[2] != width:
                raise InputError(
                    f"encoder_outputs must hold hidden states [batch, length, {width}]; they are {list(padded.shape)}."
                )
            states = self.enc_to_dec_proj(padded)
        with as_part(self.decoder.base, self, "decoder."):
            out = self.decoder(
                decoder_input_ids, decoder_attention_mask, inputs_embeds=decoder_inputs_embeds,
                past_key_values=past_key_values, use_cache=use_cache, output_attentions=output_attentions,
                output_hidden_states=output_hidden_states, return_dict=True, logits_to_keep=logits_to_keep,
                return_logits=return_logits, shift_labels=labels, num_items_in_batch=num_items_in_batch,
                encoder_hidden_states=states, encoder_attention_mask=attention_mask,
            )  # fmt: skip
        result = Seq2SeqLMOutput(
            loss=out.get("loss"),
            logits=out.get("logits"),
            past_key_values=out.get("past_key_values"),
            decoder_hidden_states=out.get("hidden_states"),
            decoder_attentions=out.get("attentions"),
            cross_attentions=out.get("cross_attentions"),
            encoder_last_hidden_state=padded,
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()  # type: ignore[return-value]

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...


def _checked_encoder(model: PreTrainedModel) -> Backbone[Any]:
    if not isinstance(model, Backbone) or isinstance(model, EncoderDecoder):
        raise ConfigError(
            f"{type(model).__name__} cannot be the encoder: it must be a base model with one stack, without a head."
        )
    return model


def _checked_decoder(model: PreTrainedModel) -> CausalLM:
    if not isinstance(model, CausalLM) or not model.architecture.stack.cross:
        raise ConfigError(
            f"{type(model).__name__} cannot be the decoder: it must be a causal language model that was built with "
            "is_decoder=True and add_cross_attention=True, in a family that has such decoders (BERT, RoBERTa and their "
            "kin, ELECTRA, GPT-2)."
        )
    return model

"""`GenerationMixin`: the methods of a model that writes, under upstream's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import torch
from torch import Tensor, nn

from cutaway.errors import GenerationError, InputError
from cutaway.nn.forward_inputs import NEEDLESS, accepted

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig
    from cutaway.generate.results import GenerateOutput
    from cutaway.generate.settings import GenerationConfig
    from cutaway.generate.streaming import BaseStreamer
    from cutaway.models.protocols import GenerativeModel, LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike


class CanGenerate:
    """`can_generate()`, which scripts ask of a model and, as upstream has it, of its class as well.

    Args:
        of_class: what the class answers.
        of_model: what a model answers, where its configuration decides.
    """

    def __init__(self, of_class: bool, of_model: Callable[[Any], bool] | None = None) -> None:
        self.of_class, self.of_model = of_class, of_model
        self.__doc__ = "Whether `generate` works on this model, or on models of this class."

    def __get__(self, model: object, owner: type) -> Callable[[], bool]:
        answer = self.of_class if model is None or self.of_model is None else self.of_model(model)
        return lambda: answer


class GenerationMixin:
    """What every model here can be asked about writing; `can_generate()` says whether it can."""

    if TYPE_CHECKING:
        config: PretrainedConfig

        @property
        def is_encoder_decoder(self) -> bool: ...

        @classmethod
        def can_generate(cls) -> bool: ...  # what reading the descriptor gives; not every checker follows it
    else:
        can_generate = CanGenerate(False)

    @property
    def generation_config(self) -> GenerationConfig:
        """The settings that `generate` starts from: those of generation_config.json, or of the config without it."""
        own: GenerationConfig | None = self.__dict__.get("_generation_config")
        if own is None:
            from cutaway.generate.settings import stored_settings

            made = stored_settings(cast("LanguageModel", self))
            own = self.__dict__.setdefault("_generation_config", made)  # two threads get the same one
        return own

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self.__dict__["_generation_config"] = value

    @overload
    def generate(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *,
        generation_config: GenerationConfig | None = None, streamer: BaseStreamer | None = None,
        tokenizer: TokenizerLike | None = None, return_dict_in_generate: Literal[False] | None = None,
        **settings: object,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def generate(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *,
        generation_config: GenerationConfig | None = None, streamer: BaseStreamer | None = None,
        tokenizer: TokenizerLike | None = None, return_dict_in_generate: Literal[True], **settings: object,
    ) -> GenerateOutput: ...  # fmt: skip

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Continue a text, or answer it: see `cutaway.generate.generate`.

        `custom_generate`: a function (model, *args, **kwargs) that generates in its place. A name of a repository
        whose code would be run is refused.
        """
        if not self.can_generate():
            raise GenerationError(
                f"{type(self).__name__} cannot generate text; load the checkpoint with AutoModelForCausalLM or "
                "AutoModelForSeq2SeqLM."
            )
        custom = kwargs.pop("custom_generate", None)
        if custom is not None:
            if not callable(custom):
                raise GenerationError(
                    f"custom_generate={custom!r}: code from a repository or a folder is never run. Pass a function "
                    "that takes (model, *args, **kwargs)."
                )
            return custom(self, *args, **kwargs)
        from cutaway.generate import generate  # a model that only classifies does not pay for it

        replaced = self.__dict__.get("prepare_inputs_for_generation")
        ids = args[0] if args else kwargs.get("input_ids")
        if replaced is None or ids is None or self.is_encoder_decoder or kwargs.get("inputs_embeds") is not None:
            return generate(cast("GenerativeModel", self), *args, **kwargs)
        # PEFT puts its own in the model's place, which sets the vectors of a learned prompt before those of the ids
        mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
        prepared = replaced(ids, attention_mask=mask)
        if prepared.get("inputs_embeds") is None:
            return generate(cast("GenerativeModel", self), *args, **kwargs)
        mask = prepared.get("attention_mask")
        kwargs |= {"input_ids": None, "attention_mask": None if mask is None else mask.long()}
        out = generate(cast("GenerativeModel", self), **kwargs, inputs_embeds=prepared["inputs_embeds"])
        new: Tensor = out if isinstance(out, Tensor) else out.sequences
        sequences = torch.cat((ids.repeat_interleave(new.shape[0] // ids.shape[0], 0), new), 1)
        if isinstance(out, Tensor):
            return sequences
        out.sequences = sequences
        return out

    @torch.no_grad()
    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """The score of each generated token, [sequences, steps]; 0 after the end of a beam.

        Args:
            sequences: ids [sequences, columns] of `generate`.
            scores: per step [beams, vocabulary], as `output_scores` gives them.
            beam_indices: [sequences, steps], which of the beams each token was chosen from; None without beams.
            normalize_logits: make the scores log-probabilities first.
        """
        if not scores:
            raise InputError("scores is empty: generate with output_scores=True and return_dict_in_generate=True.")
        table = torch.stack(scores, 1)  # [beams, steps, vocabulary]
        if normalize_logits:
            table = table.log_softmax(-1)
        if beam_indices is None:
            beam_indices = torch.arange(table.shape[0], device=table.device)[:, None].expand(-1, table.shape[1])
        ended = beam_indices < 0
        steps = int((~ended).sum(-1).max())
        ended, beams = ended[:, :steps], beam_indices[:, :steps].clamp(min=0)
        tokens = sequences[:, sequences.shape[1] - len(scores) :][:, :steps]
        places = torch.arange(steps, device=table.device).expand_as(beams)
        return table[beams, places, tokens.clamp(max=table.shape[2] - 1)].masked_fill(ended, 0.0)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of the next pass, for a loop of one's own: what the cache does not hold yet.

        Our `generate` has its own steps and does not call this.
        """
        seen = 0 if past_key_values is None else past_key_values.seen
        takes = accepted(type(cast(nn.Module, self)).forward, innermost=True) or frozenset()
        kwargs = {name: value for name, value in kwargs.items() if name not in NEEDLESS or name in takes}
        inputs: dict[str, Any] = {"past_key_values": past_key_values, "use_cache": kwargs.get("use_cache", True)}
        inputs["attention_mask"] = attention_mask
        ids = input_ids[:, seen:]
        if self.is_encoder_decoder:
            return {**kwargs, **inputs, "decoder_input_ids": ids}
        if inputs_embeds is not None and not seen:
            return {**kwargs, **inputs, "inputs_embeds": inputs_embeds}
        beside = {k: kwargs.pop(k) for k in ("position_ids", "token_type_ids") if kwargs.get(k) is not None}
        inputs |= {k: v[:, seen:] for k, v in beside.items()}
        return {**kwargs, **inputs, "input_ids": ids.contiguous()}

    def _validate_model_kwargs(self, model_kwargs: Mapping[str, Any]) -> None:
        """`generate` checks its own arguments."""

    def _update_model_kwargs_for_generation(
        self,
        outputs: Mapping[str, Any],
        model_kwargs: dict[str, Any],
        is_encoder_decoder: bool | None = None,
        num_new_tokens: int = 1,
    ) -> dict[str, Any]:
        """The arguments of a loop of one's own after a pass: its cache, and its masks longer by the new tokens."""
        kwargs = {**model_kwargs, "past_key_values": outputs.get("past_key_values")}
        mask = "decoder_attention_mask" if self.is_encoder_decoder else "attention_mask"
        for name in (mask, "token_type_ids"):
            if (rows := kwargs.get(name)) is not None:
                new = (
                    rows.new_ones(rows.shape[0], num_new_tokens)
                    if name == mask
                    else rows[:, -1:].repeat(1, num_new_tokens)
                )
                kwargs[name] = torch.cat((rows, new), 1)  # [batch, columns + new]
        if (columns := kwargs.get("cache_position")) is not None:
            kwargs["cache_position"] = columns[-1:] + torch.arange(1, num_new_tokens + 1, device=columns.device)
        return kwargs

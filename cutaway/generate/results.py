"""What `generate` returns with `return_dict_in_generate=True`, and how the steps are gathered into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.generate.plan import Plan
from cutaway.generate.sampling import MINUS_INF
from cutaway.outputs import ABSENT, Layers, ModelOutput

if TYPE_CHECKING:
    from cutaway.nn.kv_cache import Cache


@dataclass(frozen=True)
class Alternative:
    """A token that could have stood in a place. text: what it would add there, None without a tokenizer."""

    id: int
    text: str | None
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """One token of a text, as the model predicts it from the tokens before.

    Attributes:
        id: the token.
        text: the characters that are whole with it, "" while one is not; None without a tokenizer.
        logprob: the natural logarithm of its probability, before any rule, temperature or filter of the call. None for
            the first token of a text, which nothing predicts.
        rank: 1 for the likeliest token of the vocabulary, 2 for the next; None for the first token.
        top: the likeliest tokens there, best first, as many as were asked for.
    """

    id: int
    text: str | None
    logprob: float | None
    rank: int | None
    top: tuple[Alternative, ...] = ()


@dataclass(repr=False)
class GenerateDecoderOnlyOutput(ModelOutput):
    """Answers of a decoder. B = prompts x num_return_sequences, P = columns of the prompt, steps = generated columns.

    sequences: [B, P + steps], prompt included, ended rows filled with the padding id.
    scores: per step [B, V], the logits that the token was chosen from. For a sequence that has ended: 0 for the padding
        id and -inf for all others, so that probabilities of whole sequences come out right.
    logits: per step [B, V], as the model gave them (float32); 0 for a sequence that has ended.
    attentions: per step and layer, [B, heads, P, P] in the first step, then [B, heads, 1, P + step]; columns are those
        of `sequences`; 0 at padding and for sequences that have ended. With a list of layers: those, by layer number.
    hidden_states: per step and layer (embeddings first), [B, P, H] in the first step, then [B, 1, H].
        With use_cache=False each step runs the whole text: both then have P + step rows in place of the 1.
    past_key_values: the cache at the end, for the sequences that were still running.
    prompt_logprobs, logprobs: of each sequence the tokens of its prompt and of its answer (its end token included, no
        padding), as `cutaway.generate.TokenLogprob`: by the model alone, before rules and temperature.
    """

    sequences: Tensor = ABSENT
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    attentions: tuple[tuple[Tensor, ...], ...] | None = None
    hidden_states: tuple[tuple[Tensor, ...], ...] | None = None
    past_key_values: Cache | None = None
    prompt_logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None
    logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None


@dataclass(repr=False)
class GenerateEncoderDecoderOutput(ModelOutput):
    """Answers of an encoder-decoder; P = columns of the decoder's prompt, S = columns of the encoder's text.

    As `GenerateDecoderOnlyOutput`, with decoder_attentions and decoder_hidden_states in the place of attentions and
    hidden_states, cross_attentions per step and layer ([B, heads, P or 1, S]), and of the one run of the encoder, per
    layer: encoder_attentions [B, heads, S, S] and encoder_hidden_states [B, S, H].
    """

    sequences: Tensor = ABSENT
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[tuple[Tensor, ...], ...] | None = None
    cross_attentions: tuple[tuple[Tensor, ...], ...] | None = None
    decoder_hidden_states: tuple[tuple[Tensor, ...], ...] | None = None
    past_key_values: Cache | None = None
    prompt_logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None
    logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None


@dataclass(repr=False)
class GenerateBeamDecoderOnlyOutput(GenerateDecoderOnlyOutput):
    """Answers of beam search; N = prompts x num_beams, and B = prompts x num_return_sequences in `sequences` alone.

    sequences_scores: [B], log-probability / generated tokens ** length_penalty.
    beam_indices: [B, steps], which of the N beams each token was chosen from; -1 after the end. The token of step t has
        the score `scores[t][beam_indices[:, t]]`.
    scores: per step [N, V], log-probabilities after the rules. logits, attentions, hidden_states: of the N beams; 0 for
        beams of prompts that are settled.
    """

    sequences_scores: Tensor | None = None
    beam_indices: Tensor | None = None


@dataclass(repr=False)
class GenerateBeamEncoderDecoderOutput(GenerateEncoderDecoderOutput):
    """As `GenerateBeamDecoderOnlyOutput`, for an encoder-decoder."""

    sequences_scores: Tensor | None = None
    beam_indices: Tensor | None = None


GenerateOutput = GenerateDecoderOnlyOutput | GenerateEncoderDecoderOutput


def each_layer(value: tuple[Tensor, ...] | Layers, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...] | Layers:
    """`value` (a tuple of layers, or `Layers`) with `change` applied to each layer's tensor."""
    if isinstance(value, Layers):
        return Layers({n: change(t) for n, t in value.items()}, value.total, value.what)
    return tuple(change(t) for t in value)


def scatter_rows(tensor: Tensor, rows: Tensor | None, total: int) -> Tensor:
    """The running rows [A, ...] put at their places `rows` [A] of [total, ...]; 0 elsewhere."""
    if rows is None:
        return tensor
    return tensor.new_zeros((total, *tensor.shape[1:])).index_copy_(0, rows, tensor)


class StepRecorder:
    """Gathers what the call asked to see, step by step."""

    def __init__(self, plan: Plan, encoder_decoder: bool) -> None:
        self.plan, self.encoder_decoder = plan, encoder_decoder
        side = "decoder_" if encoder_decoder else ""
        self.per_step: dict[str, list[Any]] = {}
        self.encoder: dict[str, Any] = {}
        if plan.output_attentions is not False:
            self.per_step[f"{side}attentions"] = []
            if encoder_decoder:
                self.per_step["cross_attentions"] = []
                self.encoder["encoder_attentions"] = None
        if plan.output_hidden_states is not False:
            self.per_step[f"{side}hidden_states"] = []
            if encoder_decoder:
                self.encoder["encoder_hidden_states"] = None
        self.scores: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.beams: dict[str, Tensor] = {}

    @property
    def scores_only(self) -> bool:
        """Whether the model's own outputs, after the first step, hold nothing that is gathered."""
        return not self.per_step

    def add(
        self,
        outputs: ModelOutput,
        logits: Tensor,
        scores: Tensor,
        rows: Tensor | None,
        total: int,
        copies: Tensor | None,
    ) -> None:
        """One step.

        Args:
            outputs: the model's, for the rows that it ran.
            logits, scores: [A, V] of the running sequences.
            rows: [A] their places among all sequences, None where all run.
            total: how many sequences there are.
            copies: [total] the prompt of each sequence, in a step that ran each prompt once for several sequences.
        """
        if self.plan.output_logits:
            self.logits.append(scatter_rows(logits, rows, total))
        if self.plan.output_scores:
            placed = scatter_rows(scores, rows, total)
            if rows is not None:
                ended = torch.ones(total, dtype=torch.bool, device=scores.device).index_fill_(0, rows, False)
                placed[ended] = MINUS_INF
                if self.plan.pad < scores.shape[-1]:
                    placed[ended, self.plan.pad] = 0.0
            self.scores.append(placed)

        def place(tensor: Tensor) -> Tensor:
            return tensor[copies] if copies is not None else scatter_rows(tensor, rows, total)

        for name, value in self.encoder.items():
            if value is None:
                self.encoder[name] = each_layer(outputs[name], lambda t: t if copies is None else t[copies])
        for name, steps in self.per_step.items():
            steps.append(each_layer(outputs[name], place))

    def output(self, sequences: Tensor, cache: Cache | None, logprobs: dict[str, Any]) -> GenerateOutput:
        """All that was gathered; `logprobs`: the fields of log-probabilities."""
        fields: dict[str, Any] = {name: tuple(steps) for name, steps in self.per_step.items()}
        fields |= {**self.encoder, **self.beams, **logprobs}
        if self.plan.output_scores:
            fields["scores"] = tuple(self.scores)
        if self.plan.output_logits:
            fields["logits"] = tuple(self.logits)
        kind: type[GenerateOutput] = GenerateDecoderOnlyOutput
        if self.plan.beams is not None:
            kind = GenerateBeamEncoderDecoderOutput if self.encoder_decoder else GenerateBeamDecoderOnlyOutput
        elif self.encoder_decoder:
            kind = GenerateEncoderDecoderOutput
        return kind(sequences=sequences, past_key_values=cache, **fields)

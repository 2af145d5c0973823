"""Search: the loop that asks a model for the next tokens until every sequence has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cutaway.adapters.mixin import Adaptable
from cutaway.errors import GenerationError
from cutaway.generate import sampling
from cutaway.generate.cache_reuse import (
    cached_lengths,
    check_sources,
    common_prefix_length,
    continue_from,
    positions_are_fixed,
    real_ids,
    shared_prefix_length,
    source_ids,
)
from cutaway.generate.logits_processors import LogitsProcessors
from cutaway.generate.plan import Plan
from cutaway.generate.prompt import Prompt
from cutaway.generate.results import StepRecorder
from cutaway.generate.rng import SamplingRNG
from cutaway.generate.stopping import Deadline, EndTokens, StopStrings
from cutaway.nn.call_context import Evaluation
from cutaway.nn.kv_cache import Cache
from cutaway.outputs import CausalLMOutputWithPast, Seq2SeqLMOutput

if TYPE_CHECKING:
    from cutaway.models.protocols import DecodeStepper, GenerativeModel
    from cutaway.tokenization.protocols import TokenizerLike


@dataclass(slots=True)
class Step:
    """The newest tokens: `tokens` [A] of the sequences `rows` [A] (None: all), `ended` bool [A] (None: none has)."""

    rows: Tensor | None
    tokens: Tensor
    ended: Tensor | None


def reads_both_ways(model: object) -> bool:
    """Whether a model writes, though in its pass over a text each word sees itself and those after it (XLNet).

    The logits of such a pass say nothing of a next token: `next_tokens` asks for that at a place of its own.
    """
    return hasattr(model, "next_tokens")


class Search:
    """One call of generate, a step at a time: `while not search.done: search.step()`.

    A sequence that ends leaves the batch, so that the others no longer pay for it. `sequences` is written in place and
    never grows; `width` counts its columns that are filled.
    """

    def __init__(
        self, model: GenerativeModel, prompt: Prompt, plan: Plan, tokenizer: TokenizerLike | None = None
    ) -> None:
        self.model, self.prompt, self.plan = model, prompt, plan
        # what gives the next token's logits: the model's call, but where a text is not continued by reading it (XLNet)
        self.continuation: Callable[..., CausalLMOutputWithPast | Seq2SeqLMOutput] = getattr(
            model, "next_tokens", model
        )
        device, prompts = prompt.ids.device, prompt.ids.shape[0]
        self.total = prompts * plan.copies
        self.copies = None if plan.copies == 1 else torch.arange(prompts, device=device).repeat_interleave(plan.copies)
        ids = prompt.ids if self.copies is None else prompt.ids[self.copies]
        mask = prompt.mask if prompt.mask is None or self.copies is None else prompt.mask[self.copies]
        self.width = ids.shape[1]
        self.unnamed = self.width if prompt.unnamed else 0  # columns that hold places of vectors, and no ids
        self.sequences = torch.full((self.total, plan.max_length), plan.pad, device=device)
        self.sequences[:, : self.width] = ids
        self.rows: Tensor | None = None  # [A] places of the running sequences; None while all run
        self.done = False
        self.lengths = [0] * self.total  # new tokens of each sequence that has ended
        self.unfinished: list[int] = []  # places of the sequences that were cut before they had the form asked for
        self.newest = ids[:, -1]  # [A]
        self.cache: Cache | None = None
        self.source_ids: list[list[int]] | None = None  # of each prompt, until the cache that this call fills has them
        self.encoded = prompt.encoder_outputs
        self.encoder_mask = prompt.encoder_mask
        self.mask: Tensor | None = None  # [total, max_length], where the whole text is run in every step
        if mask is not None and not plan.use_cache:
            self.mask = torch.ones_like(self.sequences)
            self.mask[:, : self.width] = mask
        self.evaluating = Evaluation(cast(nn.Module, model))  # dropout is off while the model runs, whatever its mode
        self.rules = LogitsProcessors(model, prompt, plan, tokenizer, self.evaluating)
        self.ends = EndTokens(plan.eos, device) if plan.eos else None
        self.stops: StopStrings | None = None
        if plan.stop_strings:
            assert tokenizer is not None  # the plan asks for one
            self.stops = StopStrings(plan.stop_strings, tokenizer, self.contexts())
        seeds = None
        if plan.seed is not None:
            seeds = [seed + copy for seed in plan.seed for copy in range(plan.copies)]
        self.rng = SamplingRNG(seeds, device) if plan.do_sample else None
        self.recorder = StepRecorder(plan, model.is_encoder_decoder) if plan.return_dict else None
        self.asked: dict[str, Any] = {
            "output_attentions": plan.output_attentions,
            "output_hidden_states": plan.output_hidden_states,
            "use_cache": plan.use_cache,
            "logits_to_keep": 1,
            "return_dict": True,
        }
        self.stepper: DecodeStepper | None = None
        # the cache holds the prompt: the next step asks for a stepper, which the first token does not wait for
        self.asks_for_stepper = False
        self.logits_buffer: Tensor | None = None
        self.has_own_logits = False  # whether nobody else has the logits of this step
        self.deadline = Deadline(plan.limits)
        self.adapters: tuple[str | None, ...] | None = None  # of each prompt; None: what acts, acts

    def contexts(self) -> list[list[int]]:
        """The last tokens of each sequence's prompt, which its answer is read after; none for an encoder-decoder."""
        if self.model.is_encoder_decoder or self.prompt.unnamed:
            return [[] for _ in range(self.total)]
        return [[*ids] for ids in real_ids(self.prompt) for _ in range(self.plan.copies)]

    def step(self) -> Step:
        """Runs the model once and appends one token to every running sequence."""
        with torch.no_grad(), self.adapted():
            return self.advance()

    def advance(self) -> Step:
        """`step`, with the adapters of the running sequences at work."""
        self.has_own_logits = False
        with self.evaluating():
            outputs = self.run()
        first = self.width == self.plan.prompt_columns
        logits = self.to_float32(outputs.logits[:, -1])  # [A, V]
        copies = self.copies if first else None
        if copies is not None:
            logits = logits[copies]
            self.spread_state(copies)
        tokens, scores = self.choose(self.process(logits, in_place=self.has_own_logits))
        if self.recorder is not None:
            self.recorder.add(outputs, logits, scores, self.rows, self.total, copies)
        if self.rows is None:
            self.sequences[:, self.width] = tokens
        else:
            self.sequences[self.rows, self.width] = tokens
        self.rules.add(tokens)
        self.width += 1
        self.newest = tokens
        step = Step(self.rows, tokens, self.ended(tokens))
        self.drop_finished(step.ended)
        return step

    def to_float32(self, logits: Tensor) -> Tensor:
        """The logits [A, V] in float32; where nobody else will see them, in the memory of the step before."""
        if logits.dtype == torch.float32 or self.recorder is not None or self.rules.steps or self.plan.rules.criteria:
            return logits.float()
        if self.logits_buffer is None or self.logits_buffer.shape[0] < logits.shape[0]:
            self.logits_buffer = torch.empty_like(logits, dtype=torch.float32)
        return self.logits_buffer[: logits.shape[0]].copy_(logits)

    def run(self) -> CausalLMOutputWithPast | Seq2SeqLMOutput:
        """The model's outputs for the running sequences; logits [A, 1, V].

        A step that nobody looks into, or only where it can be seen as it runs, gives its logits alone.
        """
        if self.can_step():
            assert self.cache is not None and self.stepper is not None
            memory = None if self.encoded is None else self.encoded[0]
            self.has_own_logits = self.recorder is None and self.stepper.is_unobserved
            return CausalLMOutputWithPast(
                logits=self.stepper(self.newest[:, None], self.cache, memory, self.encoder_mask)
            )
        runs_text = self.cache is None
        if runs_text and self.width == self.plan.prompt_columns:
            rest = self.continue_answer() if self.model.is_encoder_decoder else self.reuse_cache()
            ids, mask = (self.prompt.ids, self.prompt.mask) if rest is None else (rest, None)
        elif runs_text:
            ids = self.sequences[:, : self.width] if self.rows is None else self.sequences[self.rows, : self.width]
            mask = None if self.mask is None else self.mask[: ids.shape[0], : self.width]
        else:
            ids, mask = self.newest[:, None], None
        inputs = dict(self.asked)
        if self.cache is not None:
            inputs["past_key_values"] = self.cache
        begins = runs_text and self.width == self.plan.prompt_columns and self.prompt.embeds is not None
        if begins and not self.model.is_encoder_decoder:
            assert self.prompt.embeds is not None
            n_seen = 0 if self.plan.past is None else self.plan.past.seen  # of the vectors, taken to be their beginning
            if self.plan.past is not None:
                inputs["past_key_values"] = self.plan.past
            outputs: CausalLMOutputWithPast | Seq2SeqLMOutput = self.model(
                inputs_embeds=self.prompt.embeds[:, n_seen:], attention_mask=None if n_seen else mask, **inputs
            )
        elif not self.model.is_encoder_decoder:
            outputs = self.continuation(input_ids=ids, attention_mask=mask, **inputs)
        else:
            if self.encoded is None and self.prompt.embeds is not None:
                inputs["inputs_embeds"] = self.prompt.embeds
            elif self.encoded is None:
                inputs["input_ids"] = self.prompt.encoder_ids
            else:
                inputs["encoder_outputs"] = self.encoded
            outputs = self.model(
                attention_mask=self.encoder_mask, decoder_input_ids=ids, decoder_attention_mask=mask, **inputs
            )
            if self.encoded is None and isinstance(outputs, Seq2SeqLMOutput):
                self.encoded = (outputs.encoder_last_hidden_state,)
        if self.plan.use_cache:
            self.cache = outputs.past_key_values
            if self.source_ids is not None and isinstance(self.cache, Cache):  # from here on it moves them itself
                self.cache.source_ids, self.source_ids = self.source_ids, None
            self.asks_for_stepper = runs_text and self.is_unobserved
        return outputs

    def can_step(self) -> bool:
        """Whether the next token can be had of a stepper, which is made for the second one."""
        if self.asks_for_stepper:
            self.asks_for_stepper, self.stepper = False, self.model.decode_stepper()
        return self.stepper is not None and self.stepper.shows_all

    def continue_answer(self) -> Tensor | None:
        """What the call's cache of an encoder-decoder does not hold of the answers so far, [B, rest]; None for all.

        Where the cache knows its tokens, what they have in common with the answers is kept.

        Raises:
            GenerationError: its texts are not shorter than these answers, or it was filled from other sources.
        """
        past, ids = self.plan.past, self.prompt.ids
        sources = source_ids(self.prompt)
        if past is None or past.buffer is None:
            self.cache, self.source_ids = past, sources
            return None
        shown = all(mask is None or bool(mask.all()) for mask in (self.prompt.mask, past.columns))
        if (past.batch, self.plan.copies) != (len(ids), 1) or not 0 < past.seen < ids.shape[1] or not shown:
            raise GenerationError(
                f"past_key_values holds {past.seen} tokens of {past.batch} answers, and decoder_input_ids is "
                f"{list(ids.shape)}: pass the answers so far, at least one token longer and without padding, one "
                "search each; or leave past_key_values out, and pass encoder_outputs to spare the encoder."
            )
        if past.source_ids is not None and sources is not None:
            check_sources(past.source_ids, sources)
        if past.ids is not None:
            kept = min(map(common_prefix_length, past.ids, ids.tolist()))
            if kept == 0:
                self.source_ids = sources
                return None  # another first token: all of it is computed anew, into a cache of its own
            past.crop(kept)
        self.cache = past
        return ids[:, past.seen :]

    def reuse_cache(self) -> Tensor | None:
        """What of the prompts is left to run, [B, rest], after what the cache holds already; None for all of them.

        Without a cache from the call, what all prompts begin with is run once, if that is worth it and nobody would see
        that the prompts are not run as they are.
        """
        past = self.plan.past
        if self.prompt.embeds is not None:
            return None
        if past is not None and past.buffer is None:
            self.cache = past  # a new one, to be filled
            return None
        if past is None and (not self.plan.use_cache or len(self.prompt.ids) == 1 or not self.is_unobserved):
            return None
        if any(self.prompt.hidden):
            return None  # words have other places than in the row of those that are shown
        texts = real_ids(self.prompt)
        if past is not None:
            kept = cached_lengths(past, texts)
            if isinstance(self.model, Adaptable):
                self.model.check_cache(past, len(texts))
            if (past.batch, self.plan.copies) != (len(texts), 1):
                past = past.copy()  # each text of it will be several: the caller's stays as it is
        else:
            n = shared_prefix_length(texts) if len(set(self.adapters or (None,))) == 1 else 0
            self.stepper = self.model.decode_stepper() if n else None
            if self.stepper is None or not self.stepper.is_unobserved or not positions_are_fixed(self.model):
                return None
            inputs = {**self.asked, "input_ids": torch.tensor([texts[0][:n]], device=self.sequences.device)}
            past, kept = self.model(**inputs).past_key_values, [n] * len(texts)
        rest = continue_from(past, kept, texts, self.sequences.device)
        if rest is not None:
            self.cache = past
        return rest

    @property
    def is_unobserved(self) -> bool:
        """Whether nothing is gathered of a step but its scores."""
        return self.recorder is None or self.recorder.scores_only

    def close(self) -> None:
        """Tells the cache which tokens it holds, so that a later call can go on from it."""
        self.release()
        if self.prompt.embeds is not None and not self.model.is_encoder_decoder:
            return  # nobody knows the ids of what it holds
        if isinstance(self.cache, Cache) and self.cache.batch:
            rows = range(self.total) if self.rows is None else self.rows.tolist()
            pads = [n for n in self.prompt.padding for _ in range(self.plan.copies)]
            lengths = self.cache.lengths.tolist()
            if len(lengths) == len(rows) and not self.cache.scattered:
                self.cache.ids = [
                    self.sequences[row, pads[row] : pads[row] + n].tolist()
                    for row, n in zip(rows, lengths, strict=True)
                ]

    def release(self) -> None:
        """Leaves the steps that were captured to the model's next call."""
        if self.stepper is not None:
            self.stepper.release()
            self.stepper = None

    def spread_state(self, copies: Tensor) -> None:
        """Goes on with several sequences for each prompt, after the prompts were run once."""
        if self.cache is not None:
            self.cache.select(copies)
        self.select_encoded(copies)

    def select_encoded(self, index: Tensor) -> None:
        if self.encoded is not None:
            self.encoded = (self.encoded[0][index],)
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[index]

    def process(self, logits: Tensor, *, in_place: bool = False) -> Tensor:
        """The scores [A, V] of the next token before any choice by chance, in upstream's order of rules.

        in_place: the logits may be written into.
        """
        return self.rules.apply(logits, self.sequences[:, self.unnamed : self.width], self.rows, in_place=in_place)

    def warp(self, scores: Tensor) -> Tensor:
        """The scores [A, V or fewer] with what sampling rules out at -inf."""
        plan = self.plan
        if plan.top_k:
            scores = sampling.top_k(scores, plan.top_k)
        if plan.top_p < 1.0:
            scores = sampling.top_p(scores, plan.top_p)
        if plan.min_p:
            scores = sampling.min_p(scores, plan.min_p)
        if plan.typical_p < 1.0:
            scores = sampling.typical_p(scores, plan.typical_p)
        if plan.epsilon_cutoff:
            scores = sampling.epsilon_cutoff(scores, plan.epsilon_cutoff)
        return sampling.eta_cutoff(scores, plan.eta_cutoff) if plan.eta_cutoff else scores

    def choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [A], and the scores [A, V] that they were chosen from.

        GenerationError where the scores hold no token to choose.
        """
        plan = self.plan
        if self.rng is None:
            scores = self.rules.marked(scores)
            tokens = sampling.greedy(scores)
        else:
            tokens, scores = self.draw(scores, self.rng.uniform(scores.shape[0]))
        if bool((tokens < 0).any()):
            raise self.nothing_to_choose()
        return tokens, scores.log_softmax(dim=-1) if plan.rules.renormalize else scores

    def draw(self, scores: Tensor, uniform: Tensor, *, as_alone: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens [A] by chance, -1 where there is none to choose, and the scores [A, V] that they were chosen from.

        Args:
            scores: [A, V].
            uniform: float64 [A], the random number of each row.
            as_alone: to the last bit what each row gives alone; else rows of a call share one way through `top_k`.
        """
        plan, logits = self.plan, scores
        if plan.temperature != 1.0:
            scores = sampling.temperature(scores, plan.temperature)
        few = sampling.shortlist(scores, plan.top_k) if plan.top_k and plan.rules.watermark is None else None
        if few is None and plan.top_k and as_alone and len(logits) > 1:  # one row has none; the others may
            each = [self.draw(logits[row : row + 1], uniform[row : row + 1]) for row in range(len(logits))]
            return torch.cat([tokens for tokens, _ in each]), torch.cat([left for _, left in each])
        # of all tokens only where all are drawn from, or somebody asked for their scores
        left = self.rules.marked(self.warp(scores)) if few is None or plan.output_scores else scores
        if few is None:
            return sampling.draw(left, uniform), left
        place = sampling.draw(self.warp(few[0]), uniform)
        return torch.where(place < 0, -1, few[1].gather(1, place.clamp(min=0)[:, None])[:, 0]), left

    def nothing_to_choose(self) -> GenerationError:
        if self.rules.steps:
            return GenerationError(
                f"There is no token {self.width} to choose: the rules of this call leave none, or the model's logits "
                "are not finite. Drop a rule, or check the model's weights."
            )
        return GenerationError(
            f"The model's logits for token {self.width} are not finite: there is no token to choose. Load the "
            "model with dtype='float32', and check its weights."
        )

    def ended(self, tokens: Tensor) -> Tensor | None:
        """Which running sequences end with `tokens` [A]: bool [A], None for none."""
        ended = self.ends.ended(tokens) if self.ends is not None else None
        if self.stops is not None:
            stopped = self.stops.ended(tokens)
            ended = stopped if ended is None else ended | stopped
        if self.plan.rules.criteria:
            stopped = self.stopped_by_user(self.sequences[:, self.unnamed : self.width])
            stopped = stopped if self.rows is None else stopped[self.rows]
            ended = stopped if ended is None else ended | stopped
        if self.width == self.plan.max_length or self.deadline.over():
            ended = torch.ones_like(tokens, dtype=torch.bool)
        if ended is not None and self.rules.constraint is not None:
            self.note_unfinished(ended)
        return ended if ended is not None and bool(ended.any()) else None

    def stopped_by_user(self, texts: Tensor) -> Tensor:
        """Whether a function of `stopping_criteria` ends each of the texts [N, columns]; bool [N].

        It gets the texts and the scores so far, None where they are not kept, as upstream.
        """
        kept = tuple(self.recorder.scores) if self.recorder is not None and self.plan.output_scores else None
        stopped = torch.zeros(len(texts), dtype=torch.bool, device=texts.device)
        for function in self.plan.rules.criteria:
            stopped = stopped | torch.as_tensor(function(texts, kept), dtype=torch.bool, device=texts.device)
        return stopped

    def note_unfinished(self, ended: Tensor) -> None:
        """Notes the sequences that end, bool [A], without the form that was asked for."""
        assert self.rules.constraint is not None
        places = range(self.total) if self.rows is None else self.rows.tolist()
        for place, ends, complete in zip(places, ended.tolist(), self.rules.constraint.is_complete(), strict=True):
            if ends and not complete:
                self.unfinished.append(place)

    def drop_finished(self, ended: Tensor | None) -> None:
        """Takes the sequences that ended out of the batch."""
        if ended is None:
            return
        over = ended.tolist()
        places = range(self.total) if self.rows is None else self.rows.tolist()
        for place, gone in zip(places, over, strict=True):
            if gone:
                self.lengths[place] = self.width - self.plan.prompt_columns
        remain = len(over) - sum(over)
        if remain == 0:
            self.done = True
            return
        # who comes last takes the place of who leaves, so that the cache moves as little as possible
        last = [i for i in range(remain, len(over)) if not over[i]]
        order = [last.pop() if over[i] else i for i in range(remain)]
        keep = torch.tensor(order, device=ended.device)  # [A that remain]
        self.rows = keep if self.rows is None else self.rows[keep]
        self.newest = self.newest[keep]
        if self.cache is not None:
            self.cache.select(keep)
        self.select_encoded(keep)
        self.mask = None if self.mask is None else self.mask[keep]
        self.rules.select(keep)
        if self.stops is not None:
            self.stops.select(keep)
        if self.rng is not None:
            self.rng.select(keep)

    def adapted(self, *, all_rows: bool = False) -> AbstractContextManager[None]:
        """Inside, each running sequence (`all_rows`: each there was) has the adapter of its prompt."""
        if self.adapters is None:
            return nullcontext()
        names: Sequence[str | None] = self.adapters
        places = self.running_places()
        if not all_rows and places is not None and len(set(names)) > 1:
            names = [names[place // self.plan.copies] for place in places.tolist()]
        context: AbstractContextManager[None] = self.model.use_adapter(names, len(names))
        return context

    def running_places(self) -> Tensor | None:
        """The places [A] of the running sequences among all; None while all run."""
        return self.rows

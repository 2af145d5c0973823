"""LogitsProcessors: what changes the scores of one step by the text so far, in upstream's order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate import sampling
from cutaway.generate.constraint import Constraint
from cutaway.generate.guidance import Guidance
from cutaway.generate.phrases import Phrases, no_repeat_ngram
from cutaway.generate.plan import Plan
from cutaway.generate.prompt import Prompt
from cutaway.generate.results import scatter_rows

if TYPE_CHECKING:
    from cutaway.generate.logits_process import LogitsProcessor
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

Rule = Callable[[Tensor], Tensor]


class LogitsProcessors:
    """The rules of one call, and of each running sequence what they need to know.

    `apply` is called once a step, then `add` with the tokens that were chosen; `select` when sequences leave or change
    places. Padding is no part of a text: a sequence's scores are the same alone and in any batch.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        plan: Plan,
        tokenizer: TokenizerLike | None,
        evaluating: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.plan, rules, device = plan, plan.rules, prompt.ids.device
        self.width = prompt.ids.shape[1]
        self.unnamed = self.width if prompt.unnamed else 0  # columns without ids
        self.sequences = prompt.ids  # [total, columns], padding included: what a user's functions are given
        self.rows: Tensor | None = None
        self.texts: Tensor | None = None  # [A, max_length] ids of the running texts; -1 at padding
        copies = torch.arange(prompt.ids.shape[0], device=device).repeat_interleave(plan.copies)
        if rules.reads_text:
            self.texts = prompt.ids.new_full((len(copies), plan.max_length), -1)
            if not prompt.unnamed:
                self.texts[:, : self.width] = without_padding(prompt.ids, prompt.mask)[copies]
        self.source: Tensor | None = None  # [A, S] what "the source" of the texts is; -1 at padding
        if (rules.source_no_repeat_ngram or rules.source_penalty != 1.0) and not prompt.unnamed:
            self.source = source_of(prompt, model.is_encoder_decoder)[copies]
        self.newest = prompt.ids[:, -1][copies]  # [A]
        self.guidance: Guidance | None = None
        if rules.guidance != 1.0:
            self.guidance = Guidance(model, prompt, rules.negative_ids, rules.negative_mask, plan.copies, evaluating)
        self.constraint: Constraint | None = None
        if rules.form is not None:
            assert tokenizer is not None  # a form asks for one when it is read
            self.constraint = Constraint(rules.form, tokenizer, plan.eos, len(copies))
        self.watermark: LogitsProcessor | None = None
        self.only_length = False  # whether no rule is on but that a text may not end before its least length
        self.steps = self.in_order(device)

    def in_order(self, device: torch.device) -> list[Rule]:
        """The rules that are switched on."""
        plan, rules = self.plan, self.plan.rules
        eos = torch.tensor(plan.eos, device=device)
        suppress = torch.tensor(rules.suppress, device=device)
        phrases, bad = (
            Phrases(rules.phrases, device),
            Phrases(((w, sampling.MINUS_INF) for w in rules.bad_words), device),
        )
        # where the first token is forced, the first that is chosen is the second
        begin = plan.prompt_columns + (plan.prompt_columns == 1 and plan.forced_bos is not None)
        begin_suppress = torch.tensor(rules.begin_suppress, device=device)
        forced_bos = torch.tensor([] if plan.forced_bos is None else [plan.forced_bos], device=device)
        forced_eos = torch.tensor(plan.forced_eos, device=device)
        guidance, constraint, decay = self.guidance, self.constraint, rules.decay

        def not_yet(scores: Tensor) -> Tensor:
            return sampling.forbid(scores, eos, in_place=True) if self.too_short else scores

        table: list[tuple[bool, Rule]] = [
            (guidance is not None, self.guided),
            (bool(rules.phrases), lambda x: phrases.bias(x, self.text, in_place=True)),
            (self.source is not None and rules.source_penalty != 1.0, self.favour_source),
            (rules.repetition_penalty != 1.0, self.penalize_repetition),
            (rules.no_repeat_ngram > 0, lambda x: no_repeat_ngram(x, self.text, rules.no_repeat_ngram, in_place=True)),
            (
                self.source is not None and rules.source_no_repeat_ngram > 0,
                lambda x: no_repeat_ngram(x, self.text, rules.source_no_repeat_ngram, self.source, in_place=True),
            ),
            (bool(rules.bad_words), lambda x: bad.bias(x, self.text, in_place=True)),
            (bool(plan.eos), not_yet),
            (rules.allowed is not None, self.only_allowed),
            (plan.forced_bos is not None, lambda x: sampling.force(x, forced_bos) if self.width == 1 else x),
            (
                bool(plan.forced_eos),
                lambda x: sampling.force(x, forced_eos) if self.width == plan.max_length - 1 else x,
            ),
            (rules.finite, sampling.finite),
            (decay is not None, lambda x: self.decayed(x, eos)),
            (bool(rules.suppress), lambda x: sampling.forbid(x, suppress, in_place=True)),
            (
                bool(rules.begin_suppress),
                lambda x: sampling.forbid(x, begin_suppress, in_place=True) if self.width == begin else x,
            ),
            (bool(rules.processors), self.processed),
            (constraint is not None, self.constrained),
        ]
        steps = [rule for on, rule in table if on]
        self.only_length = rules.watermark is None and all(rule is not_yet for rule in steps)
        return steps

    @property
    def too_short(self) -> bool:
        """Whether the next token may not end a text."""
        return self.width < self.plan.min_length

    @property
    def text(self) -> Tensor:
        """[A, width] ids of the running texts; -1 at padding."""
        assert self.texts is not None
        return self.texts[:, : self.width]

    def apply(self, scores: Tensor, sequences: Tensor, rows: Tensor | None, *, in_place: bool = False) -> Tensor:
        """The scores [A, V] after every rule. Those about a few tokens cost these, and not a pass over all.

        Args:
            scores: [A, V] of the running sequences. in_place: nobody else has them, and they may be written into.
            sequences: [total, width] ids of all sequences so far.
            rows: [A] which of them run; None for all.
        """
        self.sequences, self.rows = sequences, rows
        if self.steps and not in_place and (self.too_short or not self.only_length):
            scores = scores.clone()
        for rule in self.steps:
            scores = rule(scores)
        return scores

    def marked(self, scores: Tensor) -> Tensor:
        """The scores [A, V], after what sampling rules out, with the bonus of a watermark."""
        config = self.plan.rules.watermark
        if config is None:
            return scores
        if self.watermark is None:
            self.watermark = config.construct_processor(scores.shape[-1], "cpu")
        texts = self.sequences if self.rows is None else self.sequences[self.rows]  # [A, width]
        return self.watermark(texts, scores)

    def add(self, tokens: Tensor) -> None:
        """Takes the chosen tokens [A] of the running sequences."""
        if self.texts is not None:
            self.texts[:, self.width] = tokens
        if self.constraint is not None:
            self.constraint.add(tokens)
        self.newest = tokens
        self.width += 1

    def select(self, index: Tensor) -> None:
        """Leaves the sequences at the positions `index` of the running ones, in that order; it may repeat."""
        self.newest = self.newest[index]
        self.texts = None if self.texts is None else self.texts[index]
        self.source = None if self.source is None else self.source[index]
        if self.guidance is not None:
            self.guidance.select(index)
        if self.constraint is not None:
            self.constraint.select(index)

    def guided(self, scores: Tensor) -> Tensor:
        assert self.guidance is not None
        return sampling.guide(scores, self.guidance.logits(self.newest), self.plan.rules.guidance)

    def constrained(self, scores: Tensor) -> Tensor:
        assert self.constraint is not None
        return self.constraint.mask(scores)

    def penalize_repetition(self, scores: Tensor) -> Tensor:
        if self.width == self.unnamed:  # nothing is said yet
            return scores
        seen = torch.where(self.text < 0, self.text[:, -1:], self.text)  # the newest token, said twice, for padding
        return sampling.repetition_penalty(scores, seen, self.plan.rules.repetition_penalty, in_place=True)

    def favour_source(self, scores: Tensor) -> Tensor:
        assert self.source is not None
        real = self.source.amax(dim=1, keepdim=True)  # [A, 1] any token of the source, said twice, for padding
        return sampling.repetition_penalty(
            scores, torch.where(self.source < 0, real, self.source), self.plan.rules.source_penalty, in_place=True
        )

    def decayed(self, scores: Tensor, eos: Tensor) -> Tensor:
        assert self.plan.rules.decay is not None
        start, factor = self.plan.rules.decay
        steps = self.width - self.plan.prompt_columns - start
        return sampling.exponential_decay(scores, eos, steps, factor, in_place=True) if steps > 0 else scores

    def only_allowed(self, scores: Tensor) -> Tensor:
        """Rules out what `prefix_allowed_tokens_fn(prompt, ids)` does not name."""
        assert self.plan.rules.allowed is not None
        places = range(len(scores)) if self.rows is None else self.rows.tolist()
        mask = torch.ones_like(scores, dtype=torch.bool)
        for row, place in enumerate(places):
            prompt = place // self.plan.copies
            allowed = torch.as_tensor(self.plan.rules.allowed(prompt, self.sequences[place]), device=scores.device)
            if allowed.numel() == 0:
                raise GenerationError(
                    f"prefix_allowed_tokens_fn allows no token after column {self.width} of prompt {prompt}: return at "
                    "least one id."
                )
            mask[row, allowed.long()] = False
        return scores.masked_fill(mask, sampling.MINUS_INF)

    def processed(self, scores: Tensor) -> Tensor:
        """The user's functions see all sequences in every step, each in its place, so that they may count on it."""
        all_scores = scatter_rows(scores, self.rows, len(self.sequences))
        for function in self.plan.rules.processors:
            all_scores = function(self.sequences, all_scores)
        return all_scores if self.rows is None else all_scores[self.rows]


def without_padding(ids: Tensor, mask: Tensor | None) -> Tensor:
    """ids [B, L] with -1 at padding."""
    return ids if mask is None else ids.masked_fill(mask == 0, -1)


def source_of(prompt: Prompt, encoder_decoder: bool) -> Tensor:
    """What the encoder reads, or the prompt of a decoder: ids [B, S], -1 at padding."""
    if not encoder_decoder:
        return without_padding(prompt.ids, prompt.mask)
    if prompt.encoder_ids is None:
        raise GenerationError(
            "encoder_no_repeat_ngram_size and encoder_repetition_penalty read the source, and only encoder_outputs was "
            "given: pass input_ids."
        )
    return without_padding(prompt.encoder_ids, prompt.encoder_mask)

"""Beam search: several answers to each prompt side by side, of which the likeliest go on.

Plain beam search (Lowerre 1976; the rules of ending are upstream's), in groups that avoid each other's tokens
(Vijayakumar et al. 2016, arXiv:1610.02424), with words that must appear (Post & Vilar 2018, arXiv:1804.06609), and with
chance in the place of the likeliest (sampling without replacement).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate import sampling
from cutaway.generate.beam_settings import BeamSettings
from cutaway.generate.incremental_decoding import CONTEXT
from cutaway.generate.plan import Plan
from cutaway.generate.prompt import Prompt
from cutaway.generate.required_words import share_out
from cutaway.generate.rng import SamplingRNG
from cutaway.generate.search import Search, Step
from cutaway.nn.cpu.ops import best_tokens

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel
    from cutaway.tokenization.protocols import TokenizerLike


@dataclass(frozen=True)
class Hypothesis:
    """A finished answer. score: log-probability / length ** length_penalty. beams: the beam each token came from."""

    score: float
    tokens: list[int]
    beams: list[int]


class Candidate(NamedTuple):
    """One way to go on: beam `parent` of the running ones, with `token`; `total` is its log-probability."""

    parent: int
    token: int
    total: float


class Pool:
    """The best finished answers of one group of beams."""

    def __init__(self, plan: BeamSettings) -> None:
        self.plan, self.kept = plan, list[Hypothesis]()
        self.done = False

    def add(self, hypothesis: Hypothesis) -> None:
        self.kept.append(hypothesis)
        self.kept.sort(key=lambda h: -h.score)  # stable: of equals the first stays
        del self.kept[self.plan.size :]

    def close(self, best_running: float, length: int, longest: int) -> None:
        """Decides whether a running beam, the best with log-probability `best_running`, can still get in.

        Args:
            length: generated tokens so far. longest: the most that there can be.
        """
        if len(self.kept) < self.plan.size:
            self.done = best_running == sampling.MINUS_INF
            return
        penalty, never = self.plan.length_penalty, self.plan.early_stopping == "never"
        reach = longest if never and penalty > 0 else length
        hopeless = best_running / reach**penalty <= self.kept[-1].score
        self.done = self.plan.early_stopping is True or hopeless


class BeamSearch(Search):
    """One call of generate with beams; `sequences` are the running beams, and the answers once it is done.

    A prompt whose answers are settled leaves the batch, so its answers do not depend on the other prompts.
    """

    def __init__(
        self, model: GenerativeModel, prompt: Prompt, plan: Plan, tokenizer: TokenizerLike | None = None
    ) -> None:
        super().__init__(model, prompt, plan, tokenizer)
        assert plan.beams is not None
        self.beams, prompts, device = plan.beams, prompt.ids.shape[0], prompt.ids.device
        if plan.do_sample:  # one stream of numbers for each prompt: its beams compete for them
            self.rng = SamplingRNG(plan.seed, device)
        self.tokenizer = tokenizer
        self.running = list(range(prompts))  # the prompts that are not settled
        self.pools = [[Pool(plan.beams) for _ in range(plan.beams.groups)] for _ in range(prompts)]
        self.totals = torch.full((prompts, plan.beams.number), sampling.MINUS_INF, device=device)
        self.totals[:, :: plan.beams.size] = 0.0  # the beams of a group begin as one
        self.origins = torch.full((self.total, plan.max_length - plan.prompt_columns), -1, device=device)
        self.places = torch.arange(self.total, device=device)  # [A] the running beams' places among all
        self.prompts = self.contexts() if plan.stop_strings else []

    def advance(self) -> Step:
        """Runs the model once and takes every running prompt's beams one token further."""
        with self.evaluating():
            outputs = self.run()
        copies = self.copies if self.width == self.plan.prompt_columns else None
        logits = outputs.logits[:, -1].float()  # [A, V]
        if copies is not None:
            logits = logits[copies]
            self.spread_state(copies)
        if self.takes_the_best:
            best = best_tokens(logits, min(self.n_looked_at + len(self.plan.eos), logits.shape[1]))
            if best is not None:
                return self.step_after(self.choose_of_best(*best))
        scores = self.warped(self.process(logits.log_softmax(dim=-1), in_place=True))
        if self.recorder is not None:
            self.recorder.add(outputs, logits, scores, self.running_places(), self.total, copies)
        if self.needs_the_best:
            return self.step_after(self.choose_of_best(*scores.topk(min(self.n_looked_at, scores.shape[1]), dim=-1)))
        return self.step_after(self.choose_beams(scores))

    def step_after(self, chosen: list[list[Candidate]]) -> Step:
        """Takes every running prompt's beams one token further."""
        self.width += 1
        self.settle(chosen)
        return Step(None, self.newest, None)

    def warped(self, scores: Tensor) -> Tensor:
        """What sampling makes of the scores [A, V]: enough tokens stay for the beams to go on beside those that end."""
        plan = self.plan
        if plan.do_sample:
            hot = scores if plan.temperature == 1.0 else sampling.temperature(scores, plan.temperature)
            scores = sampling.at_least(self.warp(hot), hot, 1 + max(1, len(plan.eos)))
        scores = self.rules.marked(scores)
        return scores.log_softmax(dim=-1) if plan.rules.renormalize else scores

    @property
    def n_looked_at(self) -> int:
        """So many ways to go on are looked at for each group that as many as it has beams do not end."""
        return max(2, 1 + len(self.plan.eos)) * self.beams.size

    @property
    def takes_the_best(self) -> bool:
        """Whether the likeliest tokens of each beam are all that a step needs of its logits."""
        chosen_by_likelihood = not self.plan.rules.renormalize and self.rules.only_length
        return chosen_by_likelihood and self.needs_the_best and self.recorder is None

    @property
    def needs_the_best(self) -> bool:
        """Whether the likeliest tokens of each beam, after all rules, are all that a step chooses from."""
        return not self.plan.do_sample and self.beams.groups == 1 and self.beams.required_words is None

    def choose_of_best(self, scores: Tensor, ids: Tensor) -> list[list[Candidate]]:
        """As `choose_beams`, from the log-probabilities of each beam's likeliest tokens and their ids, [A, n] each."""
        number, n = self.beams.number, scores.shape[1]
        if self.rules.too_short and self.plan.eos:
            ends = torch.tensor(self.plan.eos, device=ids.device)
            scores = scores.masked_fill(torch.isin(ids, ends) & ~scores.isnan(), sampling.MINUS_INF)
        totals = (self.totals.view(-1, 1) + scores).view(-1, number * n)  # [prompts, num_beams * n]
        totals, places = totals.topk(min(self.n_looked_at, number * n), dim=-1)
        rows = zip(totals.tolist(), places.tolist(), ids.view(-1, number * n).gather(1, places).tolist(), strict=True)
        chosen: list[list[Candidate]] = []
        for prompt, (values, at, tokens) in enumerate(rows):
            if any(math.isnan(value) for value in values):
                raise self.nothing_to_choose()
            candidates = [
                Candidate(prompt * number + place // n, token, total)
                for total, place, token in zip(values, at, tokens, strict=True)
                if total > sampling.MINUS_INF
            ]
            going: list[Candidate] = []
            pool = self.pools[self.running[prompt]][0]
            if not pool.done:
                going = self.go_on_with(pool, candidates)
            if len(going) < number:  # its tokens are possible, and nothing comes of it
                going.append(Candidate(prompt * number, tokens[0], sampling.MINUS_INF))
            chosen.append(going + going[-1:] * (number - len(going)))
        return chosen

    def choose_beams(self, scores: Tensor) -> list[list[Candidate]]:
        """Of each running prompt the beams that go on [prompts][num_beams]; answers that end go to their pools."""
        number, size, vocabulary = self.beams.number, self.beams.size, scores.shape[-1]
        if bool(scores.isnan().any()):
            raise self.nothing_to_choose()
        scores = scores.view(-1, number, vocabulary)  # [prompts, num_beams, V]
        said = torch.zeros_like(scores[:, 0])  # [prompts, V] how often the groups before chose each token
        chosen: list[list[Candidate]] = [[] for _ in self.running]
        for group in range(self.beams.groups):
            first = group * size
            totals = self.totals[:, first : first + size, None] + scores[:, first : first + size]  # [prompts, size, V]
            for prompt, candidates in enumerate(self.candidates(totals, said)):
                pool, base = self.pools[self.running[prompt]][group], prompt * number + first
                going: list[Candidate] = []
                if not pool.done:
                    going = self.go_on_with(pool, [c._replace(parent=base + c.parent) for c in candidates])
                    for c in candidates[:size]:
                        said[prompt, c.token] += 1
                if len(going) < size:  # its tokens are possible, and nothing comes of it
                    going.append(Candidate(base, int(scores[prompt, first].argmax()), sampling.MINUS_INF))
                chosen[prompt] += going + going[-1:] * (size - len(going))
        return chosen

    def candidates(self, totals: Tensor, said: Tensor) -> list[list[Candidate]]:
        """The ways to go on that are looked at, the likeliest first, for each running prompt.

        There are enough that as many as there are beams do not end, whatever number of end tokens there is.

        Args:
            totals: [prompts, size, V] log-probabilities.
            said: [prompts, V] uses of each token by other groups in this step.
        """
        prompts, _, vocabulary = totals.shape
        required_words = self.beams.required_words
        if required_words is not None and self.plan.eos:  # an answer that lacks a word cannot end
            missing = [required_words.missing(answer) for answer in self.answers()]
            lacks = torch.tensor(missing, device=totals.device).view(prompts, -1) > 0
            ends = torch.tensor(self.plan.eos, device=totals.device)
            totals = torch.where(lacks[..., None], sampling.forbid(totals.flatten(0, 1), ends).view_as(totals), totals)
        wish = (totals - self.beams.diversity * said[:, None]).flatten(1)  # [prompts, size * V]
        n = min(self.n_looked_at, wish.shape[1])
        if self.rng is None:
            ids = wish.topk(n, dim=-1).indices
        else:
            ids = self.drawn(wish, n)
        totals_of_chosen = totals.flatten(1).gather(1, ids)
        lists = [
            [Candidate(i // vocabulary, i % vocabulary, total)
             for i, total in dict.fromkeys(zip(row, values, strict=True)) if total > sampling.MINUS_INF]
            for row, values in zip(ids.tolist(), totals_of_chosen.tolist(), strict=True)
        ]  # fmt: skip
        return lists if required_words is None else [self.with_required(totals[p], lists[p], p) for p in range(prompts)]

    def drawn(self, wish: Tensor, n: int) -> Tensor:
        """n entries of each row [prompts, N] drawn one by one; ids [prompts, n], likeliest first."""
        assert self.rng is not None
        left, ids = wish, list[Tensor]()
        for _ in range(n):
            drawn = sampling.draw(left, self.rng.uniform(len(wish)))  # -1 where nothing is left
            ids.append(torch.where(drawn < 0, ids[0] if ids else 0, drawn))
            left = left.scatter(1, ids[-1][:, None], sampling.MINUS_INF)
        found = torch.stack(ids, dim=1)  # [prompts, n]
        return found.gather(1, wish.gather(1, found).argsort(dim=-1, descending=True, stable=True))

    def with_required(self, totals: Tensor, candidates: list[Candidate], prompt: int) -> list[Candidate]:
        """The candidates of a prompt and those that bring each beam nearer to a required word, the likeliest first.

        Those are left out that could not be completed in the room that is left. totals: [num_beams, V].
        """
        required_words, size = self.beams.required_words, totals.shape[0]
        assert required_words is not None
        answers = self.answers()[prompt * size : (prompt + 1) * size]
        pairs = {(c.parent, c.token): c for c in candidates}
        likeliest = totals.argmax(dim=-1).tolist()
        for beam, answer in enumerate(answers):
            for token in [likeliest[beam], *required_words.next_tokens(answer)]:
                total = float(totals[beam, token])
                if total > sampling.MINUS_INF:
                    pairs.setdefault((beam, token), Candidate(beam, token, total))
        tokens_left = self.plan.max_length - self.width - 1
        fits = [c for c in pairs.values() if required_words.missing([*answers[c.parent], c.token]) <= tokens_left]
        return sorted(fits, key=lambda c: -c.total)

    def go_on_with(self, pool: Pool, candidates: list[Candidate]) -> list[Candidate]:
        """Puts those that end into the pool; returns those that go on, at most a group's size, the likeliest first."""
        size, required_words = self.beams.size, self.beams.required_words
        going: list[Candidate] = []
        for rank, (c, ends) in enumerate(zip(candidates, self.ends_with(candidates), strict=True)):
            if not ends:
                going.append(c)
            elif (rank < size or required_words is not None) and self.is_complete(c):
                answer = [*self.answer(c.parent), c.token]
                origins = self.origins[c.parent, : len(answer) - 1].tolist()
                score = c.total / len(answer) ** self.beams.length_penalty
                pool.add(Hypothesis(score, answer, [*origins, int(self.places[c.parent])]))
        if required_words is None or len(going) <= size:
            return going[:size]
        banks = [required_words.total - required_words.missing([*self.answer(c.parent), c.token]) for c in going]
        return [going[i] for i in share_out(banks, size)]

    def is_complete(self, c: Candidate) -> bool:
        """Whether the answer has the form that was asked for; an end token is only allowed where it has."""
        constraint = self.rules.constraint
        return constraint is None or c.token in self.plan.eos or constraint.is_complete_with(c.parent, c.token)

    def ends_with(self, candidates: list[Candidate]) -> list[bool]:
        """Of each candidate whether its answer ends there."""
        last = self.width + 1 == self.plan.max_length
        ends = [last or c.token in self.plan.eos for c in candidates]
        if self.plan.stop_strings:
            ends = [end or self.stops_at(c) for c, end in zip(candidates, ends, strict=True)]
        if self.plan.rules.criteria and candidates:
            parents = torch.tensor([c.parent for c in candidates], device=self.sequences.device)
            texts = self.sequences[parents, : self.width + 1]
            texts[:, -1] = torch.tensor([c.token for c in candidates], device=texts.device)
            stopped = self.stopped_by_user(texts).tolist()
            ends = [a or b for a, b in zip(ends, stopped, strict=True)]
        return ends

    def stops_at(self, c: Candidate) -> bool:
        """Whether the answer holds a stop string."""
        assert self.tokenizer is not None  # the plan asks for one where there are stop strings
        context = self.prompts[int(self.places[c.parent])][-CONTEXT:]
        before = len(self.tokenizer.decode(context)) if context else 0
        text = self.tokenizer.decode([*context, *self.answer(c.parent), c.token])[before:]
        return any(stop in text for stop in self.plan.stop_strings)

    def answer(self, row: int) -> list[int]:
        ids: list[int] = self.sequences[row, self.plan.prompt_columns : self.width].tolist()
        return ids

    def answers(self) -> list[list[int]]:
        """The generated ids of all running beams."""
        ids: list[list[int]] = self.sequences[:, self.plan.prompt_columns : self.width].tolist()
        return ids

    def settle(self, chosen: list[list[Candidate]]) -> None:
        """Decides which prompts are settled, and takes the chosen beams of the others further."""
        size, length = self.beams.size, self.width - self.plan.prompt_columns
        ends = self.width == self.plan.max_length
        for prompt, beams in zip(self.running, chosen, strict=True):
            for group, pool in enumerate(self.pools[prompt]):
                if not pool.done:
                    best = max(c.total for c in beams[group * size : (group + 1) * size])
                    pool.close(best, length, self.plan.max_length - self.plan.prompt_columns)
        settled = [ends or all(pool.done for pool in self.pools[prompt]) for prompt in self.running]
        if all(settled):
            self.finish()
            return
        stay = [i for i, gone in enumerate(settled) if not gone]
        if self.plan.rules.has_callables:  # the user's functions count on the places of the sequences
            stay = list(range(len(settled)))
        device, goes_on = self.sequences.device, [c for i in stay for c in chosen[i]]
        index = torch.tensor([c.parent for c in goes_on], device=device)  # [A]
        self.totals = torch.tensor([[c.total for c in chosen[i]] for i in stay], device=device)
        origins, same = self.places[index], len(stay) == len(settled)
        if not same or not bool((index == torch.arange(len(index), device=device)).all()):
            self.keep(index)
        if not same:
            self.leave_prompts(torch.tensor(stay, device=device), index)
        self.newest = torch.tensor([c.token for c in goes_on], device=device)
        self.sequences[:, self.width - 1], self.origins[:, length - 1] = self.newest, origins
        self.rules.add(self.newest)

    def close(self) -> None:
        """The cache holds beams, not the answers: it is of no use to a later call."""
        self.release()

    def keep(self, index: Tensor) -> None:
        """The running beams become those at `index` [A]; it may repeat."""
        self.sequences, self.origins = self.sequences[index], self.origins[index]
        self.mask = None if self.mask is None else self.mask[index]
        self.rules.select(index)
        if self.cache is not None and self.stepper is not None and self.stepper.reads_shared:
            self.cache.share(index)
        elif self.cache is not None:
            self.cache.select(index)

    def running_places(self) -> Tensor | None:
        return None if len(self.places) == self.total else self.places

    def leave_prompts(self, stay: Tensor, index: Tensor) -> None:
        """Only the prompts at the positions `stay` of the running ones go on, with the beams that were at `index`."""
        self.running = [self.running[i] for i in stay.tolist()]
        self.places = (torch.tensor(self.running, device=stay.device)[:, None] * self.beams.number
                       + torch.arange(self.beams.number, device=stay.device)).flatten()  # fmt: skip
        self.select_encoded(index)
        if self.rng is not None:
            self.rng.select(stay)

    def finish(self) -> None:
        """The answers take the places of the beams in `sequences`, the best of each prompt first."""
        self.done = True
        answers: list[Hypothesis] = []
        for prompt, pools in enumerate(self.pools):
            best = sorted((h for pool in pools for h in pool.kept), key=lambda h: -h.score)
            if len(best) < self.beams.returned:
                raise self.too_few(prompt, len(best))
            answers += best[: self.beams.returned]
        longest, columns = max(len(h.tokens) for h in answers), self.plan.prompt_columns
        ids = self.prompt.ids.repeat_interleave(self.beams.returned, dim=0)
        tokens = [h.tokens + [self.plan.pad] * (longest - len(h.tokens)) for h in answers]
        self.width = columns + longest
        self.sequences = torch.cat([ids, torch.tensor(tokens, device=ids.device)], dim=1)
        self.total = len(answers)
        self.lengths = [len(h.tokens) for h in answers]
        if self.recorder is not None:
            beams = [h.beams + [-1] * (longest - len(h.beams)) for h in answers]
            self.recorder.beams = {
                "sequences_scores": torch.tensor([h.score for h in answers], device=ids.device),
                "beam_indices": torch.tensor(beams, device=ids.device),
            }

    def too_few(self, prompt: int, n_answers: int) -> GenerationError:
        if n_answers:
            return GenerationError(
                f"Prompt {prompt} has {n_answers} answers under these settings, and num_return_sequences is "
                f"{self.beams.returned}: lower it, or raise num_beams."
            )
        form = self.plan.rules.form
        what = "all rules" if form is None else form.kind
        if self.beams.required_words is not None:
            what = "the required words"
        return GenerationError(
            f"Prompt {prompt} has no answer that keeps {what} within {self.plan.max_length - self.plan.prompt_columns} "
            "tokens. Raise max_new_tokens or num_beams, or drop a rule."
        )

"""Writing: one request for text, from its prompt to its last token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cutaway.generate.options import Settings
from cutaway.generate.plan import make_plan
from cutaway.generate.processor_settings import ProcessorSettings
from cutaway.generate.prompt import read_prompt
from cutaway.generate.search import Search
from cutaway.outputs import CausalLMOutputWithPast
from cutaway.serve.problem import Problem

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel
    from cutaway.tokenization.protocols import TokenizerLike

End = Literal["stop", "length"]


class Told(NamedTuple):
    """How likely the model found a token, before any rule or temperature, and the likeliest tokens there."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Token(NamedTuple):
    """One token of the answer `copy`; `end` says why it is the last one."""

    copy: int
    id: int
    told: Told | None
    end: End | None


class FedSearch(Search):
    """The search of one request, whose logits somebody else computes: every choice is that of `generate`."""

    logits: Tensor

    def run(self) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(logits=self.logits)


@dataclass(eq=False)
class Writing:
    """A request for text.

    Attributes:
        ids: tokens of the prompt. search: what chooses its tokens.
        logprobs: how many of the likeliest tokens are told beside each, None where nothing is told.
        deadline: when it is over, on the clock of time.monotonic.
        gone: nobody waits any more; it leaves the batch before the next step.
    """

    ids: list[int]
    search: FedSearch
    logprobs: int | None
    deadline: float
    loop: asyncio.AbstractEventLoop
    arrived: float = field(default_factory=time.monotonic)
    gone: bool = False
    first: float | None = None  # when its first token came
    cached: int = 0  # tokens of the prompt that were held already
    written: list[int] = field(default_factory=list)  # tokens of the answer, where there is one copy of it
    events: asyncio.Queue[Token | BaseException] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.array = np.asarray(self.ids)
        plan = self.search.plan
        self.copies: int = plan.copies
        self.most = plan.max_length
        self.eos = frozenset(plan.eos)
        # no rule looks at the text: then all rows of a step that are chosen in the same way are chosen at once
        self.plain = (
            plan.copies == 1
            and plan.rules == ProcessorSettings()
            and plan.min_length <= plan.prompt_columns
            and plan.forced_bos is None
            and not plan.forced_eos
        )
        self.left = plan.max_length - plan.prompt_columns  # tokens that may still come, of a plain one
        # how they are chosen: None is the likeliest
        self.way: tuple[float, ...] | None = None
        if plan.do_sample:
            self.way = (
                plan.temperature, plan.top_k, plan.top_p, plan.min_p, plan.typical_p, plan.epsilon_cutoff,
                plan.eta_cutoff,
            )  # fmt: skip

    @property
    def running(self) -> list[int]:
        """The copies that are still being written, in the order of their rows."""
        rows = self.search.rows
        return list(range(self.copies)) if rows is None else rows.tolist()

    @property
    def remaining(self) -> int:
        """Tokens that may still come of each copy."""
        return self.left if self.plain else self.most - self.search.width

    async def tokens(self) -> AsyncIterator[Token]:
        """The tokens as they come; leaving the loop early frees the request's place."""
        open_ = self.copies
        try:
            while open_:
                event = await self.events.get()
                if isinstance(event, BaseException):
                    raise event
                open_ -= event.end is not None
                yield event
        finally:
            self.gone = True

    def choose(self, logits: Tensor) -> list[Token]:
        """The next token of each running copy; logits [copies that run, V], of a new request [1, V]."""
        before = self.running
        self.search.logits = logits[:, None]
        step = self.search.advance()
        told = self.tell(logits, step.tokens)
        ended = [False] * len(before) if step.ended is None else step.ended.tolist()
        found = []
        for copy, token, last, one in zip(before, step.tokens.tolist(), ended, told, strict=True):
            end: End | None = None
            if last:
                stopped = self.search.stops is not None and self.search.width < self.most
                end = "stop" if token in self.eos or stopped else "length"
            found.append(Token(copy, token, one, end))
        return found

    def take(self, token: int, logits: Tensor) -> Token:
        """As `choose`, of a plain request whose token [1, V] has been chosen."""
        self.left -= 1
        stops = self.search.stops
        stopped = stops is not None and bool(stops.ended(torch.tensor([token])))
        end: End | None = None
        if token in self.eos or (stopped and self.left):
            end = "stop"
        elif not self.left:
            end = "length"
        told = self.tell(logits, torch.tensor([token]))[0] if self.logprobs is not None else None
        return Token(0, token, told, end)

    def random(self) -> Tensor:
        """The random number of its next token, float64 [1]."""
        assert self.search.rng is not None
        return self.search.rng.uniform(1)

    def tell(self, logits: Tensor, tokens: Tensor) -> list[Told | None]:
        """How likely `tokens` [A] are by logits [A or 1, V]."""
        if self.logprobs is None:
            return [None] * len(tokens)
        logits = logits.float().expand(len(tokens), -1)
        total = logits.logsumexp(-1, keepdim=True)  # [A, 1]
        own = (logits.gather(1, tokens[:, None]) - total)[:, 0].tolist()
        if not self.logprobs:
            return [Told(value, ()) for value in own]
        best = logits.topk(min(self.logprobs, logits.shape[-1]), dim=-1)
        pairs = zip(best.indices.tolist(), (best.values - total).tolist(), strict=True)
        return [Told(value, tuple(zip(*pair, strict=True))) for value, pair in zip(own, pairs, strict=True)]


def make_writing(
    model: GenerativeModel,
    tokenizer: TokenizerLike,
    ids: list[int],
    settings: dict[str, Any],
    logprobs: int | None,
    seconds: float,
) -> Writing:
    """Checks a request for text; call it where the tokenizer is, with a running loop in `settings` taken out before.

    Raises:
        GenerationError: settings that the model cannot follow. Problem: a prompt without tokens, or with ids that the
            model does not have.
    """
    loop = settings.pop("loop")
    size = model.architecture.writer.embedding.vocab_size
    if not ids:
        raise Problem(400, "prompt has no tokens, and the model has none to start from.", param="prompt")
    wrong = next((i for i in ids if not 0 <= i < size), None)
    if wrong is not None:
        raise Problem(400, f"prompt holds the token {wrong}; the model has 0 to {size - 1}.", param="prompt")
    call = Settings(model, None, settings)
    prompt = read_prompt(model, call, [ids], [[1] * len(ids)], {})
    plan = make_plan(
        call,
        rows=1,
        columns=len(ids),
        longest_prompt=len(ids),
        positions=model.architecture.stack.longest,
        vocab_size=size,
        tokenizer=tokenizer,
    )
    search = FedSearch(model, prompt, plan, tokenizer)
    return Writing(list(ids), search, logprobs, time.monotonic() + seconds, loop)

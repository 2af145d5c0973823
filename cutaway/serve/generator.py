"""The generator: texts that are written together, joining and leaving at every step.

A turn reads one piece of the prompts that wait, then writes one token of every running text. What a text becomes does
not depend on the others: the engine's kernels compute each row by itself, and each request has its own search.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate import sampling
from cutaway.generate.cache_reuse import (
    MIN_SPARED_TOKENS,
    common_prefix_length,
    continue_from,
    positions_are_fixed,
)
from cutaway.nn.kv_cache import Cache
from cutaway.serve.batch_cache import BatchCache, first_tokens
from cutaway.serve.engine import Engine
from cutaway.serve.metrics import Metrics
from cutaway.serve.prefix_cache import Beginning, PrefixCache
from cutaway.serve.problem import Problem
from cutaway.serve.settings import Limits
from cutaway.serve.writing import Token, Writing

if TYPE_CHECKING:
    from cutaway.models.protocols import DecodeStepper, GenerativeModel

LEAST_PIECE = 16  # tokens of a prompt in one pass: fewer would cost as much
ALONE_PIECE = 512  # of a prompt while nothing is written: whoever comes meanwhile waits for so many
LONG_PIECE = 128  # of one that is longer than that
RECENT = 1.0  # seconds after a text's last token in which its client is likely to ask again
SHARE = 0.35  # of the time of steps, that a long prompt is read for between them
IN_CACHE = 1 << 19  # numbers that are drawn from at a time: more leave the processor's cache, and take twice as long
AMONG = 64  # waiting requests that are looked at for a common pass


@dataclass(eq=False)
class Reading:
    """A prompt that is read in pieces: `done` of its tokens are in the cache."""

    writing: Writing
    cache: Cache
    done: int


class Generator:
    """The requests for text of one model."""

    def __init__(self, name: str, model: GenerativeModel, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self.name, self.model, self.engine, self.limits, self.metrics = name, model, engine, limits, metrics
        self.arriving: deque[Writing] = deque()  # other threads append
        self.waiting: deque[Writing] = deque()
        self.reading: Reading | None = None
        self.rows: list[tuple[Writing, int]] = []  # of the cache, in order: the request and which of its copies
        self.newest: list[int] = []
        self.stepper: DecodeStepper | None = None
        self.stays = positions_are_fixed(model)  # else keys depend on the length of the longest text: one at a time
        self.slots = limits.running if self.stays else 1
        self.cache = BatchCache(self.slots)
        self.prefixes = PrefixCache(limits.prefix_bytes if self.stays else 0)
        spec = model.architecture.stack
        heads, size = spec.attention.n_kv_heads, spec.attention.head_size
        self.token_bytes = 2 * spec.n_layers * heads * size * model.dtype.itemsize
        self.outbox: list[tuple[Writing, Token | BaseException]] = []
        self.step_seconds = 0.0  # that a step takes of late
        self.last_step = -RECENT  # when it ended
        self.piece = min(LEAST_PIECE, limits.piece_tokens)  # tokens of a long prompt between two steps
        self.credit = 0.0  # seconds that a long prompt may be read for
        self.overtaken = False  # whether short prompts had the last turn beside a long one

    # -- from other threads ----------------------------------------------------------------------------------------

    def submit(self, writing: Writing, field: str = "max_tokens") -> None:
        """Have a request written; Problem where it could never be. field: what says how many tokens it may have."""
        if writing.copies > self.slots:
            raise Problem(
                400, f"n={writing.copies}: this server writes {self.slots} texts at a time. Lower n.", param="n"
            )
        needed = writing.copies * writing.most * self.token_bytes
        if needed > self.limits.memory_bytes:
            raise Problem(
                400,
                f"{writing.copies} x {writing.most} tokens need {needed >> 20} MB for keys and values, and this server "
                f"has {self.limits.memory_bytes >> 20} MB for them. Ask for fewer tokens ({field}).",
                param=field,
            )
        self.arriving.append(writing)
        self.engine.wake()

    def count(self) -> tuple[int, int]:
        """How many texts are being written, and how many requests wait."""
        return len(self.rows), len(self.waiting) + len(self.arriving)

    # -- turns -----------------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        if not (self.arriving or self.waiting or self.rows or self.reading):
            return False
        with torch.no_grad():
            self._drop_gone()
            self._read()
            self._deliver()  # a first token does not wait for the others' next
            self._write()
        self._deliver()
        return True

    def fail(self, error: BaseException) -> None:
        """End every request with `error`, and begin anew."""
        everyone = {id(w): w for w in (*self.arriving, *self.waiting, *(w for w, _ in self.rows))}
        if self.reading is not None:
            everyone[id(self.reading.writing)] = self.reading.writing
        self.arriving.clear()
        self.waiting.clear()
        self.rows, self.newest, self.reading, self.stepper = [], [], None, None
        self.cache = BatchCache(self.slots)
        self.outbox = [(writing, error) for writing in everyone.values()]
        self._deliver()

    def _deliver(self) -> None:
        """Hand out what has come about: one call into each loop."""
        outbox, self.outbox = self.outbox, []
        loops: dict[Any, list[tuple[Writing, Token | BaseException]]] = {}
        for writing, event in outbox:
            loops.setdefault(writing.loop, []).append((writing, event))
        for loop, events in loops.items():
            try:
                loop.call_soon_threadsafe(_hand_out, events)
            except RuntimeError:  # that loop is closed: nobody waits there
                for writing, _ in events:
                    writing.gone = True

    def _drop_gone(self) -> None:
        """Take in who arrived; let go of who left or whose time is over."""
        while self.arriving:
            self.waiting.append(self.arriving.popleft())
        now = time.monotonic()
        late = Problem(504, f"The answer took longer than the {self.limits.seconds:g} seconds that a request may take.")

        def over(writing: Writing) -> bool:
            if not writing.gone and now >= writing.deadline:
                writing.gone = True
                self.outbox.append((writing, late))
            return writing.gone

        if any(over(writing) for writing in self.waiting):
            self.waiting = deque(writing for writing in self.waiting if not writing.gone)
        if self.reading is not None and over(self.reading.writing):
            self.reading = None
        self._leave([row for row, (writing, _) in enumerate(self.rows) if over(writing)])

    def _leave(self, gone: Iterable[int]) -> None:
        """Take rows out of the batch; who comes last takes their place."""
        left = set(gone)
        if not left:
            return
        remain = len(self.rows) - len(left)
        if not remain:
            self.rows, self.newest = [], []
            self.cache.clear()
            return
        last = [i for i in range(remain, len(self.rows)) if i not in left]
        order = [last.pop() if i in left else i for i in range(remain)]
        self.cache.select(torch.tensor(order))
        self.rows = [self.rows[i] for i in order]
        self.newest = [self.newest[i] for i in order]

    # -- prompts ---------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Run one piece of the waiting prompts, if there is room for them.

        Every other turn belongs to those who are written, and to short prompts: a long one that is being read has the
        rest, as far as it leaves most of the time to the steps of those who are written.
        """
        busy = bool(self.rows)
        total = self._room_of_a_turn() if busy else self.limits.batch_tokens
        short = min(total, ALONE_PIECE)
        if self.reading is None:
            self._begin(total, short)
        elif not self.overtaken and (busy or self.waiting):
            self._begin(total, short, overtake=True)
            self.overtaken = True
            return
        self.overtaken = False
        if self.reading is None or (busy and self.credit < 0):
            return
        begun = time.perf_counter()
        # a client that was answered a moment ago soon asks again, and then waits for the piece that was begun
        expected = busy or begun - self.last_step < RECENT
        self._go_on(self.reading, self.piece if expected else LONG_PIECE)
        self.credit = self.credit - (time.perf_counter() - begun) if busy else 0.0

    def _room_of_a_turn(self) -> int:
        """Tokens of prompts that are read before the next step: more where more wait than are held up by it.

        Where requests come all at once, the first few to run would else have the others wait for a step each.
        """
        places = min(len(self.waiting), self.slots - len(self.rows))
        piece = self.limits.piece_tokens
        return min(piece * max(1, places // len(self.rows)), max(piece, ALONE_PIECE), self.limits.batch_tokens)

    def _fits(self, writings: list[Writing], among: list[Writing] | None = None) -> bool:
        """Whether these can run beside those that run (or beside `among`), by places and by memory.

        A long prompt that is being read has its places from the beginning: it joins whenever it is read to its end.
        """
        running = [w for w, _ in self.rows] if among is None else among
        rows = len(self.rows) if among is None else sum(len(w.running) for w in among)
        if self.reading is not None:
            running = [*running, self.reading.writing]
            rows += self.reading.writing.copies
        rows += sum(w.copies for w in writings)
        longest = max(w.most for w in (*writings, *running))
        alone = not running and len(writings) == 1  # `submit` has seen that it fits
        return rows <= self.slots and (alone or rows * longest * self.token_bytes <= self.limits.memory_bytes)

    def _steps_until(self, first: Writing) -> int:
        """In how many steps at most there is room for a request that does not fit beside those that run."""
        running = sorted({w: None for w, _ in self.rows}, key=lambda w: w.remaining)
        while running:
            steps = running.pop(0).remaining
            if self._fits([first], running):
                return steps
        return 0

    def _begin(self, total: int, short: int, *, overtake: bool = False) -> bool:
        """Start on the prompts that wait: several short ones in one pass, or a long one in pieces.

        Args:
            total, short: tokens of one pass, and of a prompt that is read in one.
            overtake: only short ones, behind whatever long ones they stand; False where there is none.
        """
        if not self.waiting:
            return False
        first = self.waiting[0]
        held = self.prefixes.look_up(first.array)
        if overtake and len(first.ids) - (0 if held is None else held[1]) > short:
            behind = (w for w in list(self.waiting)[1:AMONG] if len(w.ids) <= short)
            found_short = next(behind, None)
            if found_short is None:
                return False
            first, held = found_short, self.prefixes.look_up(found_short.array)
        most_new: int | None = None  # tokens of those who may begin
        if not self._fits([first]):
            # who is over before there is room for the first that waits does not keep it waiting (EASY backfilling)
            most_new = self._steps_until(first)
            room = (
                w
                for w in list(self.waiting)[1:AMONG]
                if w.remaining <= most_new and len(w.ids) <= short and self._fits([w])
            )
            small = next(room, None)
            if small is None:
                return False
            first, held = small, self.prefixes.look_up(small.array)
        group, kept = [first], [0 if held is None else held[1]]
        longest = len(first.ids) - kept[0]
        if longest > short or not self.stays:
            if overtake or most_new is not None:
                return False
            self.waiting.remove(first)
            self.reading = Reading(first, Cache() if held is None else first_tokens(held[0].cache, 0, held[1]), kept[0])
            self._count_held([first], kept)
            return True
        for other in list(self.waiting)[:AMONG]:
            if other is first or (most_new is not None and other.remaining > most_new):
                continue
            found = self.prefixes.look_up(other.array)
            if (found and found[0]) is not (held and held[0]):
                continue
            if (
                held is None
                and self.prefixes.most_bytes
                and common_prefix_length(first.ids, other.ids) >= MIN_SPARED_TOKENS
            ):
                continue  # the next turn finds what this one keeps
            rest = len(other.ids) - (0 if found is None else found[1])
            wide = max(longest, rest)  # of what is held, all have a rest of the same length
            tokens = sum(len(w.ids) for w in group) + rest if held is None else wide * (len(group) + 1)
            same = held is None or wide <= min(len(w.ids) for w in (*group, other))
            if tokens > total or rest > short or not same or not self._fits([*group, other]):
                continue
            group.append(other)
            kept.append(0 if found is None else found[1])
            longest = wide
        chosen = set(map(id, group))
        self.waiting = deque(w for w in self.waiting if id(w) not in chosen)
        self._count_held(group, kept)
        try:
            logits, cache = self._pass(group, kept, None if held is None else held[0])
        except Exception as error:
            self.outbox += [(writing, error) for writing in group]
            return True
        self._join(group, logits, cache)
        return True

    def _count_held(self, group: list[Writing], kept: list[int]) -> None:
        for writing, n in zip(group, kept, strict=True):
            writing.cached = n
            self.metrics.prompt(self.name, len(writing.ids), n)

    def _pass(self, group: list[Writing], kept: list[int], held: Beginning | None) -> tuple[Tensor, Cache]:
        """Logits [prompts, V] after whole prompts, and their keys and values."""
        device = self.model.device
        texts = [w.ids for w in group]
        if held is not None:
            cache = first_tokens(held.cache, 0, max(kept))
            rest = continue_from(cache, kept, texts, device)
            if rest is not None:
                out = self.model(input_ids=rest, past_key_values=cache, use_cache=True, logits_to_keep=1)
                return out.logits[:, -1], cache
        longest = max(map(len, texts))
        ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts], device=device)
        mask = None
        if len(set(map(len, texts))) > 1:
            mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts], device=device)
        cache = Cache()
        out = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], cache

    def _go_on(self, reading: Reading, budget: int) -> None:
        """One piece of a long prompt; after the last one it joins those that are written."""
        writing, ids = reading.writing, reading.writing.ids
        if not self.stays:
            budget = len(ids)
        piece = ids[reading.done : reading.done + budget]
        last = reading.done + len(piece) == len(ids)
        inputs = {"input_ids": torch.tensor([piece], device=self.model.device), "past_key_values": reading.cache}
        begun = time.perf_counter()
        try:
            if not last:
                self.model.base(**inputs, use_cache=True)
                reading.done += len(piece)
                if self.rows:
                    self._adapt(time.perf_counter() - begun)
                return
            logits = self.model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1]
        except Exception as error:
            self.outbox.append((writing, error))
            self.reading = None
            return
        self.reading = None
        self._join([writing], logits, reading.cache)

    def _adapt(self, seconds: float) -> None:
        """Read more of a long prompt between two steps, or less, so that it takes about as long as a step."""
        if seconds > self.step_seconds:
            self.piece = max(min(LEAST_PIECE, self.limits.piece_tokens), self.piece // 2)
        elif seconds < self.step_seconds / 2:
            self.piece = min(self.limits.piece_tokens, self.piece * 2)

    def _join(self, group: list[Writing], logits: Tensor, cache: Cache) -> None:
        """The first token of each, and a place in the batch for those that go on."""
        index: list[int] = []
        for place, writing in enumerate(group):
            if self.prefixes.wants(writing.array):
                self.prefixes.add(writing.array, first_tokens(cache, place, len(writing.ids)))
            tokens = self._chosen(writing, logits[place : place + 1])
            going = {token.copy: token.id for token in tokens if token.end is None}
            for copy in writing.running if going else ():
                index.append(place)
                self.rows.append((writing, copy))
                self.newest.append(going[copy])
        if not index:
            return
        if index != list(range(len(group))):
            cache.select(torch.tensor(index))
        if self.stepper is None:
            self.stepper = self.model.decode_stepper()
        self.cache.join(cache)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """One token of every running text."""
        if not self.rows:
            return
        begun = time.perf_counter()
        ids = torch.tensor(self.newest, device=self.model.device)[:, None]  # [A, 1]
        if self.stepper is not None and self.stepper.is_unobserved:
            logits = self.stepper(ids, self.cache)[:, -1]
        else:
            out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True)
            logits = out.logits[:, -1]  # [A, V]
        self.last_step = time.perf_counter()
        took = self.last_step - begun
        self.step_seconds, self.credit = _mean(self.step_seconds, took), min(0.0, self.credit + SHARE * took)
        self.metrics.step(self.name, len(self.rows))
        places: dict[Writing, list[int]] = {}
        for row, (writing, _) in enumerate(self.rows):
            places.setdefault(writing, []).append(row)
        chosen = self._chosen_together(places, logits)
        left: list[int] = []
        for writing, rows in places.items():
            if chosen.get(rows[0], -1) >= 0:
                token = writing.take(chosen[rows[0]], logits[rows])
                self._note(writing, [token])
                self.newest[rows[0]] = token.id
                if token.end is not None:
                    left.append(rows[0])
                continue
            # the request's own order of its copies, which is not that of the batch
            by_copy = {self.rows[row][1]: row for row in rows}
            ordered = [by_copy[copy] for copy in writing.running]
            tokens = self._chosen(writing, logits[ordered])
            if not tokens:
                left += rows
            for token in tokens:
                self.newest[by_copy[token.copy]] = token.id
                if token.end is not None:
                    left.append(by_copy[token.copy])
        for row in left:
            self._keep(row)
        self._leave(left)

    @staticmethod
    def _chosen_together(places: dict[Writing, list[int]], logits: Tensor) -> dict[int, int]:
        """{row: its next token} of the plain texts, each the text's own; -1 where there is none to choose.

        places: {request: its rows}; logits [A, V].
        """
        ways: dict[tuple[float, ...] | None, list[Writing]] = {}
        for writing in places:
            if writing.plain:
                ways.setdefault(writing.way, []).append(writing)
        found: dict[int, int] = {}
        for way, writings in ways.items():
            rows = [places[writing][0] for writing in writings]
            scores = (logits if rows == list(range(len(logits))) else logits[rows]).float()  # [plain, V]
            if way is None:
                tokens = sampling.greedy(scores)
            else:
                search = writings[0].search
                uniform = torch.cat([writing.random() for writing in writings])  # [plain]
                some = len(writings) if search.plan.top_k else max(1, IN_CACHE // scores.shape[1])
                parts = zip(scores.split(some), uniform.split(some), strict=True)
                tokens = torch.cat([search.draw(*part, as_alone=True)[0] for part in parts])
            found |= zip(rows, tokens.tolist(), strict=True)
        return found

    def _keep(self, row: int) -> None:
        """Keep what a text that ends has read and written: the next message of a conversation begins with it."""
        writing, _ = self.rows[row]
        if writing.copies != 1 or not self.prefixes.most_bytes:
            return
        n = int(self.cache.lengths[row])  # all but the last token, which was not run
        ids = np.concatenate([writing.array, writing.written])[:n]
        if len(ids) == n and self.prefixes.wants(ids):
            self.prefixes.add(ids, first_tokens(self.cache, row, n))

    def _chosen(self, writing: Writing, logits: Tensor) -> list[Token]:
        """The tokens of one request; none, and an error for it, where there is none to choose."""
        try:
            tokens = writing.choose(logits)
        except GenerationError as error:
            self.outbox.append((writing, error))
            return []
        if writing.plain:  # its first token; `take` counts the others
            writing.left -= 1
        self._note(writing, tokens)
        return tokens

    def _note(self, writing: Writing, tokens: list[Token]) -> None:
        if writing.first is None:
            writing.first = time.monotonic()
            self.metrics.first_token(self.name, writing.first - writing.arrived)
        self.metrics.written(self.name, len(tokens))
        if writing.copies == 1:
            writing.written += [token.id for token in tokens]
        self.outbox += [(writing, token) for token in tokens]


def _mean(before: float, now: float) -> float:
    """A running mean that forgets."""
    return now if not before else before + 0.2 * (now - before)


def _hand_out(events: list[tuple[Writing, Token | BaseException]]) -> None:
    for writing, event in events:
        writing.events.put_nowait(event)

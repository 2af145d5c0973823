"""Texts of many requests in common passes through an encoder, each answer as it would be alone."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from cutaway.errors import InputError
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.fit import longest_input
from cutaway.pipelines.plan import Row
from cutaway.pipelines.row_faults import is_blank
from cutaway.serve.engine import Engine

CHARACTERS = 256


class Read(NamedTuple):
    """What a request's inputs gave: the typed results, how many tokens each input had, and the settings in full."""

    results: list[Any]
    tokens: list[int]
    settings: dict[str, Any]


@dataclass(eq=False)
class Pending:
    """One request's rows, of which the first `done` are computed."""

    pipe: Pipeline
    kind: tuple[int, str]
    rows: list[Row]
    settings: dict[str, Any]
    future: Future[list[Any]]
    outputs: list[Any] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.rows) - len(self.outputs)


class EncoderBatches:
    """The passes of one model.

    While one pass runs, the requests that arrive gather, and the next pass takes of all of them: no request is made to
    wait for others, and a long one shares each pass with those that came after it.
    """

    def __init__(self, engine: Engine, texts: ThreadPoolExecutor, batch_tokens: int) -> None:
        """texts: the one thread that the model's tokenizer belongs to."""
        self.engine, self.texts, self.batch_tokens = engine, texts, batch_tokens
        self.pending: deque[Pending] = deque()
        self.watch: Callable[[int, int], None] = lambda texts, tokens: None  # told of each pass

    async def run(self, pipe: Pipeline, items: Sequence[Any], **settings: object) -> Read:
        """The results of `items` (or of lists of token ids), by the pipeline's own rules.

        Raises InputError for an item or a setting that the pipeline does not take.
        """
        loop = asyncio.get_running_loop()
        future: Future[list[Any]] = Future()
        merged, checked, rows = await loop.run_in_executor(self.texts, read, pipe, items, settings)
        flat = [row for own in rows for row in own]
        kind = (id(pipe), json.dumps(settings, sort_keys=True, default=repr))
        self.pending.append(Pending(pipe, kind, flat, merged, future))
        self.engine.wake()
        outputs = await asyncio.wrap_future(future)

        def finish() -> list[Any]:
            found, first = [], 0
            for item, own in zip(checked, rows, strict=True):
                found.append(pipe.finish(item, own, outputs[first : first + len(own)], merged))
                first += len(own)
            return found

        results = await loop.run_in_executor(self.texts, finish)
        return Read(results, [sum(row.length for row in own) for own in rows], merged)

    def turn(self) -> bool:
        while self.pending and self.pending[0].future.cancelled():
            self.pending.popleft()
        if not self.pending:
            return False
        first = self.pending[0]
        # a copy: another thread may append meanwhile
        among = [p for p in tuple(self.pending) if p.kind == first.kind and not p.future.cancelled()]
        share = self.batch_tokens // len(among)
        taken: list[tuple[Pending, list[Row]]] = []
        room = self.batch_tokens
        for one in among:
            rows: list[Row] = []
            used = 0
            for row in one.rows[len(one.outputs) :]:
                if (rows or taken) and (used + row.length > max(share, 1) or row.length > room):
                    break
                rows.append(row)
                used += row.length
                room -= row.length
            if rows:
                taken.append((one, rows))
            if room <= 0:
                break
        flat = [row for _, rows in taken for row in rows]
        try:
            with torch.inference_mode():
                outputs = first.pipe._compute(flat, None, first.settings)
        except Exception as error:
            for one, _ in taken:
                self._end(one, error)
            return True
        self.watch(len(flat), sum(row.length for row in flat))
        at = 0
        for one, rows in taken:
            one.outputs += outputs[at : at + len(rows)]
            at += len(rows)
            if not one.left:
                self._end(one)
            elif one is self.pending[0]:
                self.pending.rotate(-1)
        return True

    def _end(self, one: Pending, error: BaseException | None = None) -> None:
        self.pending.remove(one)
        if not one.future.set_running_or_notify_cancel():
            return
        if error is None:
            one.future.set_result(one.outputs)
        else:
            one.future.set_exception(error)

    def fail(self, error: BaseException) -> None:
        while self.pending:
            self._end(self.pending[0], error)


def read(
    pipe: Pipeline, items: Sequence[Any], settings: dict[str, Any]
) -> tuple[dict[str, Any], list[Any], list[list[Row]]]:
    """The settings, the inputs and their rows, as a call of the pipeline makes them; called where the tokenizer is."""
    merged = pipe.ready({**pipe.settings, **pipe.defaults, **pipe._known(dict(settings))})
    if items and isinstance(items[0], list):  # token ids
        types = "token_type_ids" in pipe.tokenizer.model_input_names
        rows = [[Row({"input_ids": ids, **({"token_type_ids": [0] * len(ids)} if types else {})})] for ids in items]
        return merged, list(items), rows
    blank = next((place for place, item in enumerate(items) if _is_blank(item)), None)
    if blank is not None:
        raise InputError(f"Text {blank} is blank: {items[blank]!r:.60}. Leave blank texts out.")
    longest, ways = longest_input(pipe.model, pipe.tokenizer), merged.get("long")
    if longest is not None and ways != "window":
        items = [bounded(item, longest, cut=ways == "truncate") for item in items]
    checked = [pipe.check(item) for item in items]
    found = pipe.encode(checked, merged)
    empty = next((place for place, own in enumerate(found) if any(not row.length for row in own)), None)
    if empty is not None:
        raise InputError(f"Text {empty} has no tokens: {items[empty]!r:.60}. Leave empty texts out.")
    return merged, checked, found


def _is_blank(item: object) -> bool:
    """Whether an input has no text, or a pair no first one."""
    return is_blank(item.get("text", item.get("query", "-")) if isinstance(item, Mapping) else item)


def bounded(item: object, longest: int, *, cut: bool) -> object:
    """An input whose texts are not so long that reading them would keep others waiting; InputError where one is.

    A token has seldom more than a few characters: a text of CHARACTERS for each token that the model takes is too long
    whatever it says, and where it is to be cut, what lies behind them is.
    """
    if isinstance(item, dict):
        return {name: bounded(part, longest, cut=cut) for name, part in item.items()}
    if isinstance(item, list | tuple):
        return [bounded(part, longest, cut=cut) for part in item]
    most = CHARACTERS * longest
    if not isinstance(item, str) or len(item) <= most:
        return item
    if cut:
        return item[:most]
    raise InputError(f"The text {item[:40]!r}... has {len(item)} characters, and the model takes {longest} tokens.")

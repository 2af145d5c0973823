"""A text that goes on token by token, each with what else was likely; beside it what the model looked at.

A decoder goes on with the text; an encoder-decoder reads the text, and writes one of its own.

The tokens come at the model's full rate. A step leaves its queries and states where they were computed; what was looked
at is made of them afterwards, several tokens at once, so that watching costs a fraction of writing. Tokens are told of
together, too, twenty times a second: after each step the processor's caches hold weights, and whatever else runs waits.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from cutaway.errors import InputError
from cutaway.nn.call_context import Evaluation
from cutaway.serve.body import Body

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cutaway.inspect.pattern_rows import Kind
    from cutaway.inspect.tower import StackHandle
    from cutaway.models.protocols import GenerativeModel
    from cutaway.nn.kv_cache import Cache
    from cutaway.serve.served_model import ServedModel
    from cutaway.studio.feed import Feed

ALTERNATIVES = 10  # of each token
LAST = 50  # of the last distribution, by name
TOGETHER = 16  # tokens that are watched in one pass, at least
MOST_TOGETHER = 64  # and at most: a writer of many tokens a second is not stopped more often than it is looked at
LATE = 1.0  # seconds from one such pass to the next, at least
LENS_STATES = 4  # states that the lens reads, the last among them
SEEN = 0.05  # seconds from one word of new tokens to the next, at most
TIMED = 8  # tokens by which the rates with and without watching are compared

Probability = Annotated[float, Field(gt=0, le=1)]


class WriteBody(Body):
    """A text to go on with: as `text`, or as token `ids`; a temperature of 0 takes the likeliest token each time.

    An encoder-decoder reads `text`, and `ids` are what its decoder has written so far, the token it starts with first.
    `then` are words of the reader that come next, before the model goes on by itself.
    """

    model: str
    text: Annotated[str, Field(max_length=1_000_000)] = ""
    then: Annotated[str, Field(max_length=10_000)] = ""
    ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=65536)] | None = None
    tokens: Annotated[int, Field(ge=1, le=4096)] = 32
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_p: Probability = 1.0
    seed: int = 0
    forbid: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=4096)] = ()
    watch: bool = True
    layer: Annotated[int, Field(ge=0)] = 0


class Writer:
    """One text being written; `steps` is its work, a token at a time."""

    def __init__(self, served: ServedModel, body: WriteBody, feed: Feed) -> None:
        import torch

        self.served, self.body, self.feed, self.model = served, body, feed, served.model
        is_pair = self.model.is_encoder_decoder
        if served.generator is None and not (is_pair and hasattr(self.model, "decode_stepper")):
            raise InputError(f"{served.name} writes no texts; take a decoder or an encoder-decoder.")
        read = served.explainer(body.text, verbose=False)["input_ids"]
        if not body.text.strip() if is_pair else not read and not body.ids:
            raise InputError("The text is empty: there is nothing to go on with. Give at least one word.")
        self.source: list[int] | None = list(read) if is_pair else None  # what an encoder reads
        self.settings = Settings.of(self.model)
        ids = body.ids if body.ids is not None else [self.settings.start] if is_pair else read
        if not ids:
            raise InputError("ids is empty: give at least the token that the text begins with.")
        writer = self.model.architecture.writer
        size = int(writer.embedding.vocab_size)
        bad = next((id for id in (*ids, *body.forbid) if id >= size), None)
        if bad is not None:
            raise InputError(f"ids holds {bad}, and the vocabulary has {size} tokens.")
        self.then: list[int] = served.explainer(body.then, add_special_tokens=False)["input_ids"] if body.then else []
        self.ids: list[int] = list(ids)
        self.prompt = len(self.ids)
        self.random = torch.Generator().manual_seed(body.seed)
        self.last: torch.Tensor | None = None  # [V], the logits that the last token was taken from
        self.never = [*body.forbid, *(self.settings.never if is_pair else ())]
        self.ends = self.settings.ends
        self.quiet = Quiet(self.model)
        self._labels: dict[int, str] = {}
        self.likeliest: dict[int, tuple[int, float]] = {}  # {position: what the model would have said there, its share}
        self._untold: list[Taken] = []
        self._told = 0.0  # when tokens were last told of
        self.encoded: dict[str, torch.Tensor | tuple[torch.Tensor]] = {}  # what the decoder looks at, once it was read
        given = self.prompt + len(self.then)
        self.longest = writer.longest if is_pair else served.longest
        for name, n, most in (("text", len(read), served.longest), ("ids", given, self.longest)):
            if most is not None and n >= most and (is_pair or name == "ids"):
                raise InputError(f"{'text' if not is_pair else name} has {n} tokens, and {served.name} takes {most}.")

    def steps(self) -> Iterator[None]:
        """The work; between two steps no context is open, since the engine does other things there."""
        import torch

        room = (self.longest or 10**9) - self.prompt - len(self.then)
        most = min(self.body.tokens, room)
        start = {"ids": self.ids, "labels": [self.label(id) for id in self.ids], "most": most}
        if self.source is not None:
            start["source"] = [self.label(id) for id in self.source]
        self.feed.offer("start", start)
        watcher = Watcher(self, self.body.layer) if self.body.watch else None
        with self.quiet:
            ids = [*self.ids, *self.then]
            keep = len(self.then) + 1
            read, cache = self.read(ids, keep=keep) if watcher is None else watcher.read(ids, keep=keep)
            logits = read[-1].float()  # [V]
            for at, id in enumerate(self.then):
                self._keep(id, read[at].float(), Likely.of(read[at].float(), ALTERNATIVES))
            stepper = self.model.decode_stepper()
            if watcher is not None and stepper is not None:
                watcher.peeked = stepper.peek(watcher.places)
        try:
            yield
            begun, writing = time.perf_counter(), 0.0
            for number in range(most):
                turn = time.perf_counter()
                with self.quiet:
                    id = self._take(logits)
                    if id in self.ends or number == most - 1:
                        writing += time.perf_counter() - turn
                        break
                    if stepper is not None and stepper.is_unobserved:
                        states = self.encoded["encoder_outputs"][0] if self.encoded else None
                        out = stepper(torch.tensor([[id]]), cache, states, self.encoded.get("attention_mask"))
                        logits = out[0, -1].float()  # [V]
                        writing += time.perf_counter() - turn
                        if watcher is not None:
                            watcher.take()
                    else:
                        reader = self if watcher is None else watcher
                        logits = reader.read([id], cache)[0][-1].float()
                        writing += time.perf_counter() - turn
                    if time.perf_counter() - self._told > SEEN:
                        turn = time.perf_counter()
                        self.tell()
                        writing += time.perf_counter() - turn
                yield
                if watcher is not None and watcher.is_due:
                    with self.quiet:
                        watcher.tell(cache)
                    yield
            self.tell()
            if watcher is not None:
                with self.quiet:
                    watcher.tell(cache)
            written = len(self.ids) - self.prompt - len(self.then)
            spent = writing + (watcher.seconds if watcher is not None else 0.0)
            rates = {"without": written / max(writing, 1e-9), "with": written / spent if watcher is not None else None}
            self.feed.offer("rate", {**rates, "seconds": time.perf_counter() - begun, "tokens": written})
        finally:
            self.tell()
            if stepper is not None:
                stepper.release()  # the next text goes on with the step that was captured

    def read(self, ids: Sequence[int], cache: Cache | None = None, keep: int = 0) -> tuple[torch.Tensor, Cache]:
        """Logits [tokens, V] at tokens that follow the cache, which is given back. An encoder reads its text once.

        keep: the logits of so many last tokens alone; 0 for those of all.
        """
        import torch

        own = torch.tensor([list(ids)])
        if self.source is None:
            out = self.model(input_ids=own, past_key_values=cache, use_cache=True, logits_to_keep=keep)
            return out.logits[0], out.past_key_values
        if not self.encoded:
            source = torch.tensor([self.source])
            mask = torch.ones_like(source)
            states = self.model.encode(source, mask).last_hidden_state
            self.encoded = {"encoder_outputs": (states,), "attention_mask": mask}
        out = self.model(
            **self.encoded, decoder_input_ids=own, past_key_values=cache, use_cache=True, logits_to_keep=keep
        )
        return out.logits[0], out.past_key_values

    def _take(self, logits: torch.Tensor) -> int:
        """The next token."""
        self.last = allowed = logits
        if self.never:
            allowed = logits.clone()
            allowed[self.never] = float("-inf")
        forced = self.settings.first if self.source is not None and len(self.ids) == 1 else None
        likely = Likely.of(logits, ALTERNATIVES)
        if forced is not None:
            id = forced
        elif self.body.temperature == 0 and allowed is logits:
            id = likely.first
        else:
            id = self._drawn(allowed)
        self._keep(id, logits, likely)
        return id

    def _keep(self, id: int, logits: torch.Tensor, likely: Likely) -> None:
        """Put a token behind the text; it is told of with others."""
        apart = 0.0 if id == likely.first else float(logits[id]) - float(logits[likely.first])
        self._untold.append(Taken(len(self.ids), id, apart, likely))
        self.ids.append(id)

    def tell(self) -> None:
        """The events of the tokens that were taken since: what else was likely there."""
        taken, self._untold, self._told = self._untold, [], time.perf_counter()
        if taken:
            self.feed.offer_all("token", map(self._event, taken))

    def _event(self, taken: Taken) -> dict[str, object]:
        ids, log_p, entropy = taken.likely.numbers()
        shares = [math.exp(one) for one in log_p]
        self.likeliest[taken.position] = ids[0], shares[0]
        return {
            "position": taken.position, "id": taken.id, "label": self.label(taken.id), "end": taken.id in self.ends,
            "probability": math.exp(log_p[0] + taken.apart), "entropy": entropy,
            "top": [[other, self.label(other), share] for other, share in zip(ids, shares, strict=True)],
        }  # fmt: skip

    def _drawn(self, logits: torch.Tensor) -> int:
        """softmax(logits / temperature), the fewest tokens that hold `top_p` of it (Holtzman et al., 2020)."""
        import torch

        if self.body.temperature == 0:
            return most_of(logits, 1)[0][0]
        shares = (logits / self.body.temperature).softmax(-1)
        ordered = shares.sort(descending=True)
        kept = ordered.values.cumsum(-1) - ordered.values < self.body.top_p  # the first always
        at = int(torch.multinomial(ordered.values * kept, 1, generator=self.random))
        return int(ordered.indices[at])

    def label(self, id: int) -> str:
        if id not in self._labels:
            self._labels[id] = label_of(self.served, id)
        return self._labels[id]


@dataclass(frozen=True)
class Settings:
    """What a model's own settings say of every text that it writes, as `generate` follows them.

    Attributes:
        start: the token that a decoder starts with, where an encoder read the text. first: the token that always comes
            after it, or None (BART's and mBART's). never: tokens that are never written (Marian's padding).
        ends: those that end a text.
    """

    start: int
    first: int | None
    never: tuple[int, ...]
    ends: frozenset[int]

    @classmethod
    def of(cls, model: GenerativeModel) -> Settings:
        def said(name: str) -> object:
            own = getattr(getattr(model, "generation_config", None), name, None)
            return getattr(model.config, name, None) if own is None else own

        start, first, end, never = map(
            said, ("decoder_start_token_id", "forced_bos_token_id", "eos_token_id", "bad_words_ids")
        )
        ends = frozenset(end if isinstance(end, list | tuple) else () if not isinstance(end, int) else (end,))
        alone = [words[0] for words in never if len(words) == 1] if isinstance(never, list | tuple) else []
        return cls(
            start if isinstance(start, int) else 0,
            first if isinstance(first, int) else None,
            tuple(id for id in alone if id not in ends),
            ends,
        )


@dataclass(frozen=True)
class Likely:
    """What a step finds likely, as tensors; `numbers` gives it.

    Attributes:
        first: the likeliest token. ids: the likeliest ones, [n], of equals the first first. log_p: the logarithms of
            their probabilities, [n]. entropy: of all tokens, in nats, one number.
    """

    first: int
    ids: torch.Tensor
    log_p: torch.Tensor
    entropy: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, count: int) -> Likely:
        """The `count` likeliest of logits [V]. Torch orders a vocabulary for it; a kernel keeps the best in passing."""
        import torch

        from cutaway.nn.cpu.ops import best_and_entropy

        found = best_and_entropy(logits[None], min(count, len(logits)))
        if found is not None:
            log_p, ids, entropy = found[0][0], found[1][0], found[2]
            if math.isfinite(float(log_p[-1])):  # the smallest; where a logit is no number, none is
                return cls(int(ids[0]), ids, log_p, entropy)
        ids = logits.sort(descending=True, stable=True).indices[:count]
        of_all = logits.log_softmax(-1)
        entropy = -torch.dot(of_all.exp(), of_all.clamp(min=-1e30))  # 0 times what is impossible is 0
        return cls(int(ids[0]), ids, of_all[ids], entropy)

    def numbers(self) -> tuple[list[int], list[float], float]:
        """(ids, log_p, entropy)"""
        return self.ids.tolist(), self.log_p.tolist(), float(self.entropy)


class Taken(NamedTuple):
    """A token that was taken.

    Attributes:
        position: its place in the text. apart: its logit less that of the likeliest. likely: what was, there.
    """

    position: int
    id: int
    apart: float
    likely: Likely


def most_of(logits: torch.Tensor, count: int) -> tuple[list[int], list[float], float]:
    """Where the largest of logits [V] stand, the largest first, of equals the first first; their log-probabilities.

    And the entropy of all.
    """
    return Likely.of(logits, count).numbers()


def likeliest_of(logits: torch.Tensor) -> list[list[tuple[int, float]]]:
    """[tokens][states] of (the likeliest token, its probability), of logits [tokens, states, V]."""
    from cutaway.nn.cpu.ops import best_and_entropy

    rows = logits.flatten(0, 1)  # [tokens * states, V]
    found = best_and_entropy(rows, 1)
    if found is None or not bool(found[0].isfinite().all()):  # where a logit is no number, none is a probability
        log_p, ids = rows.log_softmax(-1).max(-1)
    else:
        log_p, ids = found[0][:, 0], found[1][:, 0]
    shape = logits.shape[:2]
    pairs = zip(ids.view(shape).tolist(), log_p.exp().view(shape).tolist(), strict=True)
    return [list(zip(*pair, strict=True)) for pair in pairs]


def label_of(served: ServedModel, id: int) -> str:
    """A token as a reader should see it."""
    from cutaway.show.label import token_label

    tokenizer = served.explainer
    return token_label(tokenizer, tokenizer.convert_ids_to_tokens(id), id, id in tokenizer.all_special_ids)


class Watcher:
    """Tells what each token looked at, and what layers would have said in its place.

    A step of decoding leaves its queries and states where they were computed, so they are taken from there; patterns
    and the lens are made of them for several tokens at once, since the lens reads the whole output matrix.
    """

    def __init__(self, writer: Writer, layer: int) -> None:
        from cutaway.inspect.tower import tower_of

        self.writer, self.model, self.layer = writer, writer.model, layer
        tower: StackHandle = tower_of(writer.model)
        n = tower.spec.n_layers
        if layer >= n:
            raise InputError(f"layer={layer} is not there: layers go from 0 to {n - 1}.")
        self.tower = tower
        self.kinds: dict[str, Kind] = {"attn": "decoder" if writer.source is not None else "self"}
        if writer.source is not None:
            self.kinds["cross"] = "cross"
        if tower.spec.attention.distances is not None:
            raise InputError(f"{writer.served.name} compares every distance with every word; write without watching.")
        self.some = sorted({round((i + 1) * n / LENS_STATES) - 1 for i in range(LENS_STATES)} - {-1})
        self.states = [tower.at(f"blocks.{i}.resid") for i in self.some]
        self.queries = [(layer, f"{part}.q") for part in self.kinds]
        self.rows: list[Row] = []  # what was read and is not told yet
        self.seconds, self.last = 0.0, time.perf_counter()
        self.peeked: Mapping[tuple[int, str], torch.Tensor] = {}
        # what is taken of each step; the last state's answer is the model's own, and is known
        self.places = [*((i, "resid") for i in self.some[:-1]), *self.queries]

    @property
    def is_due(self) -> bool:
        """Whether so many tokens wait that they are worth a pass through the output matrix."""
        waiting = len(self.rows)
        return waiting >= MOST_TOGETHER or (waiting >= TOGETHER and time.perf_counter() - self.last > LATE)

    def read(self, ids: Sequence[int], cache: Cache | None = None, keep: int = 0) -> tuple[torch.Tensor, Cache]:
        """As the writer's; the rows that a written token is taken from are kept."""
        first = 0 if cache is None else len(self.writer.ids) - len(ids)
        names = {place: self.tower.at(f"blocks.{place[0]}.{place[1]}") for place in self.places}
        with self.model.record(*names.values()) as seen:
            logits, cache = self.writer.read(ids, cache, keep)
        for at in range(max(self.writer.prompt - 1 - first, 0), len(ids)):
            self._keep(first + at, [seen[name][0, at] for name in names.values()])
        return logits, cache

    def take(self) -> None:
        """Keep what the writer's last step left."""
        begun = time.perf_counter()
        # states [texts, 1, H] and queries [texts, heads, head_size], of which a captured step may have more than one
        self._keep(len(self.writer.ids) - 1, [self.peeked[one][0] for one in self.places])
        self.seconds += time.perf_counter() - begun

    def _keep(self, place: int, values: Sequence[torch.Tensor]) -> None:
        """values: states [H], then queries [heads, head_size]; the engine writes over them."""
        import torch

        self.rows.append(Row(place + 1, torch.cat([value.reshape(-1) for value in values])))

    def _apart(self, rows: Sequence[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """States [tokens, states, H] and {part: queries [heads, tokens, head_size]} of these rows."""
        import torch

        attention, width = self.tower.spec.attention, self.tower.spec.hidden_size
        values, n = torch.stack([row.values for row in rows]), (len(self.some) - 1) * width
        parts = (len(self.kinds), attention.n_heads, attention.head_size)
        queries = values[:, n:].unflatten(1, parts).permute(1, 2, 0, 3)  # [parts, heads, tokens, head_size]
        states = values[:, :n].unflatten(1, (-1, width)) if n else values[:, :0, None]  # [tokens, states, H]
        return states, dict(zip(self.kinds, queries, strict=True))

    def tell(self, cache: Cache) -> None:
        """Tell of the tokens that were written since."""
        import torch

        from cutaway.inspect.lens import read_state
        from cutaway.inspect.pattern_rows import rows_of

        self.writer.tell()
        begun, writer = time.perf_counter(), self.writer
        told = [row for row in self.rows if row.position in writer.likeliest]
        self.rows = [row for row in self.rows if row.position not in writer.likeliest]
        lens: list[list[tuple[int, float]]] = [[] for _ in told]
        patterns: dict[str, np.ndarray] = {}
        if told:
            states, queries = self._apart(told)
            if states.shape[1]:
                lens = likeliest_of(read_state(self.model, states, self.tower).float())
            at = torch.tensor([row.position - 1 for row in told])
            for part, kind in self.kinds.items():
                keys = cache.cross[self.layer][0] if part == "cross" else cache.layers[self.layer].keys
                assert keys is not None
                pattern = rows_of(self.tower, kind, self.layer, queries[part], keys[0], at)  # [heads, tokens, keys]
                patterns[part] = (pattern.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        for i, (row, answers) in enumerate(zip(told, lens, strict=True)):
            answers.append(writer.likeliest[row.position])
            parts = {
                part: _shares(self.tower.at(f"blocks.{self.layer}.{part}.pattern"),
                              pattern[:, i, : row.position if part == "attn" else None])
                for part, pattern in patterns.items()
            }  # fmt: skip
            event = {"position": row.position, **parts["attn"], "places": self.states,
                     "lens": [[[writer.label(id), share]] for id, share in answers]}  # fmt: skip
            if "cross" in parts:
                event["source"] = parts["cross"]
            writer.feed.offer("watched", event, optional=True)
        self.last = time.perf_counter()
        self.seconds += self.last - begun


@dataclass(frozen=True)
class Row:
    """What was there when the token at `position` was taken.

    Attributes:
        values: the states that the lens reads, and the queries of the layer that is watched, one behind the other.
    """

    position: int
    values: torch.Tensor


def _shares(place: str, codes: np.ndarray) -> dict[str, object]:
    """What one token gave to others, [heads, keys], a byte each."""
    content = base64.b64encode(codes.tobytes()).decode()
    return {"place": place, "shape": list(codes.shape), "dtype": "u8", "scale": 1 / 255, "attention": content}


class Quiet:
    """Evaluation, without gradients: again and again, one after the other."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._evaluation = Evaluation(model)
        self._inside = ExitStack()

    def __enter__(self) -> None:
        import torch

        self._inside = ExitStack()
        self._inside.enter_context(torch.no_grad())
        self._inside.enter_context(self._evaluation())

    def __exit__(self, *error: object) -> None:
        self._inside.close()


def last_distribution(writer: Writer) -> tuple[torch.Tensor, list[tuple[int, str]]]:
    """The logits [V] of the last step, and its likeliest tokens by name: temperature changes no order among them."""
    assert writer.last is not None
    return writer.last, [(id, writer.label(id)) for id in most_of(writer.last, LAST)[0]]

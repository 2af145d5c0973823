"""A text that goes on token by token, each with what else was likely; beside it what the model looked at.

A decoder goes on with the text; an encoder-decoder reads the text, and writes one of its own.

The tokens come at the model's full rate. What it looked at is read afterwards, several tokens in one pass: the weights
are then read once for all of them, so that watching costs a fraction of writing.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cutaway.errors import InputError
from cutaway.nn.call_context import Evaluation
from cutaway.serve.body import Body

if TYPE_CHECKING:
    import torch

    from cutaway.inspect.tower import StackHandle
    from cutaway.models.protocols import GenerativeModel
    from cutaway.nn.kv_cache import Cache
    from cutaway.serve.served_model import ServedModel
    from cutaway.studio.feed import Feed

ALTERNATIVES = 10  # of each token
LAST = 50  # of the last distribution, by name
TOGETHER = 16  # tokens that are watched in one pass
LENS_STATES = 6  # states that the lens reads, the last among them
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
        start = {"ids": self.ids, "labels": [self._label(id) for id in self.ids], "most": most}
        if self.source is not None:
            start["source"] = [self._label(id) for id in self.source]
        self.feed.offer("start", start)
        watcher = Watcher(self, self.body.layer) if self.body.watch else None
        with _quiet(self.model):
            read, cache = self.read([*self.ids, *self.then])
            logits = read[-1].float()  # [V]
            for at, id in enumerate(self.then, start=self.prompt - 1):
                self._tell(id, read[at].float())
            stepper = self.model.decode_stepper()
        yield
        begun, writing = time.perf_counter(), 0.0
        for number in range(most):
            turn = time.perf_counter()
            with _quiet(self.model):
                id = self._take(logits)
                if id in self.ends or number == most - 1:
                    writing += time.perf_counter() - turn
                    break
                if stepper is not None and stepper.is_unobserved:
                    states = self.encoded["encoder_outputs"][0] if self.encoded else None
                    logits = stepper(torch.tensor([[id]]), cache, states, self.encoded.get("attention_mask"))[
                        0, -1
                    ].float()
                else:
                    logits = self.read([id], cache)[0][-1].float()
            writing += time.perf_counter() - turn
            yield
            if watcher is not None and len(self.ids) - watcher.seen >= TOGETHER + 1:
                with _quiet(self.model):
                    watcher.watch()
                yield
        if watcher is not None and len(self.ids) - watcher.seen > 1:
            with _quiet(self.model):
                watcher.watch()
        written = len(self.ids) - self.prompt - len(self.then)
        spent = writing + (watcher.seconds if watcher is not None else 0.0)
        rates = {"without": written / max(writing, 1e-9), "with": written / spent if watcher is not None else None}
        self.feed.offer("rate", {**rates, "seconds": time.perf_counter() - begun, "tokens": written})

    def read(self, ids: Sequence[int], cache: Cache | None = None) -> tuple[torch.Tensor, Cache]:
        """Logits [tokens, V] at tokens that follow the cache, which is given back. An encoder reads its text once."""
        import torch

        own = torch.tensor([list(ids)])
        if self.source is None:
            out = self.model(input_ids=own, past_key_values=cache, use_cache=True)
            return out.logits[0], out.past_key_values
        if not self.encoded:
            source = torch.tensor([self.source])
            mask = torch.ones_like(source)
            states = self.model.encode(source, mask).last_hidden_state
            self.encoded = {"encoder_outputs": (states,), "attention_mask": mask}
        out = self.model(**self.encoded, decoder_input_ids=own, past_key_values=cache, use_cache=True)
        return out.logits[0], out.past_key_values

    def _take(self, logits: torch.Tensor) -> int:
        """The next token."""
        self.last = allowed = logits
        if self.never:
            allowed = logits.clone()
            allowed[self.never] = float("-inf")
        forced = self.settings.first if self.source is not None and len(self.ids) == 1 else None
        id = self._drawn(allowed) if forced is None else forced
        self._tell(id, logits)
        return id

    def _tell(self, id: int, logits: torch.Tensor) -> None:
        """Put a token behind the text, and the event that tells of it: what else was likely there."""
        shares = logits.log_softmax(-1)
        p = shares.exp()
        entropy = float(-(p * shares.clamp(min=-1e30)).sum())  # nats
        best = shares.topk(min(ALTERNATIVES, shares.numel()))
        likely = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        self.feed.offer("token", {
            "position": len(self.ids), "id": id, "label": self._label(id), "end": id in self.ends,
            "probability": float(p[id]), "entropy": entropy,
            "top": [[other, self._label(other), share] for other, share in likely],
        })  # fmt: skip
        self.ids.append(id)

    def _drawn(self, logits: torch.Tensor) -> int:
        """softmax(logits / temperature), the fewest tokens that hold `top_p` of it (Holtzman et al., 2020)."""
        import torch

        if self.body.temperature == 0:
            return int(logits.argmax())
        shares = (logits / self.body.temperature).softmax(-1)
        ordered = shares.sort(descending=True)
        kept = ordered.values.cumsum(-1) - ordered.values < self.body.top_p  # the first always
        at = int(torch.multinomial(ordered.values * kept, 1, generator=self.random))
        return int(ordered.indices[at])

    def _label(self, id: int) -> str:
        return label_of(self.served, id)


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


def label_of(served: ServedModel, id: int) -> str:
    """A token as a reader should see it."""
    from cutaway.show.label import token_label

    tokenizer = served.explainer
    return token_label(tokenizer, tokenizer.convert_ids_to_tokens(id), id, id in tokenizer.all_special_ids)


class Watcher:
    """Reads what was written once more, with a cache of its own, and tells what each token looked at."""

    def __init__(self, writer: Writer, layer: int) -> None:
        from cutaway.inspect.tower import tower_of

        self.writer, self.model = writer, writer.model
        tower: StackHandle = tower_of(writer.model)
        n = tower.spec.n_layers
        if layer >= n:
            raise InputError(f"layer={layer} is not there: layers go from 0 to {n - 1}.")
        self.tower, self.pattern = tower, tower.at(f"blocks.{layer}.attn.pattern")
        self.cross = tower.at(f"blocks.{layer}.cross.pattern") if writer.source is not None else None
        some = sorted({round((i + 1) * n / LENS_STATES) - 1 for i in range(LENS_STATES)} - {-1})
        self.states = [tower.at(f"blocks.{i}.resid") for i in some]
        self.seen, self.seconds = 0, 0.0
        self.cache: Cache | None = None

    def watch(self) -> None:
        """All tokens but the last, which the model has not read yet."""
        import torch

        from cutaway.inspect.lens import read_state

        begun = time.perf_counter()
        ids = self.writer.ids[self.seen : -1]
        crossed = [] if self.cross is None else [self.cross]
        with self.model.record(self.pattern, *crossed, *self.states) as seen:
            _, self.cache = self.writer.read(ids, self.cache)
        first = max(self.writer.prompt - 1, self.seen)  # the place that the first new token was taken from
        rows = slice(first - self.seen, None)
        states = torch.stack([seen[place][0, rows] for place in self.states])  # [states, n, H]
        best = read_state(self.model, states, self.tower).float().softmax(-1).topk(3)
        pattern = seen[self.pattern][0, :, rows]  # [heads, n, keys]
        of_source = None if self.cross is None else seen[self.cross][0, :, rows]  # [heads, n, source]
        for i in range(pattern.shape[1]):
            keys = first + i + 1
            lens = [
                [[label_of(self.writer.served, id), share] for id, share in zip(*pair, strict=True)]
                for pair in zip(best.indices[:, i].tolist(), best.values[:, i].tolist(), strict=True)
            ]
            told = {
                "position": keys,
                **_shares(self.pattern, pattern[:, i, :keys]),
                "places": self.states,
                "lens": lens,
            }
            if self.cross is not None and of_source is not None:
                told["source"] = _shares(self.cross, of_source[:, i])
            self.writer.feed.offer("watched", told, optional=True)
        self.seen += len(ids)
        self.seconds += time.perf_counter() - begun


def _shares(place: str, pattern: torch.Tensor) -> dict[str, object]:
    """What one token gave to others, [heads, keys], in bytes."""
    import torch

    codes = (pattern.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    content = base64.b64encode(codes.numpy().tobytes()).decode()
    return {"place": place, "shape": list(codes.shape), "dtype": "u8", "scale": 1 / 255, "attention": content}


def _quiet(model: torch.nn.Module) -> _Quiet:
    return _Quiet(model)


class _Quiet:
    """Evaluation, without gradients."""

    def __init__(self, model: torch.nn.Module) -> None:
        import torch

        self._evaluation, self._gradients = Evaluation(model)(), torch.no_grad()

    def __enter__(self) -> None:
        self._gradients.__enter__()
        self._evaluation.__enter__()

    def __exit__(self, *error: object) -> None:
        self._evaluation.__exit__(None, None, None)
        self._gradients.__exit__(None, None, None)


def last_distribution(writer: Writer) -> tuple[torch.Tensor, list[tuple[int, str]]]:
    """The logits [V] of the last step, and its likeliest tokens by name: temperature changes no order among them."""
    assert writer.last is not None
    best: Sequence[int] = writer.last.topk(min(LAST, writer.last.numel())).indices.tolist()
    return writer.last, [(id, label_of(writer.served, id)) for id in best]

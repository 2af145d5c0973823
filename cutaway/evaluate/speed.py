"""How fast a model is on this machine: loading, one text, many texts, writing; in each number format."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.errors import CutawayError, InputError

if TYPE_CHECKING:
    import numpy as np

VOCABULARY = (
    "a the this that one its film story actor scene music camera plot director ending character hour minute screen "
    "is was feels seems becomes remains moves tells shows gives keeps loses finds makes turns plays wants leaves "
    "slow quick warm cold funny clever honest dull strange gentle brave empty long bright tired careful familiar "
    "and but because while although with without about through for never always almost hardly often simply still"
)
WORDS = VOCABULARY.split()
NEW_TOKENS, PROMPT_WORDS = 32, 12


@dataclass(frozen=True)
class Speed:
    """One number format.

    Attributes:
        dtype: its name.
        load_seconds: until the model can be called.
        p50_ms, p99_ms: one text alone: its vector, or its continuation by one token.
        tokens_per_second: many texts together (an encoder), or the tokens written for one text (a decoder).
        agreement: the least cosine of a text's vector with that of the first format (an encoder), or the share of equal
            tokens in the texts written (a decoder).
        error: why there are no figures.
    """

    dtype: str
    load_seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    tokens_per_second: float = 0.0
    agreement: float = 0.0
    error: str = ""


def sentences(count: int, seed: int = 7) -> list[str]:
    """`count` sentences of 4 to 40 words, most of them about 20 words long; the same for the same seed."""
    chance = random.Random(seed)
    lengths = (min(40, max(4, round(chance.gauss(20, 8)))) for _ in range(count))
    return [" ".join(chance.choice(WORDS) for _ in range(length)).capitalize() + "." for length in lengths]


def measure(model: str, dtypes: Sequence[str], texts: Sequence[str], rounds: int = 5, **load: object) -> list[Speed]:
    """The figures of each format; formats take turns, after one round that does not count.

    Args:
        model: a name, a folder or a .gguf file.
        dtypes: formats as `from_pretrained` takes them; the first is what the others are compared with.
        texts: what an encoder reads; a decoder goes on from the first words of each.
        rounds: measured rounds; figures are medians over them.
        load: further arguments of `from_pretrained`.

    Raises:
        InputError: no text. HubError, CheckpointError: the model cannot be loaded in the first format.
    """
    if not texts:
        raise InputError("There is no text to measure on.")
    trials = [_Trial(model, dtype, list(texts), load) for dtype in dtypes]
    if trials[0].failure is not None:
        raise trials[0].failure
    running = [trial for trial in trials if trial.failure is None]
    for number in range(rounds + 1):
        for trial in running:
            trial.round(counts=number > 0)
    return [trial.speed(trials[0]) for trial in trials]


class _Trial:
    """One format of the model and its times so far."""

    def __init__(self, model: str, dtype: str, texts: list[str], load: dict[str, Any]) -> None:
        from cutaway.pipelines import pipeline

        self.dtype, self.texts = dtype, texts
        self.failure: CutawayError | None = None
        self.single: list[float] = []
        self.rates: list[float] = []
        try:
            start = time.perf_counter()
            self.pipe = pipeline(None, model, dtype=dtype, **load)
            self.writes = bool(self.pipe.model.can_generate())
            if not self.writes:
                start = time.perf_counter()
                self.pipe = pipeline("feature-extraction", model, dtype=dtype, **load)
        except CutawayError as error:
            self.failure = error
            return
        self.load_seconds = time.perf_counter() - start
        self.tokens = sum(len(ids) for ids in self.pipe.tokenizer(texts, truncation=True)["input_ids"])
        self.result: Any = self.written(NEW_TOKENS) if self.writes else self.vectors(texts)

    def vectors(self, texts: list[str]) -> np.ndarray:
        """[texts, hidden]"""
        vectors: np.ndarray = self.pipe(texts, pooling="mean", return_tensors="np", truncation=True)
        return vectors

    def written(self, tokens: int) -> list[int]:
        """New token ids for the first text."""
        start = " ".join(self.texts[0].split()[:PROMPT_WORDS])
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        (result,) = self.pipe.each([start], **options)
        return list(result.tokens[0])

    def round(self, counts: bool) -> None:
        one = (lambda: self.written(1)) if self.writes else (lambda: self.vectors(self.texts[:1]))
        single = [_seconds(one) for _ in range(5)]
        many = (lambda: self.written(NEW_TOKENS)) if self.writes else (lambda: self.vectors(self.texts))
        rate = (NEW_TOKENS if self.writes else self.tokens) / _seconds(many)
        if counts:
            self.single += single
            self.rates.append(rate)

    def speed(self, first: _Trial) -> Speed:
        if self.failure is not None:
            return Speed(self.dtype, error=str(self.failure))
        single = sorted(1000 * seconds for seconds in self.single)
        return Speed(
            self.dtype,
            self.load_seconds,
            statistics.median(single),
            single[min(len(single) - 1, round(0.99 * len(single)))],
            statistics.median(self.rates),
            self.agreement(first),
        )

    def agreement(self, first: _Trial) -> float:
        if self.writes:
            return statistics.fmean(a == b for a, b in zip(self.result, first.result, strict=True))
        import numpy as np

        dots = (self.result * first.result).sum(axis=1)
        lengths = np.linalg.norm(self.result, axis=1) * np.linalg.norm(first.result, axis=1)
        return float((dots / lengths).min())


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

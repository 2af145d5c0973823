"""Everything that one run of a model showed, as plain data: it needs neither the model nor torch to be read."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from cutaway.errors import InputError, nearest
from cutaway.inspect.measures import MEANING, Array
from cutaway.show.label import clipped, printable
from cutaway.show.sheet import Bars, Grid, Part, Sheet, Table
from cutaway.show.shown import Shown

SCHEMA = "cutaway.explanation/1"
Kind = Literal["labels", "next-token", "target", "mask", "states", "token-labels", "span", "choices"]


@dataclass(frozen=True)
class Candidate:
    """One possible answer: a class (its index and name) or a token (its id and text)."""

    id: int
    label: str
    logit: float
    probability: float


@dataclass(frozen=True)
class LensGrid:
    """The logit lens: `ids`, `probability` [states, L, k]; `kl` [states, L] in nats; `labels` of the ids."""

    tokens: str
    places: list[str]
    ids: list[list[list[int]]]
    probability: Array
    kl: Array
    labels: dict[str, str]


@dataclass(frozen=True)
class Scores:
    """One attribution method's scores [L] of the text's tokens; see `cutaway.inspect.attribution.Attribution`."""

    method: str
    scores: Array
    value: float
    base: float
    residual: float | None
    steps: int
    note: str


@dataclass(frozen=True)
class Parts:
    """What each part of the model added to an answer; `base` and the values sum to `total`.

    `logit` is what the model said. `base`: what the head says of a state of zeros, where it is more than a matrix.
    `residual`: how far the sum misses the logit, as a part of what the parts had to account for.
    """

    names: list[str]
    values: Array
    total: float
    logit: float
    base: float = 0.0
    residual: float = 0.0


@dataclass(frozen=True)
class Plane:
    """The directions of a stack's states (each scaled to length 1) in their principal plane.

    `points` [states, L, 2]; `shares` of the variance that each of the two axes holds.
    """

    points: Array
    shares: list[float]


@dataclass(frozen=True)
class Branch:
    """What the model would have gone on with, the likeliest token each time, had it taken another one at a step.

    `step` counts the run's steps from 0; `tokens` begins with the other token.
    """

    step: int
    tokens: list[Candidate]


@dataclass(frozen=True)
class Evidence:
    """`value_norms`: attention's name -> [layers, heads, Lk]; `rollout`: name -> [layers, L, L]; `planes`: a stack's.

    `answer` is the label of what `attributions` and `parts` explain, `number` what of it they share out; `missing` says
    what could not be had, and why.
    """

    value_norms: dict[str, Array] = field(default_factory=dict)
    rollout: dict[str, Array] = field(default_factory=dict)
    lens: LensGrid | None = None
    attributions: list[Scores] = field(default_factory=list)
    parts: Parts | None = None
    planes: dict[str, Plane] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=list)
    answer: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    number: str = "logit"


@dataclass(frozen=True)
class Model:
    """Which model ran: its name, class, family and sizes."""

    name: str
    class_name: str
    family: str
    layers: int
    heads: int
    hidden_size: int
    parameters: int
    dtype: str


@dataclass(frozen=True)
class Token:
    """One position. `start` and `end` are characters of the text, None for what is not in it."""

    index: int
    id: int
    token: str
    label: str
    start: int | None
    end: int | None
    attention_mask: int
    special: bool
    type_id: int | None = None
    generated: bool = False


@dataclass(frozen=True)
class Attention:
    """One kind of attention of the whole model.

    pattern [layers, heads, Lq, Lk]: how much each query (row) took from each key (column); rows sum to 1.
    `rows` and `columns` say which tokens they are: "tokens" or "target". `measures` [layers, heads] each, see
    `cutaway.inspect.measures`. `layer` and `head` (counted from 0) are the head that is shown, `chosen` says why.
    `error`: how far a weight may be from the model's, where the run was read from a trace.
    """

    name: str
    address: str
    rows: Literal["tokens", "target"]
    columns: Literal["tokens", "target"]
    pattern: Array
    measures: dict[str, Array]
    layer: int
    head: int
    chosen: str
    error: float = 0.0

    @property
    def place(self) -> str:
        """The address of the head's layer, for `model.record`."""
        return self.address.format(i=self.layer)

    @property
    def matrix(self) -> Array:
        """The chosen head, [Lq, Lk]."""
        return np.asarray(self.pattern[self.layer, self.head])


@dataclass(frozen=True)
class States:
    """How each token's vector changes from the embedding to the last layer.

    `places`: the address of each state. `norm`, `to_embedding` and `to_previous` are [states, L]: the Euclidean length,
    the cosine to the first state, and the cosine to the state before. `first` [states, L, n]: the first numbers.
    """

    name: str
    tokens: Literal["tokens", "target"]
    places: list[str]
    norm: Array
    to_embedding: Array
    to_previous: Array
    first: Array


@dataclass(frozen=True)
class Step:
    """One token that the model wrote (or fills in): its position, what it is, and the likeliest candidates there."""

    position: int
    picked: Candidate
    candidates: list[Candidate]


@dataclass(frozen=True)
class AttentionCheck:
    """That the attention shown is the one that was used.

    For one head, drawn from all, `error` is the largest difference between its weights times values and the fast
    kernel's output, as a part of that output's largest number.
    """

    address: str
    head: int
    error: float


FRAME_HEIGHT = 760  # pixels of the page in a notebook


@dataclass(frozen=True)
class Explanation(Shown):
    """One run. `kind` says what the model answers with:

    "labels": `answers` are the classes, `function` made probabilities of their logits (softmax, sigmoid, or none);
    "next-token" and "target": `answers` are the likeliest first new tokens, `steps` what was generated;
    "mask": `steps` are the positions of the mask token; "states": the checkpoint has no head, and gives vectors only;
    "token-labels": `steps` are the tokens with their labels, `answers` the labels of the token that is followed;
    "span": `answers` are the likeliest answers to a question, `generated` the first;
    "choices": `answers` are the ways a prompt may go on, and the tokens those of the likeliest.
    `evidence`: what only the page shows, where `explain(evidence=True)` gathered it; `to_dict` leaves it out.
    """

    version: str
    model: Model
    text: str
    kind: Kind
    tokens: list[Token]
    target: list[Token]
    attention: dict[str, Attention]
    shown: str
    states: dict[str, States]
    token: int
    answers: list[Candidate] = field(default_factory=list)
    function: str = ""
    steps: list[Step] = field(default_factory=list)
    generated: str = ""
    certificate: AttentionCheck | None = None
    evidence: Evidence | None = None

    page: ClassVar[Callable[[Explanation], str] | None] = None  # what makes the page; `explainer` puts it here

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """In a notebook's cell: the page, in a frame that reaches nothing; where frames are left out, the tables."""
        page = type(self).page
        if page is None:
            return {"text/plain": repr(self), "text/html": self._repr_html_()}
        source = html.escape(page(self), quote=True)
        frame = (
            f'<iframe sandbox="allow-scripts" srcdoc="{source}" width="100%" height="{FRAME_HEIGHT}" '
            'title="cutaway explain" style="border: 0"></iframe>'
        )
        return {"text/plain": repr(self), "text/html": frame}

    @property
    def head(self) -> Attention:
        """The attention that is shown."""
        return self.attention[self.shown]

    def strip(self, which: str) -> list[Token]:
        """The tokens called `which`: "tokens" or "target"."""
        return self.target if which == "target" else self.tokens

    @property
    def best(self) -> Candidate | None:
        """The likeliest answer, if the model gives answers."""
        return max(self.answers, key=lambda answer: answer.logit) if self.answers else None

    def summary(self) -> str:
        """The model, the text, and how much there is of it."""
        best = "" if self.best is None else f", {clipped(printable(self.best.label), 30)} {self.best.probability:.0%}"
        text = clipped(printable(self.text), 40)
        return f"{self.model.name}: “{text}”, {len(self.tokens)} tokens, {', '.join(self.attention)} attention{best}"

    def sheet(self) -> Sheet:
        """The head that is shown, a measure of all heads, and what was answered and written."""
        head = self.head
        kind = "" if head.name == "self" else f"{head.name} attention, "
        layers, heads = ([str(i) for i in range(n)] for n in head.pattern.shape[:2])
        rows, columns = ([token.label for token in self.strip(which)] for which in (head.rows, head.columns))
        note = f"{head.place}; rows look (query), columns are looked at (key); each row sums to 1"
        title = f"{kind}layer {head.layer}, head {head.head} ({head.chosen})"
        parts: list[Part] = [
            Grid(title, head.matrix, rows, columns, "share", note=note),
            Grid("all heads by entropy", head.measures["entropy"], layers, heads, note=MEANING["entropy"]),
        ]
        if self.answers:
            order = sorted(self.answers, key=lambda answer: -answer.logit)
            shares = np.array([a.logit if self.function == "none" else a.probability for a in order])
            parts.append(Bars("answer", [a.label for a in order], shares, self.function))
        if self.steps:
            # of a gap, or of a token of the text, the answer stands beside it
            title, *names = {"mask": ("filled in", "gap", "token"), "token-labels": ("labels", "token", "label")}.get(
                self.kind, ("written", "token")
            )
            lines = [
                [str(s.position), *([self.tokens[s.position].label] if names[1:] else []), s.picked.label,
                 f"{s.picked.probability:.1%}",
                 ", ".join(f"{c.label} {c.probability:.0%}" for c in s.candidates if c.id != s.picked.id)]
                for s in self.steps
            ]  # fmt: skip
            parts.append(Table(title, ["#>", *names, "probability>", "instead of"], lines, self.generated))
        model = self.model
        note = f"{model.name}: {model.class_name} ({model.family}), {model.layers} layers x {model.heads} heads"
        if self.certificate is not None:
            note += f"; weights times values are within {self.certificate.error:.1g} of the fast kernel's output"
        return Sheet(self.text, note, parts)

    def to_dict(self, *, patterns: bool = True) -> dict[str, Any]:
        """JSON-able, numbers to six digits. Without `patterns`, only the shown head's matrix is kept."""
        kept = [entry.name for entry in fields(self) if entry.name != "evidence"]
        out: dict[str, Any] = {"schema": SCHEMA, **{e: _plain(getattr(self, e)) for e in kept}}
        for name, attention in self.attention.items():
            out["attention"][name]["matrix"] = _shares(attention.matrix)
            if patterns:
                out["attention"][name]["pattern"] = _shares(attention.pattern)
        return out

    def to_json(self, *, patterns: bool = True) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(patterns=patterns), allow_nan=False, ensure_ascii=True)


def find_token(tokens: list[Token], text: str, wanted: str | int | None) -> int:
    """The index of the token that the reader asked for.

    A whole number within the text's length is an index (negative: from the end). Anything else is a word of the text:
    its first token. None gives the longest word piece. Raises InputError where there is no such token.
    """
    if wanted is None:
        ordinary = [token for token in tokens if not token.special] or tokens
        return max(ordinary, key=lambda token: (len(token.label.strip("#·")), -token.index)).index
    word = str(wanted).strip()
    try:
        index = int(word)
    except ValueError:
        index = len(tokens)
    if -len(tokens) <= index < len(tokens):
        return index % len(tokens)
    for token in tokens:  # the token as it is called
        if word.lower() in (token.token.lower(), token.label.lower(), token.label.lower().lstrip("·")):
            return token.index
    at = text.lower().find(word.lower()) if word else -1
    for token in tokens:
        if at >= 0 and token.start is not None and token.end is not None and token.start <= at < token.end:
            return token.index
    known = [token.label for token in tokens]
    raise InputError(
        f"token={wanted!r} is neither a word of the text nor an index from 0 to {len(tokens) - 1}."
        f"{nearest(word, known)}"
    )


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return _digits(value.tolist())
    if is_dataclass(value):
        # the patterns are nearly all of the size, and `to_dict` sees to them
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value) if entry.name != "pattern"}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return _digits(value)


def _shares(pattern: Array) -> object:
    """Attention weights to six decimals; None where a model's numbers are broken."""
    if not np.isfinite(pattern).all():
        return _plain(pattern)
    return np.round(pattern.astype(np.float64), 6).tolist()


def _digits(value: object) -> object:
    if isinstance(value, list):
        return [_digits(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value

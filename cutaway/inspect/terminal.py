"""An explanation in a terminal: tables, a small map and bars, in colour where there is colour, in letters where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import MissingExtraError
from cutaway.inspect.explanation import Candidate, Explanation, Scores, States, Token
from cutaway.inspect.measures import MEANING, Array
from cutaway.show import palette
from cutaway.show.label import clipped, printable
from cutaway.show.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

LABEL = 14  # characters of a token's label


# the kind of answer -> the heading of its table, and of the first column
ANSWERS = {
    "labels": ("Answer", "label"),
    "token-labels": ("Label of", "label"),
    "span": ("Answers in the text", "answer"),
    "choices": ("Choices", "choice"),
}


VECTOR_TOKENS = 20  # of a headless model's text, the largest scores


def soundest(methods: Sequence[Scores]) -> Scores:
    """The first that misses 5% or less of what it shares out, else the first that promises no sum, else the first."""
    sound = [one for one in methods if one.residual is not None and one.residual <= 0.05]
    return (sound or [one for one in methods if one.residual is None] or list(methods))[0]


def show(explanation: Explanation, console: Console | None = None, *, measure: str = "entropy") -> None:
    """Print the explanation. `measure` colours the grid of heads: "entropy", "distance" or "focus"."""
    sheet = _sheet(explanation, console)
    sheet.head_line()
    writes = explanation.kind in ("next-token", "target")
    if writes:  # what was written is what was asked for
        sheet.steps()
    sheet.tokens()
    sheet.states()
    sheet.attention()
    sheet.heads(measure)
    sheet.answers()
    if not writes:
        sheet.steps()


def show_attention(explanation: Explanation, console: Console | None = None, *, measure: str = "entropy") -> None:
    """Print the shown head and the grid of all heads."""
    sheet = _sheet(explanation, console)
    sheet.head_line()
    sheet.attention()
    sheet.heads(measure)


def _sheet(explanation: Explanation, console: Console | None) -> _Sheet:
    try:
        from rich.console import Console
    except ImportError as error:
        raise MissingExtraError("The terminal view needs rich: pip install 'cutaway[cli]'.") from error
    return _Sheet(explanation, console or Console(highlight=False))


class _Sheet(Screen):
    def __init__(self, explanation: Explanation, console: Console) -> None:
        super().__init__(console)
        self.it = explanation

    # -- sections -------------------------------------------------------------------------------------------------

    def head_line(self) -> None:
        model = self.it.model
        self._say(printable(self.it.text), style="bold")
        sizes = f"{model.layers} layers x {model.heads} heads, {model.hidden_size} wide, {_count(model.parameters)}"
        self._say(f"{printable(model.name)}: {model.class_name} ({model.family}), {sizes} parameters, {model.dtype}")

    def tokens(self) -> None:
        self._tokens("Tokens", self.it.tokens)
        if self.it.target:
            self._tokens("Target tokens, written by the decoder", self.it.target)

    def _tokens(self, title: str, tokens: list[Token]) -> None:
        prompt_tokens = [token for token in tokens if not token.generated]
        types = any(token.type_id is not None for token in prompt_tokens)
        columns = ["#>", "token", "id>", "chars>", "mask>", "special>"]
        table = self.table(*columns, *(["type>"] if types else []))
        for token in prompt_tokens:
            chars = "" if token.start is None else f"{token.start}-{token.end}"
            row: list[Any] = [str(token.index), self._label(token, 24), str(token.id), chars]
            row += [str(token.attention_mask), "yes" if token.special else ""]
            table.add_row(*row, *([str(token.type_id)] if types else []))
        self._section(f"{title} ({len(prompt_tokens)})", table)

    def states(self) -> None:
        for states in self.it.states.values():
            tokens = self.it.strip(states.tokens)
            index = self.it.token if states.tokens == "tokens" else len(tokens) - 1
            self._states(states, tokens[index])

    def _states(self, states: States, token: Token) -> None:
        at = token.index
        width = 10 if self.console.width >= 88 else 6 if self.console.width >= 72 else 0
        places = max(len(place) for place in states.places)
        free_width = self.console.width - places - 2 * (max(width + 7, 10) + 2) - 10  # for the first numbers, 8 each
        shown = max(min((free_width - 6) // 8, states.first.shape[-1]), 0)
        table = self.table("state", "norm>", "cos(embed)", "cos(before)", *(["first numbers"] if shown else []))
        for i, place in enumerate(states.places):
            row: list[Any] = [
                place,
                f"{states.norm[i, at]:.2f}",
                self._bar(float(states.to_embedding[i, at]), width),
                self._bar(float(states.to_previous[i, at]), width) if i else "",
            ]
            if shown:
                numbers = " ".join(f"{value:7.3f}" for value in states.first[i, at, :shown])
                row.append(numbers + (" ..." if self.plain else " …"))
            table.add_row(*row)
        where = "" if states.name == "self" else f" in the {states.name}"
        title = f"How the vector of {self._quoted(token)} (token {at}) changes{where}"
        self._section(title, table, "cosine of the angle to the embedding, and to the state before; norm: its length")

    def attention(self) -> None:
        from rich.text import Text

        head = self.it.head
        rows, columns = self.it.strip(head.rows), self.it.strip(head.columns)
        kind = "" if head.name == "self" else f"{head.name} attention, "
        title = f"Where attention goes: {kind}layer {head.layer}, head {head.head} ({head.chosen})"
        note = f"{head.place}, rows: from (query), columns: to (key); each row sums to 1"
        free_width = self.console.width - LABEL - 7
        cell = 3 if 3 * len(columns) <= free_width and len(columns) > 10 else 4 if 4 * len(columns) <= free_width else 2
        matrix = head.matrix
        if cell * len(columns) > free_width or len(rows) > 48:
            self._section(title, self._strongest(matrix, rows, columns), note)
            return
        body = Text(" " * (LABEL + 4))
        body.append("".join(f"{t.index % 10 ** (cell - 1):>{cell}}" for t in columns), style="dim")
        top = max(float(matrix.max()), 1e-9)
        for row, values in zip(rows, matrix, strict=True):
            body.append(f"\n{row.index:>3} ", style="dim")
            body.append_text(self._padded(self._label(row, LABEL)))
            for value in values:
                body.append_text(self.cell(float(value), float(value) / top, cell, palette.ATTENTION))
        self._section(title, body, f"{note}; {'numbers: percent of the row' if cell > 2 else 'darker: more'}")

    def _strongest(self, matrix: Array, rows: list[Token], columns: list[Token]) -> Table:
        """For texts that are too long for a map: what each token looks at most."""
        table = self.table("#>", "from", "looks most at")
        for row, values in zip(rows, matrix, strict=True):
            best = np.argsort(-values, kind="stable")[:3]
            parts = [f"{clipped(columns[i].label, LABEL)} {values[i]:.0%}" for i in best]
            table.add_row(str(row.index), self._label(row, LABEL), self.text(",  ".join(parts)))
        return table

    def heads(self, measure: str) -> None:
        from rich.text import Text

        head = self.it.head
        name = measure if measure in head.measures else "entropy"
        values = head.measures[name]
        layers, heads = values.shape
        cell = 6 if 6 * heads + 9 <= self.console.width else 2 if 2 * heads + 9 <= self.console.width else 1
        body = Text()
        body.append("layer    ", style="dim")
        if cell > 1:
            body.append("".join(f"{i % 10 ** (cell - 1):>{cell}}" for i in range(heads)), style="dim")
        low, high = float(values.min()), float(values.max())
        for i in range(layers):
            body.append(f"\n{i:>5}    ", style="dim")
            for j in range(heads):
                share = (values[i, j] - low) / max(high - low, 1e-9)
                number = f"{values[i, j]:.2f}" if cell == 6 else ""
                style = "underline bold" if (i, j) == (head.layer, head.head) else ""
                body.append_text(self.cell(float(share), float(share), cell, palette.MEASURE, number, style))
        scale = f"from {low:.2f} (light) to {high:.2f} (dark)"
        self._section(f"All heads, by {name}", body, f"{MEANING[name]}; {scale}")

    def answers(self) -> None:
        it = self.it
        if it.kind in ANSWERS:
            title, name = ANSWERS[it.kind]
            if it.kind == "token-labels":
                title = f"{title} {clipped(it.tokens[it.token].label, 24)}"
            table = self.table(name, "logit>", f"{'score' if it.function == 'none' else 'probability'}>", "")
            for answer in sorted(it.answers, key=lambda answer: -answer.logit):
                self._answer(table, answer)
            how = {"softmax": "softmax of the logits", "sigmoid": "sigmoid of each logit", "none": "the logits"}
            self._section(title, table, how[it.function])
        elif it.answers:
            table = self.table("token", "id>", "logit>", "probability>", "")
            for answer in it.answers:
                self._answer(table, answer, str(answer.id))
            self._section("Next token, the ten likeliest", table, "softmax of the logits")
        elif it.kind == "states":
            self._vector()

    def _vector(self) -> None:
        """What each token did to the text's vector, where that was gathered."""
        evidence = self.it.evidence
        self._say("\nThis checkpoint has no head: the text becomes a vector, the mean of its tokens' last states.")
        if evidence is None or not evidence.attributions:
            missing = "" if evidence is None else evidence.missing.get("attribution", "")
            if missing:
                self._say(f"What each token did to it is not shown: {printable(missing)}", style="dim")
            return
        scores = soundest(evidence.attributions)
        places = sorted(range(len(scores.scores)), key=lambda i: -float(scores.scores[i]))[:VECTOR_TOKENS]
        most = max(float(np.abs(scores.scores).max()), 1e-12)
        table = self.table("#>", "token", "score>", "")
        for i in places:
            score = float(scores.scores[i])
            table.add_row(
                str(i), self._label(self.it.tokens[i], 24), f"{score:.4f}", self.fill(max(score, 0) / most, 24)
            )
        cut = f", the {VECTOR_TOKENS} largest of {len(scores.scores)}" if len(places) < len(scores.scores) else ""
        note = f"; {scores.note}" if scores.note else ""
        rest = "no sum is promised" if scores.residual is None else f"{scores.residual:.1%} is not accounted for"
        title = f"What made the text's vector{cut}"
        self._section(title, table, f"{scores.method} of the {evidence.number}; {rest}{note}")

    def steps(self) -> None:
        it = self.it
        if not it.steps:
            if it.kind == "mask":
                self._say("\nThe text has no mask token, so there is nothing to fill in.")
            return
        read = {"token-labels": ("token", "label"), "mask": ("gap", "token")}.get(it.kind, ("token",))
        table = self.table("#>", *read, "probability>", "", "instead of")
        for step in it.steps:
            others = [entry for entry in step.candidates if entry.id != step.picked.id][:3]
            rest = ",  ".join(f"{clipped(entry.label, LABEL)} {entry.probability:.0%}" for entry in others)
            share = step.picked.probability
            table.add_row(
                str(step.position),
                *((self.text(clipped(it.tokens[step.position].label, 24)),) if read[1:] else ()),
                self.text(clipped(step.picked.label, 24)),
                f"{share:.1%}",
                self.fill(share, 10),
                self.text(rest),
            )
        titles = {"mask": "Filled in", "token-labels": "The label of each token"}
        title = titles.get(it.kind, "What was generated, the likeliest token each time")
        self._section(title, table)
        if it.generated:
            self._say(f"\n{printable(it.generated)}", style="bold")

    # -- pieces ---------------------------------------------------------------------------------------------------

    def _answer(self, table: Table, answer: Candidate, *more: str) -> None:
        scored = self.it.function != "none"
        number = f"{answer.probability:.2%}" if scored else f"{answer.probability:.4f}"
        bar: Any = self.fill(answer.probability, 24) if scored else ""
        label = self.text(clipped(printable(answer.label), 30))
        table.add_row(label, *more, f"{answer.logit:.4f}", number, bar)

    def _bar(self, cosine: float, width: int) -> Text:
        bar = self.fill(max(cosine, 0.0), width)
        return bar.append(f"{' ' if width else ''}{cosine:5.2f}")

    def _label(self, token: Token, width: int) -> Text:
        return self.text(clipped(token.label, width), "dim" if token.special else "")

    def _padded(self, text: Text) -> Text:
        text.append(" " * max(LABEL - text.cell_len, 0))
        return text

    def _quoted(self, token: Token) -> str:
        return f"'{clipped(token.label, LABEL)}'"

    def _section(self, title: str, body: RenderableType, note: str = "") -> None:
        self.console.print()
        self._say(title, style="bold blue")
        if note:
            self._say(note, style="dim")
        self.console.print(body, highlight=False, soft_wrap=False)

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(self.text(text, style))


def _count(parameters: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if parameters >= size:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)

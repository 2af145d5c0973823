"""`cutaway compare`: two texts in a model, or one text in two models, state by state."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.kept_run import KeptRun
from cutaway.commands.option import SENTIMENT, AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import Dark, Outputs, Subject, check_outputs, read_text, told, write_outputs
from cutaway.errors import InputError
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.inspect.comparison import Comparison
    from cutaway.show.sheet import Grid

SHOWN = 12  # answers in the terminal


def compare(
    text: Annotated[str, typer.Argument(help="The first text, or a saved trace.")],
    other: Annotated[str | None, typer.Argument(help="The second text, or trace; the first text if not given.")] = None,
    model: ModelName = SENTIMENT,
    against: Annotated[str | None, typer.Option(help="A second model, for example the same one fine-tuned.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="The relative distance that counts as different.")] = 1e-4,
    output: Outputs = None,
    dark: Dark = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Compare two texts, or two models on a text: where their states part, and how far."""
    if other is None and against is None:
        raise typer.BadParameter("give a second text, or a second model with --against.")
    paths = check_outputs(output)
    kept = [run for run in (KeptRun.of(text), KeptRun.of(other)) if run is not None]
    if kept:
        if len(kept) < 2 or against is not None:
            raise InputError("a saved trace is compared with another one; give two traces, or two texts and a model.")
        _show(_of_traces(kept[0], kept[1], tolerance), paths, dark, as_json)
        return
    first = read_text(text)
    second = first if other is None else read_text(other)
    load = load_arguments(revision, offline, threads, dtype)
    subject = Subject.load(model, load)
    rival = subject if against is None else Subject.load(against, load)

    from cutaway.inspect.comparison import compare as run

    options: dict[str, Any] = {"tolerance": tolerance}
    if against is not None:
        options["other_model"] = rival.model
    a, b = subject.inputs(first), rival.inputs(second)
    if first == second and a["input_ids"].tolist() != b["input_ids"].tolist():  # two tokenizers: by characters
        options["spans"] = tuple(s.encoded(first)["offset_mapping"] for s in (subject, rival))
    found = run(subject.model, a, b, **options)
    left, right = subject.labels(a["input_ids"][0].tolist()), rival.labels(b["input_ids"][0].tolist())
    _show(_Pair(found, (subject, rival), (first, second), (left, right)), paths, dark, as_json)


@dataclass(frozen=True)
class _Pair:
    """Two runs and what was found: their subjects (or traces), texts, and tokens' names."""

    found: Comparison
    runs: tuple[Any, Any]
    texts: tuple[str, str]
    labels: tuple[list[str], list[str]]

    @property
    def names(self) -> list[str]:
        left, right = self.labels
        return [left[i] if left[i] == right[j] else f"{left[i]}/{right[j]}" for i, j in self.found.pairs]

    @property
    def apart(self) -> tuple[list[int], list[int]]:
        """The tokens of each text that have none of the other beside them: the words that are compared."""
        first, second = (
            [i for i in range(len(self.labels[side])) if i not in {pair[side] for pair in self.found.pairs}]
            for side in (0, 1)
        )
        return first, second

    @property
    def columns(self) -> list[tuple[int | None, int | None]]:
        """Both texts side by side: aligned tokens in one column, and between them what each text has there."""
        columns: list[tuple[int | None, int | None]] = []
        ends = [*self.found.pairs, (len(self.labels[0]), len(self.labels[1]))]
        at = [0, 0]
        for number, (i, j) in enumerate(ends):
            columns += zip_longest(range(at[0], i), range(at[1], j))
            if number < len(self.found.pairs):
                columns.append((i, j))
            at = [i + 1, j + 1]
        return columns

    def words(self, side: int) -> str:
        """The words that only one of the texts has, for a line of text."""
        return " ".join(self.labels[side][i] for i in self.apart[side])

    @property
    def both(self) -> str:
        return self.texts[0] if self.texts[0] == self.texts[1] else f"{self.texts[0]} ⇢ {self.texts[1]}"


def _of_traces(first: KeptRun, second: KeptRun, tolerance: float) -> _Pair:
    from cutaway.inspect.trace.trace_comparison import compare_traces

    found = compare_traces(first.trace, second.trace, tolerance=tolerance)
    labels = first.labels("tokens"), second.labels("tokens")
    return _Pair(found, (first, second), (first.it.text, second.it.text), labels)


def _show(pair: _Pair, paths: list[Path], dark: bool, as_json: bool) -> None:
    from cutaway.show.sheet import Grid, Sheet, Table

    found, names, (one, other), (left, right) = pair.found, pair.names, pair.runs, pair.labels
    record = {"models": [one.name, other.name], "texts": list(pair.texts), "aligned": names, **found.to_dict()}
    distance = found.distance.float().cpu().numpy()
    said = _said(found, one, other, names)
    record["said"] = said
    record["apart"] = list(pair.apart)
    if not as_json:
        if any(pair.apart):
            _print_texts(pair)
        write(f"{len(names)} of {len(left)} and {len(right)} tokens are aligned; {_first(found.first, names)}")
        table = table_of("place", "mean distance>", "largest>", "at", "mean cosine>")
        for place, row, cosine in zip(found.places, distance, found.cosine, strict=True):
            known = row == row  # the decoder of an encoder-decoder has other tokens
            if not place.endswith(("embed", ".resid", "final_norm")) or not known.any():
                continue
            at = int(row[known].argmax())
            where = "" if place.startswith("decoder.") else plain(clipped(names[at], 24))
            near = float(cosine[: known.sum()].mean())
            table.add_row(place, f"{row[known].mean():.4f}", f"{row[known].max():.4f}", where, f"{near:.4f}")
        console().print(table)
        _print_said(said)

    origin = one.origin(pair.both)
    kept = [
        i for i, p in enumerate(found.places) if p.endswith(("embed", ".resid", "final_norm")) and p[:8] != "decoder."
    ]
    rows = [found.places[i] for i in kept]

    def draw() -> Figure:
        from cutaway.inspect.plots.grid import grid

        note = f"distance of the two states as a share of the first one's length; {_first(found.first, names)}"
        if any(pair.apart):
            only = (
                f"only the {name} has: {clipped(pair.words(i), 60)}"
                for i, name in enumerate(("first", "second"))
                if pair.apart[i]
            )
            note = f"{note}; {'; '.join(only)}"
        caption = "" if one.name == other.name else f"against {clipped(other.name, 60)}"
        return grid(distance[kept], rows, names, title="Two runs side by side", note=note, origin=origin,
                    axes=("state ↓", "aligned token →"), scale="measure", caption=caption, number=".2f",
                    dark=dark)  # fmt: skip

    arrays = {"pairs": found.pairs, "distance": distance, "cosine": found.cosine.float().cpu().numpy()}
    if found.kl is not None:
        arrays["kl"] = found.kl.cpu().numpy()
    lines = [[line["after"], *(f"{run['answer']} {run['probability']:.1%}" for run in line["runs"])] for line in said]
    apart = Grid("distance, as a share of the first's length", distance[kept], rows, names)
    answers = Table("what each run answers", ["at", "first", "second"], lines)
    note = f"{len(names)} tokens are aligned; {_first(found.first, names)} · {told(origin)}"
    sheet = Sheet("two runs side by side", note, [*_texts(pair), apart, answers])
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)


def _texts(pair: _Pair) -> list[Grid]:
    """Both texts, one above the other, with the words marked that only one of them has."""
    import numpy as np

    from cutaway.show.sheet import Grid

    if not any(pair.apart):
        return []
    columns, (left, right) = pair.columns, pair.apart
    marked = np.array([[i in left for i, _ in columns], [j in right for _, j in columns]], np.float64)
    texts = [
        ["" if i is None else pair.labels[0][i] for i, _ in columns],
        ["" if j is None else pair.labels[1][j] for _, j in columns],
    ]
    title, note = "the two texts", "marked: the words that only one of them has"
    numbers = [str(n) for n in range(len(columns))]
    return [Grid(title, marked, ["first", "second"], numbers, "share", texts, note)]


def _print_texts(pair: _Pair) -> None:
    """Both texts, the words that only one of them has between asterisks."""
    for side, name in enumerate(("first ", "second")):
        line = plain(name, "bold")
        for i, label in enumerate(pair.labels[side]):
            word = printable(clipped(label, 24))
            line.append(" ")
            line.append(plain(f"*{word}*", "bold dark_orange3") if i in pair.apart[side] else plain(word))
        console().print(line)


def _said(found: Comparison, subject: Subject, rival: Subject, names: list[str]) -> list[dict[str, Any]]:
    """Each answer of both runs: where it stands, the likeliest of each run, and the divergence."""
    if found.said is None or found.share is None:
        return []
    lines = []
    for at in range(found.said.shape[1]):
        likeliest = zip((subject, rival), found.said[:, at].tolist(), found.share[:, at].tolist(), strict=True)
        runs = [
            {
                "answer": own.answer(ids[0]),
                "probability": shares[0],
                "others": [[own.answer(id), share] for id, share in zip(ids[1:], shares[1:], strict=True)],
            }
            for own, ids, shares in likeliest
        ]
        after = "" if subject.kind == "labels" else names[at] if subject.kind != "target" else str(at)
        kl = None if found.kl is None else float(found.kl[at])
        lines.append({"after": after, "runs": runs, "kl": kl, "same": runs[0]["answer"] == runs[1]["answer"]})
    return lines


def _print_said(said: list[dict[str, Any]]) -> None:
    """The one answer, or the first places at which the likeliest tokens differ."""
    if not said:
        return
    parted = [i for i, line in enumerate(said) if not line["same"]]
    if len(said) == 1:
        write("\nWhat the two runs answer")
    elif not parted:
        write(f"\nThe likeliest answer is the same at all {len(said)} aligned tokens; where the shares differ most:")
    else:
        first = printable(clipped(said[parted[0]]["after"], 24))
        write(f"\nThe likeliest answers first differ at token {parted[0]}, {first}; {len(parted)} of {len(said)} do:")
    order = parted or sorted(range(len(said)), key=lambda i: -(said[i]["kl"] or 0.0))
    table = table_of("#>", "at", "first", ">", "second", ">", "KL, nats>")
    for i in order[:SHOWN]:
        cells = [
            cell
            for run in said[i]["runs"]
            for cell in (plain(printable(clipped(run["answer"], 24))), f"{run['probability']:.1%}")
        ]
        kl = "" if said[i]["kl"] is None else f"{said[i]['kl']:.4f}"
        table.add_row(str(i), plain(clipped(said[i]["after"], 24)), *cells, kl)
    console().print(table)


def _first(first: tuple[str, int] | None, names: list[str]) -> str:
    if first is None:
        return "no state differs"
    place, pair = first
    return f"the first state that differs is {place} at token {pair}, {clipped(names[pair], 24)}"

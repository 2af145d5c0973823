"""`cutaway compare`: two texts in a model, or one text in two models, state by state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.option import SENTIMENT, AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import Dark, Outputs, Subject, check_outputs, read_text, write_outputs
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.inspect.comparison import Comparison

SHOWN = 12  # answers in the terminal


def compare(
    text: Annotated[str, typer.Argument(help="The first text.")],
    other: Annotated[str | None, typer.Argument(help="The second text; the first one if not given.")] = None,
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
    paths, first = check_outputs(output), read_text(text)
    second = first if other is None else read_text(other)
    load = load_arguments(revision, offline, threads, dtype)
    subject = Subject.load(model, load)
    rival = subject if against is None else Subject.load(against, load)

    from cutaway.inspect.comparison import compare as run
    from cutaway.show.sheet import Table

    options: dict[str, Any] = {"tolerance": tolerance}
    if against is not None:
        options["other_model"] = rival.model
    a, b = subject.inputs(first), rival.inputs(second)
    if first == second and a["input_ids"].tolist() != b["input_ids"].tolist():  # two tokenizers: by characters
        options["spans"] = tuple(s.encoded(first)["offset_mapping"] for s in (subject, rival))
    found = run(subject.model, a, b, **options)
    left, right = subject.labels(a["input_ids"][0].tolist()), rival.labels(b["input_ids"][0].tolist())
    names = [left[i] if left[i] == right[j] else f"{left[i]}/{right[j]}" for i, j in found.pairs]
    record = {"models": [subject.name, rival.name], "texts": [first, second], "aligned": names, **found.to_dict()}
    distance = found.distance.float().cpu().numpy()
    said = _said(found, subject, rival, names)
    record["said"] = said
    if not as_json:
        write(f"{len(names)} of {len(left)} and {len(right)} tokens are aligned; {_first(found.first, names)}")
        table = table_of("place", "mean distance>", "largest>", "at", "mean cosine>")
        for place, row, cosine in zip(found.places, distance, found.cosine, strict=True):
            known = row == row  # the decoder of an encoder-decoder has other tokens
            if not place.endswith(("embed", ".resid")) or not known.any():
                continue
            at = int(row[known].argmax())
            where = "" if place.startswith("decoder.") else plain(clipped(names[at], 24))
            near = float(cosine[: known.sum()].mean())
            table.add_row(place, f"{row[known].mean():.4f}", f"{row[known].max():.4f}", where, f"{near:.4f}")
        console().print(table)
        _print_said(said)

    both = first if first == second else f"{first} ⇢ {second}"

    def draw() -> Figure:
        from cutaway.inspect.picture_grid import grid

        kept = [i for i, p in enumerate(found.places) if p.endswith(("embed", ".resid")) and p[:8] != "decoder."]
        note = f"distance of the two states as a share of the first one's length; {_first(found.first, names)}"
        origin = subject.origin(both)
        caption = "" if against is None else f"against {clipped(rival.name, 60)}"
        return grid(distance[kept], [found.places[i] for i in kept], names, title="Two runs side by side", note=note,
                    origin=origin, axes=("state ↓", "aligned token →"), scale="measure", caption=caption,
                    dark=dark)  # fmt: skip

    arrays = {"pairs": found.pairs, "distance": distance, "cosine": found.cosine.float().cpu().numpy()}
    if found.kl is not None:
        arrays["kl"] = found.kl.cpu().numpy()
    sheet = found.named(subject.tokenizer, a["input_ids"]).sheet()
    told = [[line["after"], *(f"{one['answer']} {one['probability']:.1%}" for one in line["runs"])] for line in said]
    kept = [part for part in sheet.parts if part.title != "likeliest answers"]
    sheet = replace(
        sheet,
        note=f"{sheet.note} · {subject.told(both)}",
        parts=[*kept, Table("what each run answers", ["at", "first", "second"], told)],
    )
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)


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

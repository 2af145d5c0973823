"""`cutaway lens`: what a model would say after each layer, and how its states move."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.commands.default_model import default_decoder
from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.kept_run import KeptRun
from cutaway.commands.option import AsJson, Dtypes, Offline, OrDefault, Revision, Threads, load_arguments
from cutaway.commands.subject import Dark, Outputs, Subject, TextOrTrace, check_outputs, read_text, told, write_outputs
from cutaway.show.label import clipped

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from cutaway.inspect.plots.canvas import Origin

WIDTH = 11  # characters of a column in the terminal


class View(StrEnum):
    """What is shown."""

    lens = "lens"
    states = "states"


def lens(
    text: TextOrTrace = None,
    model: OrDefault = None,
    view: Annotated[View, typer.Option(help="lens: the likeliest token after each layer; states: paths (PCA).")] = (
        View.lens
    ),
    last: Annotated[int, typer.Option(min=1, help="How many of the last tokens the lens shows.")] = 12,
    output: Outputs = None,
    dark: Dark = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Show what a language model would say if it stopped after each layer."""
    paths, kept = check_outputs(output), KeptRun.of(text)
    if kept is None:
        given = read_text(text)
        load = load_arguments(revision, offline, threads, dtype)
        subject = Subject.load(model or default_decoder(load), load)
        seen = _said(subject, given) if view is View.lens else _moved(subject, given)
    else:
        seen = _kept_said(kept) if view is View.lens else _kept_moved(kept)
    if isinstance(seen, Said):
        _lens(seen, last, paths, dark, as_json)
    else:
        _states(seen, paths, dark, as_json)


@dataclass(frozen=True)
class Said:
    """A lens: `ids`, `probability` [states, L, k], `kl` [states, L]; `top` are the names of the ids."""

    model: str
    origin: Origin
    names: list[str]
    places: list[str]
    ids: np.ndarray
    top: list[list[list[str]]]
    probability: np.ndarray
    kl: np.ndarray


@dataclass(frozen=True)
class Moved:
    """The states of a text, [states, L, H]."""

    model: str
    origin: Origin
    names: list[str]
    places: list[str]
    states: np.ndarray


def _said(subject: Subject, text: str) -> Said:
    from cutaway.inspect.lens import logit_lens

    inputs = subject.inputs(text)
    found = logit_lens(subject.model, inputs)
    ids = found.tokens[:, 0]  # [states, L, k]
    top = [[subject.labels(best) for best in line] for line in ids.tolist()]
    names = subject.labels(inputs["decoder_input_ids" if subject.model.is_encoder_decoder else "input_ids"][0])
    numbers = (value[:, 0].float().cpu().numpy() for value in (found.probability, found.kl))
    return Said(subject.name, subject.origin(text), names, found.places, ids.cpu().numpy(), top, *numbers)


def _kept_said(run: KeptRun) -> Said:
    import numpy as np

    evidence = run.evidence("lens")
    lens = evidence.lens
    if lens is None:
        raise run.lacks("lens", evidence.missing.get("lens", "a lens needs a language model"))
    top = [[[lens.labels[str(id)] for id in best] for best in state] for state in lens.ids]
    names = run.labels(lens.tokens)
    ids = np.asarray(lens.ids)
    return Said(run.name, run.origin(run.it.text), names, lens.places, ids, top, lens.probability, lens.kl)


def _moved(subject: Subject, text: str) -> Moved:
    import numpy as np
    import torch

    from cutaway.inspect.tower import tower_of

    inputs = subject.inputs(text)
    tower = tower_of(subject.model, "encoder" if subject.model.is_encoder_decoder else None)
    places = [tower.at("embed"), *tower.layers("resid")]
    with torch.no_grad(), subject.model.record(*places) as r:
        subject.model(**inputs)
    states = np.stack([r[place][0].float().cpu().numpy() for place in places])  # [states, L, H]
    names = subject.labels(inputs["input_ids"][0].tolist())
    return Moved(subject.name, subject.origin(text), names, places, states)


def _kept_moved(run: KeptRun) -> Moved:
    name = "encoder" if "encoder" in run.it.states else "self"
    states = run.it.states[name]
    return Moved(run.name, run.origin(run.it.text), run.labels(states.tokens), states.places, run.trace.hidden[name])


def _lens(seen: Said, last: int, paths: list[Path], dark: bool, as_json: bool) -> None:
    from cutaway.show.sheet import Grid, Sheet

    names = seen.names
    first = max(len(names) - last, 0)
    said = [[best[0] for best in line] for line in seen.top]  # [states, L]
    best = seen.probability[:, :, 0]  # [states, L]
    arrays = {"tokens": seen.ids, "probability": seen.probability, "kl": seen.kl}
    record = {"model": seen.model, "text": seen.origin.text, "input": names, "places": seen.places,
              "tokens": seen.top, "probability": seen.probability.tolist(), "kl": seen.kl.tolist()}  # fmt: skip
    if not as_json:
        screen = console()
        room = max(min((screen.width - 20) // (WIDTH + 2), len(names) - first), 1)
        shown = range(len(names) - room, len(names))
        table = table_of("state", *(clipped(names[i], WIDTH) for i in shown))
        for place, line, shares in zip(seen.places, said, best, strict=True):
            cells = [plain(f"{clipped(line[i], WIDTH - 4)} {shares[i]:.0%}") for i in shown]
            table.add_row(place, *cells)
        write("The likeliest token after each layer, read through the model's own output (logit lens)")
        screen.print(table)
        if first or room < len(names) - first:
            write(f"The last {room} of {len(names)} tokens; --json and .npz hold all.")

    def draw() -> Figure:
        from cutaway.inspect.plots.grid import grid

        note = (
            "cell: the likeliest next token if the model stopped after this state; colour: its probability there; "
            "early states were never trained to be read so"
        )
        return grid(best[:, first:], seen.places, names[first:], texts=[line[first:] for line in said],
                    title="Logit lens: what each layer would say", note=note, origin=seen.origin,
                    axes=("after ↓", "at →"), limits=(0.0, 1.0), number=".0%", caption="nostalgebraist, 2020",
                    dark=dark)  # fmt: skip

    colour = "colour: its probability, if the model stopped there"
    likeliest = Grid("the likeliest token after each state", best, seen.places, names, "share", said, colour)
    distance = Grid("KL to the model's answer, nats", seen.kl, seen.places, names)
    sheet = Sheet("Logit lens", told(seen.origin), [likeliest, distance])
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)


def _states(seen: Moved, paths: list[Path], dark: bool, as_json: bool) -> None:
    import numpy as np

    from cutaway.inspect.plots.trajectory import principal_plane, trajectories
    from cutaway.show.sheet import Grid, Sheet

    states, names, places = seen.states, seen.names, seen.places
    points, shares = principal_plane(states)
    record = {"model": seen.model, "text": seen.origin.text, "input": names, "places": places,
              "points": points.tolist(), "variance": shares.tolist()}  # fmt: skip
    if not as_json:
        moved = np.linalg.norm(np.diff(states, axis=0), axis=-1)  # [layers, L]
        table = table_of("#>", "token", "norm at first>", "at last>", "path>", "furthest step")
        for i, name in enumerate(names):
            ends = (f"{np.linalg.norm(states[at, i]):.2f}" for at in (0, -1))
            far = places[int(moved[:, i].argmax()) + 1]
            table.add_row(str(i), plain(clipped(name, 24)), *ends, f"{moved[:, i].sum():.2f}", far)
        write("How far each token's vector moves through the layers (Euclidean)")
        console().print(table)

    def draw() -> Figure:
        title = f"Paths of the tokens through {len(places) - 1} layers"
        return trajectories(states, names, title=title, origin=seen.origin, dark=dark)

    lengths = Grid("length of each state", np.linalg.norm(states, axis=-1), places, names)
    sheet = Sheet("Paths of the tokens", told(seen.origin), [lengths])
    arrays = {"states": states, "points": points, "variance": shares}
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)

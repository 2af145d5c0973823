"""`cutaway lens`: what a model would say after each layer, and how its states move."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.option import AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import Dark, Outputs, Subject, Text, check_outputs, read_text, write_outputs
from cutaway.show.label import clipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 11  # characters of a column in the terminal


class View(StrEnum):
    """What is shown."""

    lens = "lens"
    states = "states"


def lens(
    text: Text = None,
    model: ModelName = "gpt2",
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
    paths, given = check_outputs(output), read_text(text)
    subject = Subject.load(model, load_arguments(revision, offline, threads, dtype))
    if view is View.lens:
        _lens(subject, given, last, paths, dark, as_json)
    else:
        _states(subject, given, paths, dark, as_json)


def _lens(subject: Subject, text: str, last: int, paths: list[Path], dark: bool, as_json: bool) -> None:
    from cutaway.inspect.lens import logit_lens

    inputs = subject.inputs(text)
    found = logit_lens(subject.model, inputs)
    ids = inputs["decoder_input_ids" if subject.model.is_encoder_decoder else "input_ids"][0].tolist()
    first = max(len(ids) - last, 0)
    names = subject.labels(ids)
    said = [subject.labels(line) for line in found.tokens[:, 0, :, 0].tolist()]  # [states, L]
    record = {
        "model": subject.name,
        "text": text,
        "input": names,
        "places": found.places,
        "tokens": [[subject.labels(top) for top in line] for line in found.tokens[:, 0].tolist()],
        "probability": found.probability[:, 0].tolist(),
        "kl": found.kl[:, 0].tolist(),
    }
    best = found.probability[:, 0, :, 0].float().numpy()  # [states, L]
    arrays = {
        "tokens": found.tokens[:, 0].numpy(),
        "probability": found.probability[:, 0].float().numpy(),
        "kl": found.kl[:, 0].float().numpy(),
    }
    if not as_json:
        screen = console()
        room = max(min((screen.width - 20) // (WIDTH + 2), len(names) - first), 1)
        shown = range(len(names) - room, len(names))
        table = table_of("state", *(clipped(names[i], WIDTH) for i in shown))
        for place, line, shares in zip(found.places, said, best, strict=True):
            cells = [plain(f"{clipped(line[i], WIDTH - 4)} {shares[i]:.0%}") for i in shown]
            table.add_row(place, *cells)
        write("The likeliest token after each layer, read through the model's own output (logit lens)")
        screen.print(table)
        if first or room < len(names) - first:
            write(f"The last {room} of {len(names)} tokens; --json and .npz hold all.")

    def draw() -> Figure:
        from cutaway.inspect.picture_grid import grid

        note = (
            "cell: the likeliest next token if the model stopped after this state; colour: its probability there; "
            "early states were never trained to be read so"
        )
        return grid(best[:, first:], found.places, names[first:], texts=[line[first:] for line in said],
                    title="Logit lens: what each layer would say", note=note, origin=subject.origin(text),
                    axes=("after ↓", "at →"), limits=(0.0, 1.0), number=".0%", caption="nostalgebraist, 2020",
                    dark=dark)  # fmt: skip

    sheet = replace(found.named(subject.tokenizer, ids).sheet(), title="Logit lens", note=subject.told(text))
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)


def _states(subject: Subject, text: str, paths: list[Path], dark: bool, as_json: bool) -> None:
    import numpy as np
    import torch

    from cutaway.inspect.picture_trajectory import principal_plane, trajectories
    from cutaway.inspect.tower import tower_of
    from cutaway.show.sheet import Grid, Sheet

    inputs = subject.inputs(text)
    tower = tower_of(subject.model, "encoder" if subject.model.is_encoder_decoder else None)
    places = [tower.at("embed"), *tower.layers("resid")]
    with torch.no_grad(), subject.model.record(*places) as r:
        subject.model(**inputs)
    states = np.stack([r[place][0].float().cpu().numpy() for place in places])  # [states, L, H]
    names = subject.labels(inputs["input_ids"][0].tolist())
    points, shares = principal_plane(states)
    record = {"model": subject.name, "text": text, "input": names, "places": places, "points": points.tolist(),
              "variance": shares.tolist()}  # fmt: skip
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
        return trajectories(states, names, title=title, origin=subject.origin(text), dark=dark)

    lengths = Grid("length of each state", np.linalg.norm(states, axis=-1), places, names)
    sheet = Sheet("Paths of the tokens", subject.told(text), [lengths])
    arrays = {"states": states, "points": points, "variance": shares}
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)

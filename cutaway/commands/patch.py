"""`cutaway patch`: which activation carries the difference between two texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.kept_run import only_texts
from cutaway.commands.option import SENTIMENT, AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import (
    Against,
    Dark,
    Outputs,
    Position,
    Subject,
    Wanted,
    check_outputs,
    read_text,
    write_outputs,
)
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def patch(
    clean: Annotated[str, typer.Argument(help="The text whose values are put in.")],
    corrupted: Annotated[str, typer.Argument(help="The text that they are put into; as many tokens.")],
    model: ModelName = SENTIMENT,
    place: Annotated[
        list[str] | None, typer.Option(help="Addresses, * allowed: blocks.*.resid if not given. Repeatable.")
    ] = None,
    target: Wanted = None,
    against: Against = None,
    position: Position = None,
    output: Outputs = None,
    dark: Dark = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Put one text's values into another's run, and see how much of the answer follows."""
    paths = check_outputs(output)
    only_texts("patch", clean, corrupted)
    first, second = read_text(clean), read_text(corrupted)
    subject = Subject.load(model, load_arguments(revision, offline, threads, dtype))

    from cutaway.inspect.patching import activation_patching
    from cutaway.show.sheet import Grid, Sheet

    a, b = subject.inputs(first), subject.inputs(second)
    goal = subject.target(a, target, against, position)
    if target is None and against is None:  # the clean answer against the corrupted one's
        own, other = goal.fixed(subject.model, a), goal.fixed(subject.model, b)
        goal = own if own.index == other.index else type(goal)(own.index, other.index, own.position)
    places = place or ["encoder.blocks.*.resid" if subject.model.is_encoder_decoder else "blocks.*.resid"]
    found = activation_patching(subject.model, a, b, places, goal)
    names = [
        x if x == y else f"{clipped(x, 10)}/{clipped(y, 10)}"
        for x, y in zip(*(subject.labels(run["input_ids"][0].tolist()) for run in (a, b)), strict=True)
    ]
    if found.effect.shape[1] != len(names):  # a place in the decoder
        names = [str(i) for i in range(found.effect.shape[1])]
    fixed = found.target
    why = f"“{printable(subject.answer(fixed.index or 0))}”"
    if fixed.against is not None:
        why += f" against “{printable(subject.answer(fixed.against))}”"
    effect = found.effect.float().cpu().numpy()
    record = {"model": subject.name, "clean_text": first, "corrupted_text": second, "tokens": names, **found.to_dict()}
    if not as_json:
        write(f"{why}: {found.clean:.4f} in the clean run, {found.corrupted:.4f} in the corrupted one")
        table = table_of("place", "at most>", "at", "next", "third")
        for name, row in zip(found.places, effect, strict=True):
            best = abs(row).argsort()[::-1][:3]
            cells = [plain(f"{clipped(names[i], 22)} {row[i]:+.2f}") for i in best]
            table.add_row(name, f"{row[best[0]]:+.2f}", *cells)
        console().print(table)
        write("0: nothing changes, 1: the clean answer is restored")

    def draw() -> Figure:
        from cutaway.inspect.plots.grid import grid

        note = (
            f"how much of {why} comes back when one value of the clean run is put into the corrupted one: 0 nothing, "
            f"1 all of it ({found.corrupted:.3g} to {found.clean:.3g})"
        )
        both = subject.origin(f"{first} ⇢ {second}")
        return grid(effect, found.places, names, title="Activation patching", note=note, origin=both,
                    axes=("put in at ↓", "clean/corrupted token →"), scale="signed", number="+.2f",
                    caption="Meng et al., 2022", dark=dark)  # fmt: skip

    grid_of = Grid("how much of the answer comes back", effect, found.places, names, "signed")
    sheet = Sheet(f"Patching: {why}", subject.told(f"{first} ⇢ {second}"), [grid_of])
    write_outputs(paths, record, {"effect": effect}, draw, as_json, sheet=sheet, dark=dark)

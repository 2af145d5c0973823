"""What a studio holds: the models that it may open, the runs that its pages look at, and the work that streams."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cutaway.errors import nearest
from cutaway.serve.problem import Problem
from cutaway.studio.feed import Feed, Steps
from cutaway.studio.tiles import Tiles
from cutaway.studio.training import checkpoints, trainings

if TYPE_CHECKING:
    from cutaway.hub.local_models import Entry
    from cutaway.inspect.measures import Array
    from cutaway.inspect.pattern_rows import PatternRows
    from cutaway.serve.served_model import ServedModel
    from cutaway.serve.service import Service
    from cutaway.studio.analysis import Analysis

MOST_RUNS = 64
MOST_BYTES = 1 << 30  # of the matrices of all runs that are kept


class Workbench:
    """The state of one studio. Models are opened when they are first asked for, and only those that are listed.

    Args:
        folders: beside what is on this machine, the models in them are listed too.
        kept: where runs are kept that a reader keeps.
    """

    def __init__(self, service: Service, folders: tuple[Path, ...] = (), kept: Path | None = None) -> None:
        self.service, self.folders = service, folders
        self.kept = kept_folder() if kept is None else kept
        self.steps = Steps()
        service.engine.add(self.steps)
        self.runs: OrderedDict[str, Analysis] = OrderedDict()
        self.tensors: OrderedDict[str, Array] = OrderedDict()  # "ID/name", of what is no run
        self.tiles = Tiles()
        self._opening: dict[str, asyncio.Future[ServedModel]] = {}

    def listed(self) -> dict[str, tuple[object, Entry | None]]:
        """{name: (what is loaded, its entry)} of everything that may be opened, what was given at the start first."""
        from cutaway.hub.local_models import entries, entries_below

        found: dict[str, tuple[object, Entry | None]] = {
            name: (source, None) for name, source in self.service.sources.items()
        }
        for entry in entries():
            found.setdefault(entry.name, (entry.name, entry))
        for training in trainings(self.folders).values():
            for path in checkpoints(training):
                found.setdefault(str(path), (str(path), None))
        for folder in self.folders:
            for entry in entries_below(folder):
                source = str(Path(entry.folder) / entry.file) if entry.file else entry.folder
                found.setdefault(entry.name if entry.source != "folder" else source, (source, entry))
        return found

    async def served(self, name: str) -> ServedModel:
        """The model of this name, loaded first if it is not yet. Problem 404 where none is listed under it."""
        self.service.model(None) if self.service.sources else None  # 503 until those of the start are there
        held = self.service.models.get(name)
        if held is not None:
            return held
        loop = asyncio.get_running_loop()
        if name not in self._opening:
            known = await loop.run_in_executor(None, self.listed)
            if name not in known:
                raise Problem(
                    404, f"model={name!r:.80} is not on this machine.{nearest(name[:80], known)}", param="model"
                )
            self._opening.setdefault(name, loop.run_in_executor(None, self.service.add, name, known[name][0]))
        try:
            return await asyncio.shield(self._opening[name])
        finally:
            if self._opening[name].done():
                del self._opening[name]

    def attach(self, saes: Sequence[tuple[str, str]]) -> None:
        """Put sparse autoencoders, (address, folder) each, at places of the first model."""
        for address, folder in saes:
            next(iter(self.service.models.values())).model.attach_sae(address, folder)

    def keep(self, analysis: Analysis) -> None:
        """Hold a run for the requests that follow; the oldest go when there is no room."""
        self.runs[analysis.id] = analysis
        while len(self.runs) > 1 and (
            len(self.runs) > MOST_RUNS or sum(run.bytes for run in self.runs.values()) > MOST_BYTES
        ):
            self.runs.popitem(last=False)

    def run(self, id: str) -> Analysis:
        """Problem 410 where it is no longer held."""
        if id not in self.runs:
            raise Problem(410, "This run is no longer held; read the text again.", code="gone")
        self.runs.move_to_end(id)
        return self.runs[id]

    def tensor(self, id: str, name: str) -> Array | PatternRows:
        """A tensor by its name."""
        if f"{id}/{name}" in self.tensors:
            return self.tensors[f"{id}/{name}"]
        run = self.run(id)
        found = run.tensor(name)
        if found is None:
            known = nearest(name[:60], run.tensors)
            raise Problem(404, f"name={name!r:.60} is not held of this run.{known}", param="name")
        return found

    def hold(self, name: str, tensor: Array) -> None:
        """Hold a tensor that belongs to no run."""
        self.tensors[name] = tensor
        while len(self.tensors) > MOST_RUNS:
            self.tensors.popitem(last=False)

    def stream(self, feed: Feed, work: Iterator[None]) -> None:
        """Have the engine do the work, a step at a time."""
        self.steps.start(feed, work)
        self.service.engine.wake()


def kept_folder() -> Path:
    """Where a user's programs keep their data (XDG base directories)."""
    import os

    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share") / "cutaway" / "studio"

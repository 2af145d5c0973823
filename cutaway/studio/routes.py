"""The routes of the studio, beside those of the server and behind the same guards."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response

from cutaway import __version__
from cutaway.inspect.page.page import words
from cutaway.inspect.pattern_rows import PatternRows
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call, Route, Stream
from cutaway.serve.served_model import ServedModel
from cutaway.show.label import printable
from cutaway.studio import changes, comparing, features, training, web
from cutaway.studio.analysis import Analysis
from cutaway.studio.comparing import CompareBody
from cutaway.studio.features import ExcitingBody, FeaturesBody
from cutaway.studio.feed import Feed
from cutaway.studio.keeping import KINDS, CodeBody, ExportBody, KeptBody, KeptRuns, as_code, export
from cutaway.studio.lab import side_by_side
from cutaway.studio.reporting import ReportBody, report
from cutaway.studio.sweep import SweepBody, sweep
from cutaway.studio.table import TableBody, rows
from cutaway.studio.tiles import Tile
from cutaway.studio.training import TrainingBody
from cutaway.studio.workbench import Workbench
from cutaway.studio.writing import WriteBody, Writer, last_distribution

View = Literal["attention", "layers", "attribution", "typing", "answer"]
Changes = Annotated[tuple[changes.Change, ...], Field(max_length=256)]


class RunBody(Body):
    """A text to read: `views` says which evidence comes with it; `new_tokens`, how much a writer writes, greedily."""

    model: str
    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    new_tokens: Annotated[int, Field(ge=0, le=256)] = 0
    views: Annotated[tuple[View, ...], Field(max_length=5)] = ()
    changes: Changes = ()


class MoreBody(Body):
    """One more view's evidence of a run that is held."""

    id: str
    view: View


class LabBody(Body):
    """A text, and what is changed of the model."""

    model: str
    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    changes: Changes = ()


class Studio:
    """The handlers, around one workbench."""

    def __init__(self, bench: Workbench, framed_by: str = "'none'") -> None:
        self.bench, self.framed_by = bench, framed_by

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/studio", self.page, "The studio.", is_open=True, query=None),
            Route("GET", "/studio/start", self.start, "The models that may be opened, and the page's words."),
            Route("POST", "/studio/run", self.run, "One text, read by one model.", RunBody),
            Route("POST", "/studio/more", self.more, "Evidence of a run that is held.", MoreBody),
            Route(
                "GET",
                "/studio/tensors/{id}/{name}",
                self.tensor,
                "A tensor, or one of its matrices, as bytes.",
                query=Tile.QUERY,
            ),
            Route("POST", "/studio/write", self.write, "A text that goes on, as events.", WriteBody),
            Route("POST", "/studio/lab", self.lab, "An answer before and after changes.", LabBody),
            Route("POST", "/studio/features", self.features, "Features beside the tokens.", FeaturesBody),
            Route("POST", "/studio/exciting", self.exciting, "The texts that excite a feature.", ExcitingBody),
            Route("POST", "/studio/export", self.export, "A view as a file.", ExportBody),
            Route("POST", "/studio/code", self.code, "A view as Python, and as a command.", CodeBody),
            Route("POST", "/studio/compare", self.compare, "Two runs side by side.", CompareBody),
            Route("POST", "/studio/table", self.table, "Texts with labels and a map, as events.", TableBody),
            Route("POST", "/studio/report", self.report, "A table with true labels, as a report.", ReportBody),
            Route("GET", "/studio/trainings", self.trainings, "The trainings in the folders that were given."),
            Route("POST", "/studio/training", self.training, "What a training logged.", TrainingBody),
            Route("GET", "/studio/kept", self.kept, "The runs that are kept."),
            Route("POST", "/studio/kept", self.keep, "Keep, rename, delete or open a run.", KeptBody),
            Route("POST", "/studio/sweep", self.sweep, "What an answer loses without each head.", SweepBody),
        )

    async def page(self, call: Call) -> object:
        return web.document(self.framed_by)

    async def start(self, call: Call) -> object:
        known = await asyncio.get_running_loop().run_in_executor(None, self.bench.listed)
        models = []
        for name, (_, entry) in known.items():
            served = call.service.models.get(name)
            task = served.task if served is not None else "" if entry is None else entry.task
            models.append({"name": name, "label": printable(name), "task": task, "open": served is not None})
        return {"models": models, "words": words(), "version": __version__}

    async def run(self, call: Call) -> object:
        body: RunBody = call.body
        served = await self.bench.served(body.model)
        call.said["model"] = served.name
        found = await call.service.compute(self._run, served, body)
        return found

    def _run(self, served: ServedModel, body: RunBody) -> dict[str, object]:
        analysis = Analysis.of(served, body.text, body.new_tokens, body.changes)
        data = analysis.data(body.views)
        self.bench.keep(analysis)
        return data

    async def more(self, call: Call) -> object:
        body: MoreBody = call.body
        run = self.bench.run(body.id)
        return await call.service.compute(run.more, body.view)

    async def tensor(self, call: Call) -> object:
        """All of it, or with ?at=LAYER.HEAD one matrix, and of that with &rows=A:B&columns=A:B&every=N a tile.

        A tile of a long text is computed when it is first asked for, beside what the model does; not if whoever
        asked leaves before its turn comes.
        """
        parts, query = call.request.path_params, call.request.query_params
        values = self.bench.tensor(parts["id"], parts["name"])
        asked = Tile.asked(query, values.shape, isinstance(values, PatternRows))
        if isinstance(values, PatternRows):
            content, scale, shape = await self.bench.tiles.of(f"{parts['id']}/{parts['name']}", values, asked)
        else:
            content, scale, shape = asked.cut(values)
        headers = {
            "x-dtype": asked.dtype, "x-scale": repr(scale), "x-shape": ",".join(map(str, shape)),
            "cache-control": "private, max-age=3600, immutable", "x-content-type-options": "nosniff",
        }  # fmt: skip
        return Response(content, headers=headers, media_type="application/octet-stream")

    async def write(self, call: Call) -> object:
        body: WriteBody = call.body
        served = await self.bench.served(body.model)
        feed = Feed(asyncio.get_running_loop())
        writer = await call.service.compute(Writer, served, body, feed)
        self.bench.stream(feed, self._writing(writer))
        call.said["model"] = served.name
        return Stream(feed.pieces())

    def _writing(self, writer: Writer) -> Iterator[None]:
        yield from writer.steps()
        if writer.last is not None:
            logits, best = last_distribution(writer)
            name = f"{uuid.uuid4().hex[:12]}/logits"
            self.bench.hold(name, logits.numpy())
            writer.feed.offer("last", {"tensor": name, "ids": [i for i, _ in best], "labels": [s for _, s in best]})

    async def lab(self, call: Call) -> object:
        body: LabBody = call.body
        served = await self.bench.served(body.model)

        def work() -> dict[str, object]:
            before, after = Analysis.of(served, body.text, 0), Analysis.of(served, body.text, 0, body.changes)
            return side_by_side(before, after)

        return await call.service.compute(work)

    async def features(self, call: Call) -> object:
        body: FeaturesBody = call.body
        served = await self.bench.served(body.model)
        return await call.service.compute(features.beside_tokens, served, body)

    async def exciting(self, call: Call) -> object:
        body: ExcitingBody = call.body
        served = await self.bench.served(body.model)
        return await call.service.compute(features.exciting, served, body)

    async def export(self, call: Call) -> object:
        body: ExportBody = call.body
        served = await self.bench.served(body.model)
        content = await call.service.compute(export, served, body)
        return Response(content, headers={"x-content-type-options": "nosniff"}, media_type=KINDS[body.form])

    async def code(self, call: Call) -> object:
        body: CodeBody = call.body
        served = await self.bench.served(body.model)
        known = await asyncio.get_running_loop().run_in_executor(None, self.bench.listed)
        return as_code(served, str(known[body.model][0]), body)

    async def kept(self, call: Call) -> object:
        runs = KeptRuns(self.bench.kept)
        return {"kept": await asyncio.get_running_loop().run_in_executor(None, runs.all)}

    async def keep(self, call: Call) -> object:
        runs = KeptRuns(self.bench.kept)
        return await asyncio.get_running_loop().run_in_executor(None, runs.do, call.body)

    async def compare(self, call: Call) -> object:
        body: CompareBody = call.body
        if body.other_model is None and body.other_text is None:
            raise Problem(400, "other_text: give a second text, or a second model.", param="other_text")
        first = await self.bench.served(body.model)
        second = await self.bench.served(body.other_model or body.model)
        other = body.text if body.other_text is None else body.other_text
        return await call.service.compute(comparing.side_by_side, first, second, body.text, other)

    async def table(self, call: Call) -> object:
        body: TableBody = call.body
        served = await self.bench.served(body.model)
        feed = Feed(asyncio.get_running_loop())
        self.bench.stream(feed, rows(served, body, feed))
        return Stream(feed.pieces())

    async def report(self, call: Call) -> object:
        body: ReportBody = call.body
        served = await self.bench.served(body.model)
        content = await call.service.compute(report, served, body)
        return Response(content, headers={"x-content-type-options": "nosniff"}, media_type="text/html")

    async def trainings(self, call: Call) -> object:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, training.trainings, self.bench.folders)
        return {"trainings": [{"name": name, "label": printable(name)} for name in found]}

    async def training(self, call: Call) -> object:
        body: TrainingBody = call.body
        loop = asyncio.get_running_loop()
        known = await loop.run_in_executor(None, training.trainings, self.bench.folders)
        if body.name not in known:
            raise Problem(404, f"name={body.name!r:.200} is no training in the folders of --folder.", param="name")
        return await loop.run_in_executor(None, training.read, known[body.name])

    async def sweep(self, call: Call) -> object:
        body: SweepBody = call.body
        served = await self.bench.served(body.model)
        feed = Feed(asyncio.get_running_loop())
        self.bench.stream(feed, sweep(served, body, feed))
        return Stream(feed.pieces())

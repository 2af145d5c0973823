"""The service: the models of one app, the thread that computes for them, and whether all is ready."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cutaway.errors import CutawayError, InputError, nearest
from cutaway.pipelines.base import Pipeline
from cutaway.serve.engine import Engine, Jobs
from cutaway.serve.metrics import Metrics
from cutaway.serve.problem import Problem
from cutaway.serve.served_model import ServedModel, load_pipeline
from cutaway.serve.settings import Access, Limits

logger = logging.getLogger("cutaway.serve")

Given = ParamSpec("Given")
Result = TypeVar("Result")


def named(models: object) -> dict[str, Any]:
    """{name: source} from a mapping, or from one source that is served under its own name."""
    if isinstance(models, Mapping):
        found = dict(models)
    elif isinstance(models, str | Path):
        found = {name_of(str(models)): models}
    elif isinstance(models, Pipeline):
        found = {name_of(str(getattr(models.model, "name_or_path", "") or models.task)): models}
    else:
        raise InputError(f"models={models!r:.60}: pass a name, a path, a pipeline, or a mapping from names to these.")
    if not found or not all(isinstance(name, str) and name and name.isprintable() for name in found):
        raise InputError("models needs at least one entry, each with a name.")
    return found


def name_of(source: str) -> str:
    """What a model is called that was given without a name: a name stays, of a path its end."""
    path = Path(source)
    return path.stem if path.suffix.lower() == ".gguf" else path.resolve().name if path.exists() else source


class Service:
    """Everything behind the routes of one app."""

    def __init__(
        self,
        models: object,
        limits: Limits | None = None,
        access: Access | None = None,
        log_texts: bool = False,
        **options: object,
    ) -> None:
        self.sources, self.options = named(models), options
        self.limits, self.access, self.log_texts = limits or Limits(), access or Access(), log_texts
        self.metrics = Metrics()
        self.metrics.watch(self._gauges)
        self.engine = Engine()
        self.jobs = Jobs(self.engine)
        self.engine.add(self.jobs)
        self.models: dict[str, ServedModel] = {}
        self.writers = ThreadPoolExecutor(1, thread_name_prefix="cutaway-writers")  # of large answers, one at a time
        self.ready, self.error = threading.Event(), ""
        self.document: Callable[[], dict[str, Any]] = dict  # the OpenAPI document, which the app knows
        self.open_paths: frozenset[str] = frozenset()  # that ask for no key
        self.requests = 0  # in the server now
        self.pending_bytes = 0
        self.spent = 1.0  # seconds that requests have taken of late, for Retry-After
        self._loader: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self, then: Callable[[], None] | None = None) -> None:
        """Begin to load, if that has not begun; `then` is called when it is over, well or not."""
        with self._lock:
            if self._loader is None:
                self._loader = threading.Thread(target=self._load, args=(then,), name="cutaway-load", daemon=True)
                self._loader.start()

    def _load(self, then: Callable[[], None] | None) -> None:
        try:
            self.engine.start()
            for name, source in self.sources.items():
                self.add(name, source)
            self.document()  # takes a second, in which nobody should wait
            self.ready.set()
        except Exception as error:
            self.error = str(error) or type(error).__name__
            if not isinstance(error, CutawayError):
                logger.exception("loading failed")
        if then is not None:
            then()

    def add(self, name: str, source: object) -> ServedModel:
        """Load one more model, and serve it under its name; it takes the seconds that loading takes.

        Raises:
            CutawayError: it cannot be loaded, or answers nothing here; the message begins with its name.
        """
        try:
            pipe = load_pipeline(source, self.options)
            served = ServedModel(name, pipe, self.engine, self.jobs, self.limits, self.metrics)
            self.jobs.submit(served.warm).result()
        except CutawayError as error:
            error.args = (f"{name} cannot be served: {error}",)
            raise
        self.models[name] = served
        return served

    def close(self) -> None:
        """End the engine, the tokenizers' threads and those that write."""
        self.engine.close()
        self.writers.shutdown(wait=False, cancel_futures=True)
        for served in self.models.values():
            served.close()

    def model(self, name: str | None, *tasks: str) -> ServedModel:
        """The model of a request: by its name, or the first that has one of `tasks`.

        Raises Problem: there is none, or it does something else; it is not ready.
        """
        if not self.ready.is_set():
            why = f"could not be loaded: {self.error}" if self.error else "are being loaded."
            raise Problem(503, f"The models {why}", retry_after=None if self.error else 2)
        if name is None:
            for served in self.models.values():
                if not tasks or any(task in served.tasks for task in tasks):
                    return served
            raise Problem(400, f"No model of this server does {' or '.join(tasks)}.", param="model")
        found = self.models.get(name) or self.models.get(name.removesuffix(":latest"))
        if found is None:
            raise Problem(
                404,
                f"model={name!r:.80} is not served here.{nearest(name[:80], self.models)}",
                param="model",
                code="model_not_found",
            )
        if tasks and not any(task in found.tasks for task in tasks):
            raise Problem(
                400, f"model={name!r} does {', '.join(sorted(found.tasks))}, not {' or '.join(tasks)}.", param="model"
            )
        return found

    async def compute(self, work: Callable[Given, Result], *args: Given.args, **options: Given.kwargs) -> Result:
        """What `work` gives, called when it is its turn; it ends before its next pass where nobody waits any more."""
        job = self.jobs.submit(partial(work, *args, **options))
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.left = True
            raise

    def _gauges(self) -> Iterator[tuple[str, str, dict[str, str], float]]:
        yield "cutaway_requests_in_flight", "Requests in the server.", {}, self.requests
        for name, served in self.models.items():
            label = {"model": name}
            if served.generator is not None:
                running, waiting = served.generator.count()
                yield "cutaway_running_texts", "Texts that are being written.", label, running
                yield "cutaway_waiting_texts", "Requests whose text has not begun.", label, waiting
                prefixes = served.generator.prefixes
                yield "cutaway_prefix_bytes", "Keys and values of earlier prompts.", label, prefixes.bytes
            waiting = len(served.batches.pending)
            yield "cutaway_waiting_batches", "Requests that wait for an encoder.", label, waiting

"""Rows through actors of Ray: each loads the model once; one that dies is started again, and its rows scored again."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cutaway.distributed.cluster import ray
from cutaway.distributed.scorer import Scorer, Work
from cutaway.jobs.job import Job
from cutaway.jobs.table_reader import Row

AHEAD = 2  # chunks that wait for each actor


class _Actor:
    """What Ray Data calls: a table in pandas, with answers added."""

    def __init__(self, work: Work) -> None:
        self.scorer = Scorer(work)

    def __call__(self, table: Any) -> Any:
        return self.scorer.table(table)


def map_batches(dataset: Any, work: Work, *, workers: int = 2, batch_size: int = 1024) -> Any:
    """A `ray.data.Dataset` with the answers' columns added, in the order of `dataset`, and lazy as every one.

    Args:
        dataset: a `ray.data.Dataset` that has the columns the task reads.
        work: the task and the model.
        workers: how many actors, each with the model in its memory.
        batch_size: rows of one call.
    """
    dataset.context.execution_options.preserve_order = True
    options = {"concurrency": workers, "batch_size": batch_size, "batch_format": "pandas"}
    return dataset.map_batches(_Actor, fn_constructor_args=(work,), **options)


@dataclass
class RayJob(Job):
    """A `Job` whose rows are scored by actors of the connected cluster; what it writes is the same, and how it goes on.

    Attributes:
        work: what each actor does.
        workers: how many actors, each with the model in its memory.
    """

    work: Work = field(default_factory=lambda: Work("text-classification"))
    workers: int = 2

    @classmethod
    def of(cls, work: Work, workers: int) -> RayJob:
        """The job for a work."""
        return cls(**vars(work.job()), work=work, workers=workers)

    def stream(self, chunks: Iterator[list[Row]]) -> Iterator[list[dict[str, Any]]]:
        """The chunks' rows in order; a few chunks are on their way at a time, so memory does not grow."""
        module = ray()
        actor = module.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Scorer)
        pool = [actor.remote(self.work) for _ in range(self.workers)]
        turn = itertools.cycle(pool)
        waiting: collections.deque[Any] = collections.deque()
        try:
            for chunk in chunks:
                waiting.append(next(turn).rows.remote(chunk))
                if len(waiting) >= AHEAD * self.workers:
                    yield module.get(waiting.popleft())
            while waiting:
                yield module.get(waiting.popleft())
        finally:
            for one in pool:
                module.kill(one)

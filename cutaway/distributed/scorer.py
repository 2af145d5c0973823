"""A worker: loads a task's pipeline once, then gives batches of rows their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import InputError
from cutaway.jobs.answers import TASKS
from cutaway.jobs.job import Job
from cutaway.jobs.table_reader import Row


@dataclass(frozen=True)
class Work:
    """What a worker does; small, so that it travels to each.

    Attributes:
        task, model: as in `pipeline`; a folder must be there on every machine.
        renamed, constant, prefix, settings: as in `Job`.
        load: further arguments of `pipeline`.
        threads: of one worker.
    """

    task: str
    model: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1

    def job(self) -> Job:
        """The job without its pipeline. Raises InputError for a task that is not scored over rows."""
        answers = TASKS.get(self.task)
        if answers is None:
            raise InputError(f"task={self.task!r} is not scored over rows; these are: {', '.join(TASKS)}.")
        return Job(None, answers, self.renamed, self.constant, self.prefix, self.settings)


class Scorer:
    """`Work`, with its pipeline loaded."""

    def __init__(self, work: Work) -> None:
        import torch

        from cutaway.pipelines import pipeline

        torch.set_num_threads(work.threads)
        self.job = work.job()
        self.job.pipe = pipeline(work.task, work.model, **work.load)

    def table(self, table: Any) -> Any:
        """A table of pandas with the answers' columns added. What it lacks in a column of texts is no text "nan"."""
        import pandas

        holes = {name for name in table.columns if table[name].dtype.kind not in "fc"}
        rows = [
            Row({n: None if n in holes and isinstance(v, float) and v != v else v for n, v in values.items()})
            for values in table.to_dict("records")
        ]
        return pandas.DataFrame(self.rows(rows))

    def rows(self, rows: list[Row]) -> list[dict[str, Any]]:
        """Each row with its answer's columns, and its error."""
        at_once = self.job.answers.at_once
        return [row for start in range(0, len(rows), at_once) for row in self.job.scored(rows[start : start + at_once])]

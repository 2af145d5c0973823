"""The same rows scored here, on Ray with two actors, on Ray with an actor killed in the middle, and on Spark local[2].

    python benchmarks/places.py [--rows 10000] [--model FOLDER]

Needs the extras `ray` and `spark`, and Java. What must hold: in each place every row stands in the result once, with
the label that it has here and the score to 1e-5. Exits with 1 where it does not.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import tiny_model, write_rows

from cutaway import pipeline
from cutaway.distributed import RayJob, Work, cluster, spark_function
from cutaway.jobs import Job, TableReader, TableWriter

Rows = list[dict[str, Any]]
SCHEMA = (
    "id long, text string, label string, score double, labels array<struct<label: string, score: double>>, error string"
)


def through(job: Job, source: Path, target: Path, progress: Callable[[int, int], None]) -> Rows:
    """The rows that the job writes."""
    job.run(TableReader(source), TableWriter(target, {}), progress)
    return [row.values for row in TableReader(target).rows()]


def on_ray(work: Work, source: Path, target: Path, kill_after: int | None) -> Rows:
    """Two actors; one gets SIGKILL once `kill_after` rows are counted."""
    killed: list[int] = []

    def progress(rows: int, failed: int) -> None:
        if kill_after is not None and rows >= kill_after and not killed:
            actors = subprocess.run(["pgrep", "-f", "ray::Scorer"], capture_output=True, text=True, check=True)
            killed.append(int(actors.stdout.split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    with cluster(workers=2):
        found = through(RayJob.of(work, 2), source, target, progress)
    assert bool(killed) == (kill_after is not None)
    return found


def on_spark(work: Work, source: Path) -> Rows:
    """Two tasks at a time, four in all; the rows in the order of their ids."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        table = spark.read.json(str(source)).repartition(4)
        answered = table.mapInPandas(spark_function(work), SCHEMA)
        return [row.asDict() for row in answered.orderBy("id").collect()]
    finally:
        spark.stop()


def differences(found: Rows, expected: Rows) -> int:
    """Rows that are not what they are here; all, where there are more or fewer."""
    if len(found) != len(expected):
        return max(len(found), len(expected))
    return sum(
        any(one[name] != other[name] for name in ("id", "text", "label"))
        or bool(one["error"])
        or abs(one["score"] - other["score"]) > 1e-5
        for one, other in zip(found, expected, strict=True)
    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", type=int, default=10_000)
    ask.add_argument("--model", default=None, help="a classifier's name or folder; a tiny random one without it")
    given = ask.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "in.jsonl"
        write_rows(source, given.rows)
        work = Work("text-classification", given.model or str(tiny_model(folder / "model")))
        here = work.job()
        here.pipe = pipeline(work.task, work.model)
        expected = through(here, source, folder / "here.jsonl", lambda rows, failed: None)
        assert [row["id"] for row in expected] == list(range(given.rows))
        places: dict[str, Callable[[], Rows]] = {
            "ray, two actors": lambda: on_ray(work, source, folder / "ray.jsonl", None),
            "ray, an actor killed": lambda: on_ray(work, source, folder / "killed.jsonl", given.rows // 3),
            "spark local[2]": lambda: on_spark(work, source),
        }
        wrong = 0
        for place, run in places.items():
            began = time.monotonic()
            off = differences(run(), expected)
            wrong += off
            print(
                f"{place}: {given.rows:,} rows in {time.monotonic() - began:.0f} s, {off} other than here", flush=True
            )
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Scoring elsewhere gives what scoring here gives; on Ray and Spark where they are installed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pandas
import psutil
import pytest

from cutaway.distributed import RayJob, Work, cluster, map_batches, spark_function
from cutaway.distributed.scorer import Scorer
from cutaway.errors import InputError
from cutaway.jobs import Job, Row, TableReader, TableWriter

WORK = Work("text-classification", "cutaway/sentiment", renamed={"text": "review"})
ROWS = [{"id": i, "review": text} for i, text in enumerate(["Wonderful.", "Dull.", "A warm film.", "A waste."] * 3)]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"id": 99}]))
    return path


def test_spark_s_function_over_tables():
    half = len(ROWS) // 2
    found = pandas.concat(spark_function(WORK)(iter([pandas.DataFrame(ROWS[:half]), pandas.DataFrame(ROWS[half:])])))
    here = Scorer(WORK).rows([Row(dict(row)) for row in ROWS])
    assert found["id"].tolist() == [row["id"] for row in ROWS]
    assert found["label"].tolist() == ["POSITIVE", "NEGATIVE"] * 6
    assert found["score"].tolist() == pytest.approx([row["score"] for row in here], abs=1e-5)
    assert set(found["error"]) == {""}


def test_a_task_that_is_not_scored_over_rows():
    with pytest.raises(InputError, match="'nothing' is not scored over rows"):
        Work("nothing").job()
    with pytest.raises(InputError, match="no pipeline yet"):
        WORK.job().scored([Row({"review": "a"})])


def test_ray_s_absence_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"cutaway\[ray\]"), cluster(workers=1):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own plans
def test_rows_through_ray_with_a_worker_killed(table, tmp_path):
    pytest.importorskip("ray")
    from cutaway import pipeline

    here = WORK.job()
    here.pipe = pipeline(WORK.task, WORK.model)
    expected = run(here, table, tmp_path / "here.jsonl")
    killed: list[str] = []

    def kill(rows: int, failed: int) -> None:
        if not killed:
            actors = subprocess.run(["pgrep", "-f", "ray::Scorer"], capture_output=True, text=True).stdout.split()
            killed.extend(actors[:1])
            os.kill(int(actors[0]), signal.SIGKILL)

    with cluster(workers=2) as ray:
        addresses = listening()
        assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        there = RayJob.of(WORK, 2)
        there.answers = dataclasses.replace(there.answers, at_once=2)
        found = run(there, table, tmp_path / "ray.jsonl", kill)
        dataset = map_batches(ray.data.from_items(ROWS), WORK, batch_size=4).take_all()
    assert killed
    for row, other in zip(expected, found, strict=True):
        assert (row["id"], row["label"], row["error"]) == (other["id"], other["label"], other["error"])
    assert [row["label"] for row in dataset] == [row["label"] for row in expected[:-1]]
    assert [row["id"] for row in dataset] == [row["id"] for row in ROWS]


def listening() -> set[str]:
    """The addresses on which this process and those that it started wait for connections."""
    own = psutil.Process()
    sockets = [one for process in (own, *own.children(recursive=True)) for one in process.net_connections("inet")]
    return {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}


def run(job: Job, source, target, progress=lambda rows, failed: None) -> list[dict[str, object]]:
    job.run(TableReader(source), TableWriter(target, {}), progress)
    return [row.values for row in TableReader(target).rows()]

"""Jobs over tables: each row once, with its answer or its error, whatever stops the job."""

from __future__ import annotations

import csv
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest

from cutaway.errors import InputError
from cutaway.jobs import TASKS, Job, Summary, TableReader, TableWriter

CLASSIFY = TASKS["text-classification"]


def label(texts, **settings):
    """Stands in for a pipeline: the text's length as its label; a text with "bad" in it fails its whole batch."""
    if any("bad" in text for text in texts):
        raise ValueError("a bad\ntext")
    return [[{"label": str(len(text)), "score": 0.5}] for text in texts]


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(rows[0])
    match path.suffix:
        case ".txt":
            path.write_text("".join(row["text"] + "\n" for row in rows), encoding="utf-8")
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case _:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
    return path


def read_table(path: Path) -> list[dict[str, object]]:
    return [row.values for row in TableReader(path).rows()]


def run(source: Path, target: Path, pipe=label, same: object = "", **fields) -> Summary:
    return Job(pipe, CLASSIFY, **fields).run(TableReader(source), TableWriter(target, {"same": same}))


TEXTS = ["short", 'with "quotes", commas', "two\nlines", "Größe \u202e 😀", "", "x" * 300]


@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_to_every_kind(tmp_path, ending, out):
    texts = [text.replace("\n", " ") for text in TEXTS] if ending == ".txt" else TEXTS
    source = write_table(tmp_path / f"in{ending}", [{"text": text} for text in texts])
    target = tmp_path / f"out{out}"
    assert run(source, target) == Summary(len(texts), 0, 0, blank=(TEXTS.index("") + 1,))
    rows = read_table(target)
    assert [row["text"] for row in rows] == texts
    assert [row["label"] or "" for row in rows] == [str(len(text)) if text else "" for text in texts]
    assert [float(row["score"]) for row in rows if row["text"]] == [0.5] * (len(texts) - 1)
    assert not any(row["error"] for row in rows)
    assert {file.name for file in tmp_path.iterdir()} == {source.name, target.name}


def test_only_the_rows_at_fault_have_an_error(tmp_path):
    texts = ["fine"] * 40
    texts[7], texts[31] = "bad", "also bad"
    source = write_table(tmp_path / "in.csv", [{"text": text} for text in texts])
    assert run(source, tmp_path / "out.csv").failed == 2
    rows = read_table(tmp_path / "out.csv")
    assert [i for i, row in enumerate(rows) if row["error"]] == [7, 31]
    assert rows[7] == {"text": "bad", "label": "", "score": "", "labels": "", "error": "a bad text"}
    assert all(row["label"] == "4" for row in rows if not row["error"])


BLANK = ["", "   ", "\u00a0\t", None, math.nan]


def test_a_row_with_a_blank_text_keeps_its_place_and_has_no_answer(tmp_path):
    texts = ["a", *BLANK, "b"]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = run(path, tmp_path / "out.jsonl")
    assert found == Summary(7, 0, 0, blank=(2, 3, 4, 5, 6))
    rows = read_table(tmp_path / "out.jsonl")
    assert [row["label"] for row in rows] == ["1", None, None, None, None, None, "1"]
    assert {row["error"] for row in rows} == {""}
    pairs = [{"text": "a", "text_pair": None}, {"text": "a", "text_pair": " "}, {"text": " ", "text_pair": "b"}]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert run(path, tmp_path / "p.jsonl").blank == (3,)  # a second text is optional,
    assert run(path, tmp_path / "q.jsonl", renamed={"text_pair": "text_pair"}).blank == (1, 2, 3)  # but where named


def test_lines_that_are_no_rows_keep_their_place(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\nnot json\n[1]\n{"other": 1}\n{"text": 5}\n\n{"text": "b"}\n')
    assert run(tmp_path / "in.jsonl", tmp_path / "out.jsonl") == Summary(6, 0, 4)
    rows = read_table(tmp_path / "out.jsonl")
    assert [bool(row["error"]) for row in rows] == [False, True, True, True, True, False]  # a blank line is no row
    (tmp_path / "in.csv").write_bytes(b"id,text\n1,a\n2\n3,b,c\n4,d\n")
    run(tmp_path / "in.csv", tmp_path / "out.csv")
    errors = [row["error"] for row in read_table(tmp_path / "out.csv")]
    assert errors == ["", "the row has 1 field, the header has 2", "the row has 3 fields, the header has 2", ""]


def test_a_job_that_stops_goes_on(tmp_path):
    source = write_table(tmp_path / "in.csv", [{"text": f"{i}"} for i in range(3000)])
    calls = 0

    def stops(texts, **settings):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return label(texts)

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.csv", stops)
    assert not (tmp_path / "out.csv").exists()
    partial = tmp_path / "out.csv.partial"
    partial.write_bytes(partial.read_bytes() + b"torn,row")  # as a kill between writing and counting leaves it
    with pytest.raises(InputError, match="another job"):
        run(source, tmp_path / "out.csv", same="another")
    assert run(source, tmp_path / "out.csv") == Summary(3000, 1024, 0)
    assert [row["text"] for row in read_table(tmp_path / "out.csv")] == [f"{i}" for i in range(3000)]
    with pytest.raises(InputError, match="exists"):
        run(source, tmp_path / "out.csv")


KILLED = """
import sys, time
from pathlib import Path
from cutaway.jobs import TASKS, Job, TableReader, TableWriter
import dataclasses

def pipe(texts, **settings):
    time.sleep(0.002)
    return [[{"label": text, "score": 1.0}] for text in texts]

answers = dataclasses.replace(TASKS["text-classification"], at_once=16)
source, target = map(Path, sys.argv[1:])
Job(pipe, answers).run(TableReader(source), TableWriter(target, {}))
"""


@pytest.mark.parametrize("out", [".csv", ".jsonl", ".parquet"])
def test_kill_9_loses_no_row_and_doubles_none(tmp_path, out):
    source = write_table(tmp_path / "in.jsonl", [{"text": f"row {i}"} for i in range(1500)])
    target = tmp_path / f"out{out}"
    command = [sys.executable, "-c", KILLED, str(source), str(target)]
    chance, kills = random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen(command) as running:
            before = time.monotonic()
            while not target.with_name(target.name + ".progress").exists() and time.monotonic() < before + 60:
                time.sleep(0.01)
            time.sleep(chance.random() * 0.2)
            running.send_signal(signal.SIGKILL)
        kills += running.returncode == -signal.SIGKILL
        if target.exists():
            break
    assert kills
    if not target.exists():
        subprocess.run(command, check=True)
    assert [row["text"] for row in read_table(target)] == [f"row {i}" for i in range(1500)]
    assert [row["label"] for row in read_table(target)] == [f"row {i}" for i in range(1500)]


def test_columns_by_other_names(tmp_path):
    source = write_table(tmp_path / "in.csv", [{"id": "1", "review": "abc", "label": "gold"}])
    with pytest.raises(InputError, match="no column 'text'; it has 'id', 'review', 'label'"):
        run(source, tmp_path / "out.csv")
    with pytest.raises(InputError, match="already has a column 'label'"):
        run(source, tmp_path / "out.csv", renamed={"text": "review"})
    run(source, tmp_path / "out.csv", renamed={"text": "review"}, prefix="model_")
    (row,) = read_table(tmp_path / "out.csv")
    assert (row["label"], row["model_label"], row["model_error"]) == ("gold", "3", "")


def test_lists_in_cells_and_constants(tmp_path):
    rows = [{"documents": '["a", "bb"]'}, {"documents": "a"}, {"documents": "[]"}]
    source = write_table(tmp_path / "in.csv", rows)

    def rank(items, top_k=None):
        assert all(item["query"] == "q" for item in items)
        return [[{"index": 1, "score": 2.0, "text": item["documents"][1]}] for item in items]

    job = Job(rank, TASKS["rerank"], constant={"query": "q"})
    assert job.run(TableReader(source), TableWriter(tmp_path / "out.jsonl", {})).failed == 2
    assert [row["index"] for row in read_table(tmp_path / "out.jsonl")] == [1, None, None]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        TableReader(tmp_path / "none.csv")
    (tmp_path / "a.xls").touch()
    with pytest.raises(InputError, match=r"must end in one of .*\.parquet"):
        TableReader(tmp_path / "a.xls")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="name the columns"):
        TableReader(tmp_path / "empty.csv")
    with pytest.raises(InputError, match="no folder"):
        TableWriter(tmp_path / "no" / "out.csv", {})
    with pytest.raises(InputError, match="answers have columns"):
        TableWriter(tmp_path / "out.txt", {})


def test_a_table_without_rows(tmp_path):
    (tmp_path / "in.csv").write_text("text\n")
    assert run(tmp_path / "in.csv", tmp_path / "out.csv") == Summary(0, 0, 0)
    assert (tmp_path / "out.csv").read_text() == "text,label,score,labels,error\n"

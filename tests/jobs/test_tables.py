"""Tables as people have them: other encodings, other marks between columns, texts that look like holes, odd numbers."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import InputError, OutputError
from cutaway.jobs import TASKS, Job, TableReader, TableWriter
from cutaway.jobs.table_writer import row_line
from cutaway.tuning import labelled

CLASSIFY = TASKS["text-classification"]
HOLES = ["null", "NA", "None", "nan", "NaN", "N/A", "NULL", "", "n/a", "-inf", "true", "1e5", "007"]


def label(texts, **options):
    return [[{"label": text, "score": 0.5}] for text in texts]


def rows(path: Path, **how) -> list[dict[str, object]]:
    return [row.values for row in TableReader(path, **how).rows()]


# -- encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".jsonl"])
def test_bytes_that_are_not_utf8_are_an_error_with_row_byte_and_way(tmp_path, encoding, ending):
    mark = "\t" if ending == ".tsv" else ","
    lines = {
        ".jsonl": ['{"text": "fine"}', '{"text": "Gr\xf6\xdfe"}'],
        ".txt": ["fine", "Gr\xf6\xdfe"],
    }.get(ending, [f"id{mark}text", f"1{mark}fine", f"2{mark}Gr\xf6\xdfe"])
    path = tmp_path / f"in{ending}"
    path.write_bytes("\n".join(lines).encode(encoding))
    with pytest.raises(InputError, match=r"row 2: the byte 0xf6 after .*Gr.* is not UTF-8 .*'\xf6'.*--encoding cp1252"):
        TableReader(path)
    assert [row["text"] for row in rows(path, encoding=encoding)] == ["fine", "Größe"]
    assert rows(path, encoding="utf-8:replace")[1]["text"] == "Gr\ufffd\ufffde"


def test_a_late_byte_is_met_when_it_is_read_and_the_rows_before_it_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("cutaway.jobs.table_reader.CHECKED", 0)
    path = tmp_path / "in.csv"
    path.write_bytes(b"text\n" + b"".join(b"%d\n" % i for i in range(2000)) + b"\xe9\n")
    with pytest.raises(InputError, match=r"row 2,001: the byte 0xe9"):
        Job(label, CLASSIFY).run(TableReader(path), writer := TableWriter(tmp_path / "out.csv", {}))
    assert writer.done == 1024
    assert len((tmp_path / "out.csv.partial").read_text().splitlines()) == 1025


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", [".csv", ".txt", ".jsonl"])
def test_a_mark_says_the_encoding(tmp_path, encoding, ending):
    text = {".jsonl": '{"text": "Größe"}\n', ".txt": "Größe\n"}.get(ending, "text\nGröße\n")
    (tmp_path / f"in{ending}").write_text(text, encoding=encoding)
    assert rows(tmp_path / f"in{ending}") == [{"text": "Größe"}]
    assert rows(tmp_path / f"in{ending}", encoding=encoding.removesuffix("-sig")) == [{"text": "Größe"}]
    with pytest.raises(InputError, match=r"begins with the mark of UTF-.*leave out --encoding"):
        TableReader(tmp_path / f"in{ending}", encoding="cp1252")


def test_utf16_without_a_mark_and_wrong_names_are_said(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes("text\nab\n".encode("utf-16-le"))
    with pytest.raises(InputError, match="--encoding utf-16-le"):
        TableReader(path)
    assert rows(path, encoding="utf-16-le") == [{"text": "ab"}]
    path.write_bytes(b"\xff\xfet\x00e\x00x\x00t\x00\n\x00a")  # cut in the middle of a letter
    with pytest.raises(InputError, match=r"row 1: .*is not utf-16"):
        TableReader(path)
    for wrong in ("klingon", "rot13", "hex", "zip", "utf-8:ignore"):
        with pytest.raises(InputError, match="--encoding"):
            TableReader(path, encoding=wrong)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="is no text file"):
        TableReader(tmp_path / "in.parquet", encoding="cp1252")


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="cp1252", exclude_characters="\r\n\x1a"), max_size=12), max_size=8))
def test_every_text_comes_back_in_every_encoding(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("t") / "in.csv"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"):
        with path.open("w", newline="", encoding=encoding) as file:
            csv.writer(file).writerows([["id", "text"], *([str(i), text] for i, text in enumerate(texts))])
        how = {} if encoding in ("utf-8", "utf-8-sig", "utf-16") else {"encoding": encoding}
        assert [row["text"] for row in rows(path, **how)] == texts


# -- columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mark", "said"), [(";", "';'"), ("\t", "tab"), ("|", "'|'")])
def test_another_mark_between_columns_is_said_and_taken(tmp_path, mark, said):
    path = tmp_path / "in.csv"
    path.write_text(f"id{mark}text{mark}label\n1{mark}a, b{mark}good\n2{mark}c{mark}bad\n")
    with pytest.raises(InputError, match=rf"no column 'text'.*divided by {said}: say so with --delimiter"):
        Job(label, CLASSIFY).check(TableReader(path).columns)
    given = "tab" if mark == "\t" else mark
    assert [row["text"] for row in rows(path, delimiter=given)] == ["a, b", "c"]
    with pytest.raises(InputError, match="--delimiter"):
        labelled.read(str(path), "text", "label")
    assert labelled.read(str(path), "text", "label", delimiter=given).texts == ["a, b", "c"]


def test_a_delimiter_is_one_letter_of_a_csv(tmp_path):
    (tmp_path / "in.csv").write_text("text\na\n")
    (tmp_path / "in.txt").write_text("a\n")
    for wrong in (";;", '"', ""):
        with pytest.raises(InputError, match="one letter"):
            TableReader(tmp_path / "in.csv", delimiter=wrong)
    with pytest.raises(InputError, match=r"is no \.csv or \.tsv"):
        TableReader(tmp_path / "in.txt", delimiter=";")


def test_a_quotation_mark_that_is_not_closed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("cutaway.jobs.table_reader.LONGEST_FIELD", 100)
    (tmp_path / "in.csv").write_text('text\n"' + "a\n" * 100)
    with pytest.raises(InputError, match="quotation mark not closed"):
        rows(tmp_path / "in.csv")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
def test_texts_that_look_like_holes_are_texts(tmp_path, ending):
    path = tmp_path / f"in{ending}"
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": HOLES}), path)
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in HOLES))
    else:
        with path.open("w", newline="") as file:
            file.write("" if ending == ".txt" else "text,id\n".replace(",", "\t" if ending == ".tsv" else ","))
            mark = {"": "", ".csv": ",1", ".tsv": "\t1"}.get(ending, "")
            file.writelines(f"{text}{mark}\n" for text in HOLES)
    assert [row["text"] for row in rows(path)] == HOLES
    for out in (".csv", ".jsonl", ".parquet"):
        target = tmp_path / f"out{out}"
        done = Job(label, CLASSIFY).run(TableReader(path), TableWriter(target, {}))
        assert (done.failed, done.blank) == (0, (HOLES.index("") + 1,))  # only what holds nothing is blank
        assert [row["label"] or "" for row in rows(target)] == HOLES


def test_training_reads_such_texts_and_labels_as_texts(tmp_path, monkeypatch):
    import datasets

    texts = [text for text in HOLES if text.strip()]
    lines = ["text,label", *(f"{text},{('NA', 'null')[i % 2]}" for i, text in enumerate(texts))]
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (tmp_path / "in.csv", folder / "train.csv"):
        path.write_text("\n".join(lines) + "\n")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for place in (tmp_path / "in.csv", folder):
        found = labelled.read(str(place), "text", "label")
        assert (found.texts, found.names) == (texts, ("NA", "null")), place


def test_a_table_of_pandas_has_holes_where_texts_are_missing_only():
    import pandas

    from cutaway.distributed.scorer import Scorer, Work

    scorer = Scorer.__new__(Scorer)
    scorer.job = Work("text-classification").job()
    scorer.job.pipe = label
    table = pandas.DataFrame({"text": ["NA", None, "nan"], "score_before": [1.0, math.nan, 2.0]})
    answers = scorer.table(table)
    assert answers["label"].tolist()[0::2] == ["NA", "nan"]
    assert pandas.isna(answers["label"][1]) and answers["error"][1] == ""  # a hole is a blank text
    assert math.isnan(answers["score_before"][1])


# -- numbers ------------------------------------------------------------------------------------------------------


def strict(line: str) -> object:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_every_row_is_json_and_keeps_what_json_can_say(row):
    line = row_line(row)
    line.encode("utf-8")
    assert "\n" not in line
    back = strict(line)

    def same(a, b):
        if isinstance(a, float) and not math.isfinite(a):
            return b is None
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(same, a, b))
        return a == b

    assert same(row, back)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_an_error_of_its_row(tmp_path, bad):
    def pipe(texts, **options):
        return [[{"label": "x", "score": bad if text == "bad" else 0.5}] for text in texts]

    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["a", "bad", "b"], "n": [1.0, bad, 2.0]}), tmp_path / "in.parquet"
    )
    for ending in (".jsonl", ".csv", ".parquet"):
        target = tmp_path / f"out{ending}"
        assert Job(pipe, CLASSIFY).run(TableReader(tmp_path / "in.parquet"), TableWriter(target, {})).failed == 1
        found = rows(target)
        assert [bool(row["error"]) for row in found] == [False, True, False]
        assert "no number to go by" in found[1]["error"]
        if ending == ".jsonl":
            assert [strict(line)["n"] for line in target.read_text().splitlines()] == [1.0, None, 2.0]


# -- what an earlier run left -------------------------------------------------------------------------------------


def started(folder: Path, ending: str) -> tuple[Path, Path]:
    """A job that was stopped after 1,024 of 3,000 rows; its input and its output."""
    source, target = folder / "in.txt", folder / f"out{ending}"
    source.write_text("".join(f"{i}\n" for i in range(3000)))
    calls = iter(range(9))

    def stops(texts, **options):
        if next(calls):
            raise KeyboardInterrupt
        return label(texts)

    with pytest.raises(KeyboardInterrupt):
        run(source, target, stops)
    return source, target


def run(source: Path, target: Path, pipe=label, **how):
    with TableWriter(target, {}, **how) as writer:
        return Job(pipe, CLASSIFY).run(TableReader(source), writer)


def shorten(path: Path) -> None:
    if path.is_dir():
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path / "000000000000.parquet")
    else:
        path.write_bytes(path.read_bytes()[:-9])


def remove(path: Path) -> None:
    for part in path.iterdir() if path.is_dir() else ():
        part.unlink()
    path.rmdir() if path.is_dir() else path.unlink()


FAULTS = {
    "partial is shorter": lambda target: shorten(target.with_name(target.name + ".partial")),
    "partial is missing": lambda target: remove(target.with_name(target.name + ".partial")),
    "progress is missing": lambda target: target.with_name(target.name + ".progress").unlink(),
    "progress is cut": lambda target: shorten(target.with_name(target.name + ".progress")),
    "progress is empty": lambda target: target.with_name(target.name + ".progress").write_text(""),
    "progress is a list": lambda target: target.with_name(target.name + ".progress").write_text("[]"),
    "progress lacks a count": lambda target: target.with_name(target.name + ".progress").write_text('{"job": "x"}'),
    "progress counts letters": lambda target: target.with_name(target.name + ".progress").write_text(
        '{"job": "x", "rows": "a", "bytes": 1, "columns": null}'
    ),
    "progress is no text": lambda target: target.with_name(target.name + ".progress").write_bytes(b"\xff\x00"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_what_is_damaged_is_said_and_never_filled_up(tmp_path, ending, fault):
    source, target = started(tmp_path, ending)
    FAULTS[fault](target)
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"out\.\w+\.(partial|progress).*--overwrite to start again") as said:
        run(source, target)
    assert "\n" not in str(said.value)
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*")) == before
    run(source, target, overwrite=True)
    assert [row["label"] for row in rows(target)] == [str(i) for i in range(3000)]
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


def test_a_full_disk_keeps_what_is_done_and_says_how_to_go_on(tmp_path, monkeypatch):
    source, target = started(tmp_path, ".csv")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(
            OutputError, match=r"No space left on device\. The 1,024 rows that are done stay; make room"
        ):
            run(source, target)
    assert run(source, target).before == 1024
    assert [row["label"] for row in rows(target)] == [str(i) for i in range(3000)]


def test_a_file_that_others_made_meanwhile_is_not_overwritten(tmp_path):
    (tmp_path / "in.txt").write_text("a\nb\n")
    target = tmp_path / "out.csv"

    def pipe(texts, **options):
        target.write_text("theirs")
        return label(texts)

    with pytest.raises(InputError, match=r"made by other software.*all answers are in"):
        run(tmp_path / "in.txt", target, pipe)
    assert target.read_text() == "theirs"
    target.unlink()
    assert run(tmp_path / "in.txt", target, None).rows == 2


def test_an_excel_sheet_is_a_table(tmp_path):
    import datetime

    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for line in (
        ["id", "text", "day"],
        [1, "NA", datetime.date(2026, 5, 1)],
        [2, None, None],
        [3, "b", None, "beyond"],
        [None],
    ):
        sheet.append(line)
    book.save(tmp_path / "a.xlsx")
    reader = TableReader(tmp_path / "a.xlsx")
    assert reader.columns == ["id", "text", "day"]
    rows = list(reader.rows())
    assert [row.values["text"] for row in rows] == ["NA", "", "b"]
    assert rows[0].values["day"].startswith("2026-05-01")
    assert [bool(row.error) for row in rows] == [False, False, True]
    assert [row.values["id"] for row in reader.rows(1)] == [2, 3]
    assert reader.count() == 3
    with pytest.raises(InputError, match="read, not written"):
        TableWriter(tmp_path / "b.xlsx", {})
    with pytest.raises(InputError, match="no text file"):
        TableReader(tmp_path / "a.xlsx", encoding="cp1252")


def test_a_damaged_excel_file(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="cannot be read as Excel"):
        TableReader(tmp_path / "a.xlsx")


def test_excel_without_openpyxl(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.xlsx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"cutaway\[excel\]"):
        TableReader(tmp_path / "a.xlsx")


def test_a_column_may_be_called_as_a_parquet_file_begins(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("PAR1,text\n3,great\n")
    assert [row.values for row in TableReader(path).rows()] == [{"PAR1": "3", "text": "great"}]
    path.write_bytes(b"PAR1\x15\x04\x15\x00PAR1")
    with pytest.raises(InputError, match="is a parquet file"):
        TableReader(path)

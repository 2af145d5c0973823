"""The command with closed or full standard streams, a full disk, and outputs of others: one sentence each."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cutaway.commands.text_input import lines
from cutaway.errors import InputError
from cutaway.jobs import TableReader
from cutaway.locks.output_lock import OutputLock

# What each case does with the shell's redirections, and whether the command fails of it.
STREAMS = {
    "stdin closed": ("classify <&-", "give a text, or pipe one in", 2),
    "stdin closed, table": ("classify -i - <&-", "Standard input is closed", 1),
    "stdout closed": ("--version >&-", "Standard output is closed", 1),
    "stdout full": ("--version >/dev/full", "standard output: No space left on device", 1),
    "help, stdout full": ("--help >/dev/full", "standard output: No space left on device", 1),
    "reader gone": ("--help | true", None, 1),
    "stderr closed": ("--version 2>&-", None, 0),
    "all closed, a table": ("classify -i lines.txt -o out.csv <&- >&- 2>&-", None, 0),
    "Latin-1 table": ("classify -i latin.txt", "--encoding cp1252", 1),
}


@pytest.fixture
def shell(tmp_path: Path):
    (tmp_path / "lines.txt").write_text("Good.\n" * 300)
    (tmp_path / "latin.txt").write_bytes("Good.\nSchön.\n".encode("latin-1"))

    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = f'set -o pipefail; "{sys.executable}" -m cutaway {line}'
        return subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


@pytest.mark.parametrize("case", STREAMS)
def test_streams_that_are_closed_or_full(case, shell, tmp_path):
    line, said, code = STREAMS[case]
    done = shell(line)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if said is not None:
        assert said in done.stderr
        assert code == done.returncode
    else:
        assert done.returncode == code, done.stderr
        assert not done.stderr
    if "out.csv" in line:
        assert len([*TableReader(tmp_path / "out.csv").rows()]) == 300


def test_lines_of_stdin_in_another_encoding(monkeypatch):
    def piped(content: bytes, *encoding: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return list(lines(*encoding))

    latin = "Good.\nSchön.\n".encode("latin-1")
    with pytest.raises(InputError, match=r"stdin, row 2: the byte 0xf6 .*Pipe it in as UTF-8"):
        piped(latin)
    assert piped(latin, "latin-1") == piped("Good.\nSchön.\n".encode("utf-16")) == ["Good.", "Schön."]
    assert piped(b"") == []


def test_a_full_disk_is_one_sentence(call, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("Good.\nBad.\n")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, out, err = call("classify", "-i", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.csv"))
    assert (code, out) == (1, "")
    assert "No space left on device. Make room (or mend it), or give another name." in err  # no row is done
    code, _, err = call("attend", "Good.", "-o", str(tmp_path / "a.json"))
    assert code == 1
    assert "No space left on device" in err
    assert "make room on the disk" in err
    assert not (tmp_path / "a.json").exists()


def test_an_output_at_work_names_its_holder(call, tmp_path):
    (tmp_path / "in.txt").write_text("Good.\n")
    with OutputLock(tmp_path / "out.csv"):
        code, _, err = call(
            "classify", "-i", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.csv"), "--model", "no/x"
        )
    assert code == 1
    assert f"is being written by this process ({os.getpid()}) already, since" in err


def test_tables_with_another_encoding_and_delimiter(call, tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes("text;label\nSchön.;POSITIVE\nDull.;NEGATIVE\n".encode("cp1252"))
    how = ("--encoding", "cp1252", "--delimiter", ";")
    for command in (
        ("classify", "-i", str(path), "--prefix", "m_"),
        ("evaluate", "cutaway/sentiment", str(path)),
        ("bench", "-i", str(path), "--rounds", "1", "--dtype", "float32"),
    ):
        code, _, err = call(*command)
        assert code == 1, command
        assert "--encoding cp1252" in err
        code, _, err = call(*command, "--encoding", "cp1252")
        assert code == 1, command
        assert "--delimiter ';'" in err
        code, _, err = call(*command, *how)
        assert code == 0, (command, err)
    code, _, err = call("train", "cutaway/sentiment", str(path), "-o", str(tmp_path / "t"), "--encoding", "cp1252")
    assert code == 1
    assert "--delimiter ';'" in err

"""One writer for an output at a time: the lock, who holds it, and jobs that overlap and are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from held_elsewhere import held_elsewhere
from noisy_training import noisy_trainer
from training_samples import model

import cutaway
from cutaway.errors import OutputError
from cutaway.jobs import TableReader, TableWriter
from cutaway.locks.output_lock import OutputLock
from cutaway.nn.activations.recorder import Recorder
from cutaway.train import saving

HOLDER = """
import sys, time
from cutaway.locks.output_lock import OutputLock
lock = OutputLock(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_named_and_a_dead_one_stops_nobody(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            OutputError, match=rf"out\.csv is being written by process {holder.pid}, since 20\d\d-"
        ) as said:
            OutputLock(output).acquire()
        assert "name another output" in str(said.value)
        with pytest.raises(OutputError, match="being written by process"):
            OutputLock(output, wait=0.1).acquire()
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / ".out.csv.lock").exists()
    with OutputLock(output):
        pass
    assert not list(tmp_path.iterdir())


def test_threads_of_one_process_take_turns(tmp_path: Path) -> None:
    inside, most, errors = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        try:
            for _ in range(20):
                with OutputLock(tmp_path / "x", wait=60):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, errors, list(tmp_path.iterdir())) == (1, [], [])


def test_a_forked_child_neither_holds_nor_ends_the_lock(tmp_path: Path) -> None:
    with OutputLock(tmp_path / "x") as lock:
        child = os.fork()
        if not child:
            lock.release()  # not its own
            try:
                OutputLock(tmp_path / "x").acquire()
            except OutputError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert lock.file.exists()


def test_the_same_thread_may_only_where_it_says_so(tmp_path: Path) -> None:
    with OutputLock(tmp_path / "x", again=True), OutputLock(tmp_path / "x", again=True):
        other = OutputLock(tmp_path / "x")
        with pytest.raises(OutputError, match=f"this process \\({os.getpid()}\\) already"):
            other.acquire()
    assert not list(tmp_path.iterdir())


def test_every_long_output_has_one_writer(tmp_path: Path) -> None:
    """The rule: tables, trainings, searches and recordings, each tried while another one has it."""
    torch.manual_seed(0)
    made = model("BertForMaskedLM")
    tries = {
        "table": lambda: TableWriter(tmp_path / "out.csv", {}),
        "recording": lambda: Recorder(["logits"], tmp_path / "recording"),
        "training": lambda: noisy_trainer(tmp_path / "training", max_steps=1).train(),
    }
    holders = {
        "table": OutputLock(tmp_path / "out.csv"),
        "recording": OutputLock(tmp_path / "recording"),
        "training": OutputLock(tmp_path / "training", file=tmp_path / "training" / saving.LOCK),
    }
    (tmp_path / "training").mkdir()
    for name, work in tries.items():
        held = holders[name]
        with (
            held_elsewhere(held),
            pytest.raises(OutputError, match=f"{held.output.name} is being written by this process"),
        ):
            work()
    assert not list((tmp_path / "training").iterdir())
    with made.record("logits", to=tmp_path / "recording"):
        pass


def test_a_save_waits_and_then_says_who_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutaway.hub.folder_save.WAIT", 0.1)
    monkeypatch.setattr("cutaway.jsonfile.WAIT", 0.1)
    tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/sentiment")
    cache = cutaway.AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment")
    from cutaway.hub.folder_save import LOCK
    from cutaway.jsonfile import write_text

    folder = tmp_path / "folder"
    folder.mkdir()
    for lock, works in (
        (OutputLock(folder, file=folder / LOCK), (tokenizer.save_pretrained, cache.save_pretrained)),
        (OutputLock(folder / "one"), (lambda folder: write_text(folder / "one", "x"),)),
    ):
        with lock:
            for work in works:
                with pytest.raises(OutputError, match="is being written by this process"):
                    work(folder)
    assert not list(folder.iterdir())


# Without torch, so that children are cheap. A child is a job; it says by its exit status how it ended.
OVERLAPS = """
import dataclasses, os, random, signal, sys, time
from pathlib import Path
from cutaway.errors import CutawayError, OutputError
from cutaway.jobs import TASKS, Job, TableReader, TableWriter

folder, ending, seed, events = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
answers = dataclasses.replace(TASKS["text-classification"], at_once=16)
source, chance, seen = folder / "in.txt", random.Random(seed), {"killed": 0, "refused": 0, "done": 0, "late": 0}

def pipe(texts, **settings):
    time.sleep(0.001)
    return [[{"label": text, "score": 1.0}] for text in texts]

if ending == ".parquet":
    import pyarrow.parquet  # here, not in each child

def child(target):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with TableWriter(target, {}) as writer:
            Job(pipe, answers).run(TableReader(source), writer)
        code = 0
    except OutputError as error:
        code = 3 if "is being written by" in str(error) else 1
        if code == 1: print(error, file=sys.stderr)
    except CutawayError as error:
        code = 4 if "exists" in str(error) else 1
        if code == 1: print(error, file=sys.stderr)
    finally:
        os._exit(code)

number = done = 0
while done < events or not target.exists():
    target = folder / f"out{number}{ending}"
    running = [child(target) for _ in range(chance.randint(2, 3))]
    time.sleep(chance.random() * 0.06)
    for pid in running:
        if chance.random() < 0.6 and done < events:
            os.kill(pid, signal.SIGKILL)
    for pid in running:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seen[{-9: "killed", 3: "refused", 0: "done", 4: "late"}[status]] += 1
    done += 1
    if target.exists():
        number += 1
        target = folder / f"out{number}{ending}" if done < events else target
print(number, *seen.values())
"""


@pytest.mark.parametrize(("ending", "events"), [(".csv", 20), (".jsonl", 15), (".parquet", 15)])
def test_jobs_that_overlap_and_are_killed_lose_no_row_and_double_none(
    fast_disk: Path, ending: str, events: int
) -> None:
    (fast_disk / "in.txt").write_text("".join(f"row {i}\n" for i in range(300)))
    command = [sys.executable, "-c", OVERLAPS, str(fast_disk), ending, "7", str(events)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    finished, killed, refused, completed, _ = map(int, done.stdout.split())
    assert finished
    assert killed
    assert refused
    assert completed <= finished  # one that was killed after its last rename finished a table, too
    for number in range(finished):
        rows = [row.values for row in TableReader(fast_disk / f"out{number}{ending}").rows()]
        assert [row["text"] for row in rows] == [row["label"] for row in rows] == [f"row {i}" for i in range(300)]
    left = {path.name for path in fast_disk.iterdir()} - {"in.txt"}
    assert not [
        name for name in left if not re.fullmatch(rf"\.?out\d+{re.escape(ending)}(\.lock|\.progress)?", name)
    ], left

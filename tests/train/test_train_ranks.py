"""Several processes train as one does: `torchrun`, DDP and FSDP2, on the processor by gloo."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ranks_job import counted, plain
from safetensors.torch import load_file
from training_samples import furthest

from cutaway.train import saving

CLASSES, SPANS, NEXT, TARGET = (
    "BertForSequenceClassification", "BertForQuestionAnswering", "GPT2LMHeadModel", "T5ForConditionalGeneration",
)  # fmt: skip
SAID = ("Error", "rror:", "arning", "terminate called", "Aborted", "Traceback")


def started(folder: Path, size: int, jobs: list[Any], *options: str) -> subprocess.Popen[str]:
    """Begin jobs in `size` processes, one after another."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    here = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", *options]
    return subprocess.Popen(
        [*command, str(here / "ranks_job.py"), str(folder / "jobs.json")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def torchrun(folder: Path, size: int, jobs: list[Any], *options: str) -> subprocess.CompletedProcess[str]:
    """Run jobs in `size` processes, one after another."""
    process = started(folder, size, jobs, *options)
    said, complained = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, said, complained)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> str:
    """What two processes do; what they said."""
    cut = {"gradient_accumulation_steps": 3}
    jobs = [
        *(["plain", str(folder / f"two-{name}"), {"name": name, **cut}] for name in (SPANS, NEXT, TARGET)),
        ["plain", str(folder / f"two-{CLASSES}"), {"name": CLASSES, **cut, "save_strategy": "steps", "save_steps": 1}],
        *(["plain", str(folder / f"sharded-{n}"), {"name": n, **cut, "fsdp": True}] for n in (NEXT, TARGET)),
        ["plain", str(folder / "saved"), {"name": CLASSES, **cut, "fsdp": True, "save_strategy": "steps",
                                          "save_steps": 1, "ema_decay": 0.5}],
        ["stopped", str(folder / "stopped"), {}],
        ["stopped", str(folder / "stopped-sharded"), {"fsdp": "full_shard", "ema_decay": 0.9}],
        ["refused", str(folder / "optimizer"), {"how": "optimizer"}],
        ["refused", str(folder / "adapter"), {"how": "adapter"}],
        ["refused", str(folder / "disk"), {"how": "disk"}],
        ["refused", str(folder / "generate"), {"how": "generate"}],
        ["refused", str(folder / "search"), {"how": "search"}],
    ]  # fmt: skip
    done = torchrun(folder / "two", 2, jobs)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def three(folder: Path, two: str) -> str:
    """What three processes do, some of them without rows."""
    cut = {"gradient_accumulation_steps": 2}
    jobs = [
        *(["plain", str(folder / f"three-{name}"), {"name": name, **cut}] for name in (CLASSES, SPANS, NEXT, TARGET)),
        ["plain", str(folder / "three-sharded"), {"name": CLASSES, **cut, "fsdp": True}],
        ["plain", str(folder / "three-weighted"), {"name": CLASSES, **cut, "class_weights": "balanced", "n": 11,
                                                   "label_smoothing_factor": 0.1}],
        ["counted", str(folder / "three-counted"), {}],
        ["refused", str(folder / "other"), {"how": str(folder / f"two-{CLASSES}" / "checkpoint-1")}],
    ]  # fmt: skip
    done = torchrun(folder / "three", 3, jobs)
    assert done.returncode == 0, done.stderr
    return done.stderr


def compare(one: Path, other: Path) -> None:
    """Weights to 1e-6; loss, norm, evaluation and predictions to rounding."""
    assert furthest(load_file(one / "end" / "model.safetensors"), load_file(other / "end" / "model.safetensors")) < 1e-6
    if not (one / "said.json").exists():
        return
    a, b = (json.loads((p / "said.json").read_text()) for p in (one, other))
    assert len(a["log"]) == len(b["log"]) > 3
    for x, y in zip(a["log"], b["log"], strict=True):
        assert x == pytest.approx(y, rel=1e-5)
    assert len(a["predictions"]) == 11
    for x, y in zip(a["predictions"], b["predictions"], strict=True):
        assert x == pytest.approx(y, abs=1e-5) if isinstance(x[0], float) else x[0] == pytest.approx(y[0], abs=1e-5)


@pytest.mark.parametrize("name", [CLASSES, SPANS, NEXT, TARGET])
def test_one_two_and_three_processes_train_alike(name: str, folder: Path, two: str, three: str) -> None:
    plain(name, folder / f"one-{name}", gradient_accumulation_steps=6)
    compare(folder / f"one-{name}", folder / f"two-{name}")
    compare(folder / f"one-{name}", folder / f"three-{name}")
    if name in (NEXT, TARGET):
        compare(folder / f"one-{name}", folder / f"sharded-{name}")
    if name == CLASSES:
        compare(folder / f"one-{name}", folder / "three-sharded")


def test_weighted_labels_and_updates_without_rows_for_some(folder: Path, three: str) -> None:
    weighted: dict[str, Any] = {"class_weights": "balanced", "n": 11, "label_smoothing_factor": 0.1}
    plain(CLASSES, folder / "one-weighted", gradient_accumulation_steps=6, **weighted)
    compare(folder / "one-weighted", folder / "three-weighted")


def test_metrics_batch_by_batch_and_rows_from_a_function(folder: Path, three: str) -> None:
    counted(folder / "one-counted", parts=3)
    compare(folder / "one-counted", folder / "three-counted")


def test_clean_ends_and_quiet_processes(two: str, three: str) -> None:
    for said in (two, three):
        lines = [line for line in said.splitlines() if any(word in line for word in SAID)]
        assert lines == []


def test_resumed_to_the_same_bits(folder: Path, two: str) -> None:
    for name in ("stopped", "stopped-sharded"):
        files = [(folder / name / kind / "end" / "model.safetensors").read_bytes() for kind in ("whole", "cut")]
        assert files[0] == files[1], name
        whole = [p.name for p in (folder / name / "whole").iterdir() if saving.fault(p) is None]
        assert sorted(whole) == [f"checkpoint-{i}" for i in range(1, 7)]


@pytest.mark.parametrize("source", [f"two-{CLASSES}", "saved"])
def test_another_number_of_processes_is_said_or_refused(
    source: str, folder: Path, two: str, three: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    average = {"ema_decay": 0.5} if source == "saved" else {}
    start = str(folder / source / "checkpoint-1")
    with caplog.at_level(logging.WARNING, "cutaway"):
        plain(CLASSES, tmp_path / "on", start, gradient_accumulation_steps=6, **average)
    assert "was trained by 2 processes, now by 1" in caplog.text
    plain(CLASSES, tmp_path / "one", gradient_accumulation_steps=6, **average)
    ends = [load_file(p / "end" / "model.safetensors") for p in (tmp_path / "on", tmp_path / "one", folder / source)]
    assert furthest(ends[0], ends[1]) < 1e-6
    assert furthest(ends[2], ends[1]) < 1e-6
    with pytest.raises(Exception, match=r"with 6 batches an update.*gradient_accumulation_steps=6"):
        plain(CLASSES, tmp_path / "not", start, gradient_accumulation_steps=3, **average)
    assert "Resume with gradient_accumulation_steps=2" in (folder / "other-0.txt").read_text()


def test_what_cannot_be_is_said_by_all(folder: Path, two: str) -> None:
    for rank in (0, 1):
        assert "override create_optimizer" in (folder / f"optimizer-{rank}.txt").read_text()
        assert "does not go with an adapter" in (folder / f"adapter-{rank}.txt").read_text()
        assert "trainer.save_model(folder)" in (folder / f"generate-{rank}.txt").read_text()
        assert "start it without torchrun" in (folder / f"search-{rank}.txt").read_text()
    assert "Error" in (folder / "disk-0.txt").read_text()
    assert "rank 0 failed" in (folder / "disk-1.txt").read_text()


def test_a_signal_to_one_is_for_all_and_a_kill_costs_nothing(folder: Path, two: str) -> None:
    out = folder / "beaten"
    done = torchrun(folder / "three-times", 2, [["beaten", str(out), {}]], "--max-restarts=2")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.glob("left-*")) == ["left-0-0", "left-0-1"]
    assert (out / "end" / "model.safetensors").read_bytes() == (
        folder / "stopped" / "whole" / "end" / "model.safetensors"
    ).read_bytes()


def test_ctrl_c_leaves_a_whole_checkpoint(folder: Path, two: str) -> None:
    out = folder / "waiting"
    out.mkdir()
    process = started(folder / "interrupted", 2, [["waiting", str(out), {}]])
    until = time.monotonic() + 300
    while not all((out / f"reached-{rank}").exists() for rank in (0, 1)):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: torchrun and everyone that it started
    (out / "answered").touch()
    _, complained = process.communicate(timeout=300)
    assert process.returncode != 0
    assert complained.count("KeyboardInterrupt") >= 2, complained
    assert max(saving.numbered(out))[0] == 3
    assert [why for _, path in saving.numbered(out) if (why := saving.fault(path)) is not None] == []
    done = torchrun(folder / "interrupted", 2, [["waiting", str(out), {"resume": True}]])
    assert done.returncode == 0, done.stderr
    assert (out / "end" / "model.safetensors").read_bytes() == (
        folder / "stopped" / "whole" / "end" / "model.safetensors"
    ).read_bytes()

"""`cutaway train` by two processes of torchrun: one training, one folder, one report."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import classifier

from cutaway.train import saving

WORDS = ("good", "great", "bad", "very bad")


def table(folder: Path) -> Path:
    draw = random.Random(0)
    path = folder / "reviews.jsonl"
    said = [(draw.choice(WORDS), i) for i in range(44)]
    path.write_text(
        "".join(
            json.dumps({"text": f"the film {i} was {word}", "label": ("no", "yes")["good" in word or word == "great"]})
            + "\n"
            for word, i in said
        )
    )
    return path


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cutaway"]
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_two_processes_make_what_one_makes(tmp_path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    base = classifier(tmp_path / "base", labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    data, out = table(tmp_path), tmp_path / "two"
    given = ["train", str(base), str(data), "--validation", "0.25", "--epochs", "1", "--learning-rate", "1e-3", "-o"]
    done = torchrun(*given, str(out), "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("rows to train on") == done.stderr.count("report.html.") == 1
    assert sum(line.startswith("accuracy ") for line in done.stdout.splitlines()) == 1
    assert [why for _, path in saving.numbered(out) if (why := saving.fault(path)) is not None] == []
    assert {"report.html", "curves.png", "validation.png", "config.json", "data.json"} <= {
        p.name for p in out.iterdir()
    }

    code, said, _ = call(*given, str(tmp_path / "one"), "--batch-size", "8")
    assert code == 0
    numbers = [dict(line.split() for line in text.splitlines()) for text in (said, done.stdout)]
    assert {k: float(v) for k, v in numbers[0].items()} == pytest.approx(
        {k: float(v) for k, v in numbers[1].items()}, abs=2e-3
    )


def test_a_search_by_several_processes_is_refused(
    tmp_path: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, data = classifier(tmp_path / "base", labels=2), table(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = call("train", str(base), str(data), "-o", str(tmp_path / "out"), "--search", "2")
    assert code == 1 and "start it without torchrun" in err
    assert not (tmp_path / "out").exists()

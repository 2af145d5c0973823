"""What a save leaves, whatever happens to it: older checkpoints intact, the newest whole one found."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noisy_training import Stop, noisy_trainer
from training_samples import furthest, model, rows, weights

import cutaway
from cutaway.errors import CheckpointError
from cutaway.train import rng, saving
from cutaway.train.serialization import pack, unpack


def test_a_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    noisy_trainer(tmp_path, max_steps=2).train()
    names = {p.suffix for p in (tmp_path / "checkpoint-2").iterdir()}
    assert names == {".json", ".safetensors"}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    listed = json.loads((tmp_path / "checkpoint-2" / "manifest.json").read_text())["files"]
    assert set(listed) == {p.name for p in (tmp_path / "checkpoint-2").iterdir()} - {"manifest.json"}
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["log_history"][0]["loss"] > 0
    cutaway.BertForMaskedLM.from_pretrained(tmp_path / "checkpoint-2")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_damaged_is_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = noisy_trainer(tmp_path / "whole")
    whole.train()
    with pytest.raises(Stop):
        noisy_trainer(tmp_path / "cut", 6).train()
    cut = tmp_path / "cut"
    flip(cut / "checkpoint-6" / "model.safetensors")
    part = cut / "checkpoint-5" / "training.safetensors"
    part.write_bytes(part.read_bytes()[:-7])
    (cut / "checkpoint-4" / "manifest.json").unlink()
    (cut / "checkpoint-3" / "trainer_state.json").unlink()
    with caplog.at_level(logging.WARNING, logger="cutaway"):
        again = noisy_trainer(cut)
        again.train(resume_from_checkpoint=True)
    reasons = [r.message for r in caplog.records if "is skipped" in r.message]
    expected = ("checkpoint-6.*SHA-256", "checkpoint-5.*truncated", "checkpoint-4.*manifest", "checkpoint-3.*missing")
    assert all(re.search(e, r) for e, r in zip(expected, reasons, strict=True))
    assert furthest(weights(whole.model), weights(again.model)) == 0.0

    flip(cut / "checkpoint-9" / "config.json")
    with pytest.raises(CheckpointError, match="checkpoint-8"):
        noisy_trainer(cut).train(resume_from_checkpoint=str(cut / "checkpoint-9"))
    for n in range(1, 9):
        (cut / f"checkpoint-{n}" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        noisy_trainer(cut).train(resume_from_checkpoint=True)
    caplog.clear()
    noisy_trainer(tmp_path / "new", max_steps=1).train(resume_from_checkpoint=True)
    assert "begins at the beginning" in caplog.text


def test_one_wrong_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    noisy_trainer(tmp_path, max_steps=1).train()
    folder = tmp_path / "checkpoint-1"
    assert saving.fault(folder) is None
    for path in sorted(p for p in folder.iterdir() if p.name != saving.MANIFEST):
        before = path.read_bytes()
        for place in (0, len(before) // 3, len(before) - 1):
            path.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
            assert "SHA-256" in (saving.fault(folder) or ""), path
        path.write_bytes(before)
    assert saving.fault(folder) is None


def test_other_batches_or_another_model_are_refused(tmp_path: Path) -> None:
    noisy_trainer(tmp_path, max_steps=2).train()
    with pytest.raises(CheckpointError, match="per_device_train_batch_size"):
        noisy_trainer(tmp_path, per_device_train_batch_size=3).train(resume_from_checkpoint=True)
    other = cutaway.Trainer(
        model=model("BertForTokenClassification"),
        args=noisy_trainer(tmp_path).args,
        train_dataset=rows("BertForTokenClassification", 15),
    )
    with pytest.raises(CheckpointError, match="same model"):
        other.train(resume_from_checkpoint=True)


def test_the_limit_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    noisy_trainer(tmp_path / "a", save_total_limit=2).train()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["checkpoint-8", "checkpoint-9"]
    scores = iter([3.0, 1.0, 2.0])
    best = noisy_trainer(
        tmp_path / "b", save_total_limit=1, save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="given", greater_is_better=False,
    )  # fmt: skip
    best.compute_metrics = lambda _: {"given": next(scores)}
    best.train()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["checkpoint-6", "checkpoint-9"]
    stored = cutaway.BertForMaskedLM.from_pretrained(tmp_path / "b" / "checkpoint-6")
    assert furthest(weights(best.model), weights(stored)) == 0.0


def test_checkpoints_of_an_earlier_training_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noisy_trainer(tmp_path, max_steps=9, save_steps=9).train()
    assert "earlier training" not in caplog.text
    noisy_trainer(tmp_path, max_steps=3, save_total_limit=1).train()
    assert "earlier training" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-9"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt("No time left")])
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename", "cutaway.train.loop.write_tensors"])
def test_a_save_that_fails_leaves_the_older_checkpoint(
    call: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy_trainer(tmp_path, max_steps=1, save_strategy="steps").train()

    def full(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(type(error), match="No "):
            noisy_trainer(tmp_path, max_steps=2).train(resume_from_checkpoint=True)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]
    assert saving.newest(tmp_path)[0] == tmp_path / "checkpoint-1"


# In one process, so that torch is loaded once: children are forked, train, and are killed.
KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from noisy_training import noisy_trainer
from cutaway.train import saving

output, event_numbers, moments = Path(sys.argv[1]), eval(sys.argv[2]), eval(sys.argv[3])
more = {"num_train_epochs": 2, "save_total_limit": 2}

def child(folder, at_event):
    pid = os.fork()
    if pid:
        return pid
    if at_event is not None:
        count = 0
        def watch(event, args):
            nonlocal count
            if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "tempfile.mkdtemp") and (
                ".checkpoint-" in str(args[0]) or "checkpoint-" in str(args[0])
            ):
                count += 1
                if count == at_event:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
    trainer = noisy_trainer(folder, **more)
    trainer.train(resume_from_checkpoint=True)
    trainer.save_model(folder / "end")
    os._exit(0)

def wait(pid):
    return os.waitpid(pid, 0)[1]

noisy_trainer(output / "warm", max_steps=1).train()  # what is imported late is there for every child
began = time.monotonic()
assert wait(child(output / "whole", None)) == 0
took = time.monotonic() - began
wanted = (output / "whole" / "end" / "model.safetensors").read_bytes()
killed = 0
for at, moment in [*((n, None) for n in event_numbers), *((None, m) for m in moments)]:
    folder = output / f"{at}-{moment}"
    pid = child(folder, at)
    if moment is not None:
        time.sleep(moment * took)
        os.kill(pid, signal.SIGKILL)
    killed += wait(pid) == signal.SIGKILL
    before = saving.newest(folder)[0]
    assert before is not None or not saving.numbered(folder), folder
    assert wait(child(folder, None)) == 0, folder
    assert (folder / "end" / "model.safetensors").read_bytes() == wanted, folder
    assert not [p for p in folder.iterdir() if p.name.startswith(".")], folder
print(killed)
"""


def test_kill_9_in_a_save_loses_nothing(tmp_path: Path) -> None:
    events = [3, 17, 30, 41, 52, 67, 83, 118]
    moments = [0.5, 0.8]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), repr(events), repr(moments)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= 8  # those at an event always come, those at a moment may come late


def test_plain_values_come_back_as_they_were() -> None:
    value = {
        "a": (1, 2.5, None, True, "x"),
        "b": [float("inf"), float("-inf"), {0: torch.arange(3), 1: (torch.ones(2),)}],
        "c": 0.1 + 0.2,
        "d": {"~tuple": [1]},
    }
    tensors: dict[str, torch.Tensor] = {}
    back = unpack(json.loads(json.dumps(pack(value, tensors, "v"), allow_nan=False)), tensors)
    assert repr(back) == repr(value)
    assert unpack(pack(np.float64(2.5), {}, "v"), {}) == 2.5
    with pytest.raises(CheckpointError, match="holds a function"):
        pack({"f": flip}, {}, "v")


def test_random_numbers_are_lent_and_given_back() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), torch.rand(()).item(), random.gauss(0, 1)]

    cutaway.set_seed(1)
    first = draw()
    state = rng.capture()
    with rng.drawn_from(1, 2):
        inside = draw()
    after = draw()
    rng.restore(unpack(pack(state, kept := {}, "s"), kept))
    with rng.drawn_from(1, 2):
        assert draw() == inside
    assert draw() == after != first


def test_a_checkpoint_of_the_model_alone(tmp_path: Path) -> None:
    trainer = noisy_trainer(tmp_path, max_steps=2, save_only_model=True)
    trainer.train()
    names = {p.name for p in (tmp_path / "checkpoint-2").iterdir()}
    assert {"model.safetensors", "config.json", "trainer_state.json", "manifest.json"} <= names
    assert not {"training.json", "training.safetensors"} & names
    kept = cutaway.BertForMaskedLM.from_pretrained(tmp_path / "checkpoint-2")
    assert furthest(weights(kept), weights(trainer.model)) == 0.0
    with pytest.raises(CheckpointError, match="save_only_model"):
        noisy_trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=True)

"""A training that was stopped anywhere goes on from its newest whole checkpoint, to the same bits."""

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
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import CheckpointError
from cutaway.train import chance, saving
from cutaway.train.plain import pack, unpack

NAME = "BertForMaskedLM"


class Noisy:
    """Rows that draw from every source of random numbers."""

    def __init__(self) -> None:
        self.rows = rows(NAME, 15)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = dict(self.rows[i])
        swaps = [random.randrange(1, 4), int(np.random.randint(1, 4)), int(torch.randint(1, 4, ()))]
        row["input_ids"] = row["input_ids"].clone()
        row["input_ids"][swaps] = torch.tensor([random.randrange(5, 60) for _ in swaps])
        return row


class Stop(Exception):
    """A power cut."""


class StopsAt(cutaway.TrainerCallback):
    """Stops in the middle of an update: before the weights change, after its gradients are there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Stop


def noisy_trainer(folder: Path, stop: int | None = None, **more: Any) -> cutaway.Trainer:
    """Dropout, random rows, 15 of them in parts of 2, 3 parts an update: 8 parts and 3 updates an epoch."""
    ours = model(NAME, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "num_train_epochs": 3, "logging_steps": 2,
        "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3, "warmup_steps": 2,
    }  # fmt: skip
    data = more.pop("data", None) or Noisy()
    return cutaway.Trainer(
        model=ours,
        args=arguments(folder, **{**settings, **more}),
        train_dataset=data,
        eval_dataset=rows(NAME, 4),
        callbacks=[] if stop is None else [StopsAt(stop)],
    )


def told(trainer: cutaway.Trainer) -> list[dict[str, Any]]:
    """What was logged, without times."""
    return [
        {k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k}
        for entry in trainer.state.log_history
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2},
        {"dataloader_num_workers": 2, "save_steps": 4},
        {"optim": "sgd", "lr_scheduler_type": "cosine"},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
        {"group_by_length": True, "ema_decay": 0.9, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2},
        {"per_device_train_batch_tokens": 20, "max_steps": 9, "optim": "adafactor", "layer_lr_decay": 0.9},
        {"bf16": True, "gradient_checkpointing": True, "freeze": ["embed"], "optim": "rmsprop"},
    ],
    ids=["steps", "evaluated", "workers", "sgd", "epochs", "by-length", "packed", "half"],
)
def test_resumed_is_uninterrupted_bit_by_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = noisy_trainer(tmp_path / "whole", **settings)
    whole.train()
    assert whole.state.global_step == 9
    few = settings.keys() & {"dataloader_num_workers", "group_by_length", "per_device_train_batch_tokens", "bf16"}
    for stop in (5,) if few else (4, 7):
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(Stop):
            noisy_trainer(folder, stop, **settings).train()
        random.seed(stop)  # whatever the next process begins with
        torch.manual_seed(stop)
        again = noisy_trainer(folder, **settings)
        again.train(resume_from_checkpoint=True)
        assert furthest(weights(whole.model), weights(again.model)) == 0.0
        assert told(again) == told(whole)
        assert again.state.best_metric == whole.state.best_metric


@pytest.mark.parametrize("plan", [{}, {"group_by_length": True}, {"per_device_train_batch_tokens": 20}])
def test_workers_make_the_same_batches(plan: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for workers in (0, 2):
        trainer = noisy_trainer(
            tmp_path / str(workers), dataloader_num_workers=workers, max_steps=3, save_strategy="no", **plan
        )
        trainer.train()
        found.append(weights(trainer.model))
    assert furthest(*found) == 0.0


def test_streams_and_early_stopping_resume(tmp_path: Path) -> None:
    def stream() -> Any:
        source = Noisy()
        while True:
            yield source[random.randrange(len(source))]

    def make(folder: Path, stop: int | None = None) -> cutaway.Trainer:
        trainer = noisy_trainer(
            folder, stop, data=stream, max_steps=7, eval_strategy="steps", eval_steps=1, metric_for_best_model="loss",
            greater_is_better=True,
        )  # fmt: skip
        trainer.add_callback(cutaway.EarlyStoppingCallback(3, early_stopping_threshold=0.01))
        return trainer

    whole = make(tmp_path / "whole")
    whole.train()
    assert whole.state.global_step >= 3
    with pytest.raises(Stop):
        make(tmp_path / "cut", stop=2).train()
    again = make(tmp_path / "cut")
    again.train(resume_from_checkpoint=True)
    assert told(again) == told(whole)
    assert furthest(weights(whole.model), weights(again.model)) == 0.0


def test_every_step_of_an_accumulating_training_resumes(tmp_path: Path) -> None:
    whole = noisy_trainer(tmp_path, ema_decay=0.5)
    whole.train()
    wanted = weights(whole.model)
    for step in range(1, 9):
        again = noisy_trainer(tmp_path, ema_decay=0.5, save_strategy="no")
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert furthest(weights(again.model), wanted) == 0.0


def test_masks_of_a_seeded_collator_resume(tmp_path: Path) -> None:
    class Tokens:
        mask_token_id, pad_token_id, all_special_ids = 4, 0, [0, 1, 2, 3, 4]

        def __len__(self) -> int:
            return 60

        def pad(self, rows: list[Any], **_: Any) -> dict[str, torch.Tensor]:
            return {k: torch.stack([r[k] for r in rows]) for k in rows[0]}

    def make(stop: int | None = None) -> cutaway.Trainer:
        trainer = noisy_trainer(tmp_path / "cut", stop)
        trainer.data_collator = cutaway.DataCollatorForLanguageModeling(Tokens(), mlm_probability=0.5, seed=3)
        return trainer

    whole = make()
    whole.args.output_dir = str(tmp_path / "whole")
    whole.train()
    with pytest.raises(Stop):
        make(stop=4).train()
    again = make()
    again.train(resume_from_checkpoint=str(tmp_path / "cut"))
    assert furthest(weights(whole.model), weights(again.model)) == 0.0


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
from test_train_saving import noisy_trainer, saving

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
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
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
    state = chance.capture()
    with chance.drawn_from(1, 2):
        inside = draw()
    after = draw()
    chance.restore(unpack(pack(state, kept := {}, "s"), kept))
    with chance.drawn_from(1, 2):
        assert draw() == inside
    assert draw() == after != first

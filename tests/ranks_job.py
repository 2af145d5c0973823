"""What `torchrun` runs for test_train_ranks.py: trainings, by one process or by several, and what came out of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from noisy_training import Stop, noisy_trainer
from training_samples import arguments, model, rows

import cutaway

RANK = int(os.environ.get("RANK", 0))
ATTEMPT = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
# (attempt, step) -> (the rank that is hit, the signal)
BLOWS = {(0, 2): (1, signal.SIGTERM), (1, 4): (0, signal.SIGKILL)}


class Blows(cutaway.TrainerCallback):
    """Signals out of nowhere."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rank, blow = BLOWS.get((ATTEMPT, state.global_step), (None, 0))
        if rank == RANK:
            os.kill(os.getpid(), blow)


def plain(name: str, out: Path, resume: bool | str = False, n: int = 46, **settings: Any) -> cutaway.Trainer:
    """A training without dropout: 46 rows in batches of 5, the last of one row; predictions, evaluation, weights."""
    made = model(name)
    if RANK:  # the first one's weights count
        torch.nn.init.normal_(next(made.parameters()))
    given = {
        "per_device_train_batch_size": 5, "per_device_eval_batch_size": 3, "num_train_epochs": 2, "optim": "sgd",
        "learning_rate": 0.05, "logging_steps": 1,
    }  # fmt: skip
    data = rows(name, n, pad=made.config.pad_token_id or 0)
    trainer = cutaway.Trainer(
        model=made,
        args=arguments(out, **{**given, **settings}),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda given: {"seen": float(len(given.predictions))} if not RANK else {"seen": -1.0},
    )
    trainer.train(resume_from_checkpoint=resume)
    said = trainer.predict(data[:11]).predictions
    trainer.evaluate()
    trainer.save_model(out / "end")
    if trainer.is_world_process_zero():
        keep = ("loss", "grad_norm", "eval_loss", "eval_seen", "epoch", "step")
        log = [{k: v for k, v in entry.items() if k in keep} for entry in trainer.state.log_history]
        first = said[0] if isinstance(said, tuple) else said
        (out / "said.json").write_text(json.dumps({"log": log, "predictions": first.tolist()}))
    return trainer


def counted(out: Path, parts: int = 1) -> cutaway.Trainer:
    """Metrics that follow batch by batch, rows from a function, and a last update without rows for some ranks."""
    seen: list[int] = []

    def follow(given: Any, compute_result: bool) -> dict[str, float]:
        seen.extend(given.label_ids.tolist())
        return {"order": float(seen == [i % 3 for i in range(7)])} if compute_result else {}

    name = "BertForSequenceClassification"
    data = rows(name, 7)
    trainer = cutaway.Trainer(
        model=model(name),
        args=arguments(
            out, per_device_train_batch_size=2, per_device_eval_batch_size=2, max_steps=3, optim="sgd",
            batch_eval_metrics=True, learning_rate=0.05, gradient_accumulation_steps=parts,
        ),
        train_dataset=lambda: iter(data),
        eval_dataset=data,
        compute_metrics=follow,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_order"] == 1.0
    trainer.save_model(out / "end")
    return trainer


def stopped(out: Path, **settings: Any) -> None:
    """Dropout, random rows, an update cut off and resumed: the same bits as without."""
    whole = noisy_trainer(out / "whole", **settings)
    whole.train()
    whole.save_model(out / "whole" / "end")
    with contextlib.suppress(Stop):
        noisy_trainer(out / "cut", stop=4, **settings).train()
    again = noisy_trainer(out / "cut", **settings)
    again.train(resume_from_checkpoint=True)
    again.save_model(out / "cut" / "end")


def beaten(out: Path) -> None:
    """The same, with signals that come from outside; torchrun starts it again."""
    trainer = noisy_trainer(out)
    trainer.add_callback(Blows)
    try:
        trainer.train(resume_from_checkpoint=True)
    except KeyboardInterrupt:
        (out / f"left-{ATTEMPT}-{RANK}").touch()
        raise
    trainer.save_model(out / "end")


class Wait(cutaway.TrainerCallback):
    """Says when the third step is made, and goes on when somebody has answered."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            (self.out / f"reached-{RANK}").touch()
            while not (self.out / "answered").exists():
                time.sleep(0.02)


def waiting(out: Path, resume: bool = False) -> None:
    """A training that a Ctrl-C stops, and then the rest of it."""
    trainer = noisy_trainer(out)
    trainer.add_callback(Wait(out))
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(out / "end")


def refused(out: Path, how: str, **settings: Any) -> None:
    """A training that must not begin: what is said."""
    name = "BertForSequenceClassification"
    try:
        if how == "optimizer":
            made = model(name)
            own = torch.optim.SGD(made.parameters(), 0.1)
            cutaway.Trainer(made, arguments(out, fsdp=True), train_dataset=rows(name), optimizers=(own, None)).train()
        elif how == "adapter":
            made = model(name)
            made.add_adapter(cutaway.LoraConfig(r=2))
            cutaway.Trainer(made, arguments(out, fsdp=True), train_dataset=rows(name)).train()
        elif how == "generate":
            made = plain("GPT2LMHeadModel", out, fsdp=True, max_steps=1).model
            made.generate(torch.tensor([[1, 5]]), max_new_tokens=2)
        elif how == "search":
            cutaway.Trainer(args=arguments(out), model_init=lambda: model(name)).hyperparameter_search()
        elif how == "disk":
            made = cutaway.Trainer(
                model(name), arguments(out / "file", save_strategy="steps"), train_dataset=rows(name)
            )
            if not RANK:
                out.mkdir(parents=True)
                (out / "file").touch()
            made.train()
        else:
            plain(name, out, how, **settings)
    except (cutaway.errors.CutawayError, OSError) as e:
        (out.parent / f"{out.name}-{RANK}.txt").write_text(f"{type(e).__name__}: {e}")


JOBS = {
    "plain": plain,
    "counted": counted,
    "stopped": stopped,
    "beaten": beaten,
    "waiting": waiting,
    "refused": refused,
}


def main() -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    for kind, out, settings in json.loads(Path(sys.argv[1]).read_text()):
        JOBS[kind](out=Path(out), **settings)


if __name__ == "__main__":
    main()

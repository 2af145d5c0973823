"""`auto_find_batch_size`: smaller batches from the beginning, to the same bits as a training that had them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import ConfigError

NAME = "BertForSequenceClassification"


class Scarce(cutaway.TrainerCallback):
    """A device on which batches of more than `most` rows fail at the second step."""

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, []  # type: ignore[var-annotated]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tried.append(state.train_batch_size)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.train_batch_size > self.most and state.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def trainer(folder: Path, size: int, *callbacks: Any, **more: Any) -> cutaway.Trainer:
    given = {"auto_find_batch_size": True, "max_steps": 4, "learning_rate": 1e-2, **more}
    ours = None if "model_init" in given else model(NAME)
    make, optimizers = given.pop("model_init", None), given.pop("optimizers", (None, None))
    if optimizers == "own":
        optimizers = (torch.optim.AdamW(ours.parameters(), lr=1e-2), None)
    return cutaway.Trainer(
        model=ours,
        model_init=make,
        args=arguments(folder, per_device_train_batch_size=size, **given),
        train_dataset=rows(NAME, 40),
        callbacks=list(callbacks),
        optimizers=optimizers,
    )


@pytest.mark.parametrize("more", [{}, {"model_init": lambda: model(NAME)}, {"optimizers": "own"}])
def test_a_training_that_did_not_fit_ends_as_one_that_began_smaller(tmp_path: Path, more: Any) -> None:
    scarce = Scarce(8)
    found = trainer(tmp_path / "a", 10, scarce, **more)
    found.train()
    assert scarce.tried == [10, 9, 8]
    assert found.state.train_batch_size == 8 and found.get_total_train_batch_size(found.args) == 8
    plain = trainer(tmp_path / "b", 8, **{**more, "auto_find_batch_size": False})
    plain.train()
    assert furthest(weights(found.model), weights(plain.model)) == 0.0
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (found, plain)]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_a_resume_goes_on_with_the_size_that_was_found(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path, 10, Scarce(8), **saving)
    whole.train()
    assert (tmp_path / "checkpoint-3").is_dir()
    again = trainer(tmp_path, 10, **saving)
    again.train(resume_from_checkpoint=True)
    assert again.state.train_batch_size == 8
    assert furthest(weights(whole.model), weights(again.model)) == 0.0
    scarce = Scarce(4)
    scarce.on_step_end = scarce.on_log = lambda *a, **k: (_ for _ in ()).throw(MemoryError)  # type: ignore[method-assign, assignment]
    with pytest.raises(MemoryError):  # its batches cannot be others
        trainer(tmp_path, 10, scarce, **saving).train(resume_from_checkpoint=True)
    assert scarce.tried == [8]


def test_what_no_smaller_batch_helps_is_raised(tmp_path: Path) -> None:
    scarce = Scarce(0)
    with pytest.raises(torch.OutOfMemoryError, match=r"down to 1 row.*gradient_checkpointing.*LoRA") as caught:
        trainer(tmp_path, 3, scarce).train()
    assert scarce.tried == [3, 2, 1]
    assert str(caught.value.__cause__) == "CUDA out of memory."

    class Broken(cutaway.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        trainer(tmp_path, 3, Broken()).train()
    with pytest.raises(ConfigError, match="per_device_train_batch_tokens"):
        arguments(tmp_path, auto_find_batch_size=True, per_device_train_batch_tokens=64)

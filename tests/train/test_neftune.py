"""Noise on the vectors of tokens while a model trains, and an optimizer that a class makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import ConfigError
from cutaway.integrations.neftune import activate_neftune, deactivate_neftune
from cutaway.trainer import DEFAULT_CALLBACKS, logger
from cutaway.trainer_optimizer import is_optimizer_factory

NAME = "BertForMaskedLM"


@pytest.mark.parametrize("name", [NAME, "LlamaForCausalLM"])
def test_the_noise_is_uniform_up_to_its_bound_and_only_in_training(name: str) -> None:
    ours, alpha = model(name).train(), 3.0
    table = ours.get_input_embeddings()
    ids = torch.randint(1, 40, (64, 9))
    plain = table(ids)
    handle = activate_neftune(ours, alpha)
    noise = (table(ids) - plain).detach()
    most = alpha / (9 * plain.shape[-1]) ** 0.5
    assert 0.95 * most < float(noise.abs().max()) <= most * 1.0001
    assert abs(float(noise.var()) / (most**2 / 3) - 1) < 0.1 and abs(float(noise.mean())) < 0.05 * most
    ours.eval()
    assert torch.equal(table(ids), plain)
    ours.train()
    deactivate_neftune(ours, handle)
    assert torch.equal(table(ids), plain)


def test_a_training_has_the_noise_and_its_evaluations_have_none(tmp_path: Path) -> None:
    found, losses = {}, {}
    for alpha in (None, 5.0):
        ours = model(NAME)
        args = arguments(
            tmp_path, max_steps=3, neftune_noise_alpha=alpha, learning_rate=1e-12, eval_strategy="steps", eval_steps=1
        )
        trainer = cutaway.Trainer(model=ours, args=args, train_dataset=rows(NAME), eval_dataset=rows(NAME))
        trainer.train()
        assert not ours.get_input_embeddings()._forward_hooks
        found[alpha] = trainer.state.log_history[-1]["train_loss"]
        losses[alpha] = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert abs(found[5.0] - found[None]) > 1e-4
    assert losses[5.0] == pytest.approx(losses[None], rel=1e-6)
    with pytest.raises(ConfigError, match="neftune_noise_alpha"):
        arguments(tmp_path, neftune_noise_alpha=0.0)
    trainer = cutaway.Trainer(
        model=torch.nn.Linear(2, 2), args=arguments(tmp_path, neftune_noise_alpha=1.0), train_dataset=rows(NAME)
    )
    with pytest.raises(ConfigError, match="get_input_embeddings"):
        trainer.train()


class Halves:
    """Makes an optimizer of a model's weights: half the rate for the biases."""

    def __call__(self, trained: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
        biases = [p for n, p in trained.named_parameters() if n.endswith("bias")]
        others = [p for n, p in trained.named_parameters() if not n.endswith("bias")]
        return torch.optim.SGD([{"params": others, "lr": lr}, {"params": biases, "lr": lr / 2}])


def test_a_class_may_make_the_optimizer(tmp_path: Path) -> None:
    assert is_optimizer_factory(Halves) and not is_optimizer_factory(torch.optim.SGD)
    made: list[Any] = []
    for groups in (True, False):
        ours = model(NAME)
        given: dict[str, Any] = {"optimizer_cls_and_kwargs": (Halves, {"lr": 0.1})}
        if not groups:
            given = {"optimizers": (Halves()(ours, lr=0.1), None)}
        cutaway.Trainer(model=ours, args=arguments(tmp_path, max_steps=2), train_dataset=rows(NAME), **given).train()
        made.append(weights(ours))
    assert furthest(*made) == 0.0


def test_what_modules_of_upstreams_trainer_show(caplog: pytest.LogCaptureFixture) -> None:
    assert [one.__name__ for one in DEFAULT_CALLBACKS] == ["DefaultFlowCallback"]
    logger.warning("said here")
    assert "said here" in caplog.text and logger.name == "cutaway"
    cutaway.trainer_callback.CallbackHandler([cutaway.ProgressCallback], None, None, None, None)
    assert "there is no DefaultFlowCallback" in caplog.text

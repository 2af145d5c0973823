"""The names of settings, old and new, and what is said about wrong ones."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cutaway
import cutaway.train
from cutaway.errors import ConfigError
from cutaway.train.distributed import ProcessGroup
from cutaway.train.ignored_arguments import NEEDLESS

Arguments = cutaway.TrainingArguments


def test_old_and_new_names_are_one() -> None:
    old, new = Arguments("out", evaluation_strategy="epoch"), Arguments("out", eval_strategy="epoch")
    assert old.to_dict() == new.to_dict()
    assert old.evaluation_strategy == old.eval_strategy == "epoch" == cutaway.IntervalStrategy.EPOCH
    assert Arguments(no_cuda=True).use_cpu
    assert Arguments(group_by_length=True).train_sampling_strategy == "group_by_length"
    assert Arguments(learning_rates={"embed": 1}).learning_rates == {"embed": 1.0}
    assert Arguments(Path("here")).output_dir == "here"
    assert Arguments(eval_strategy=transformers.IntervalStrategy.STEPS, logging_steps=7).eval_steps == 7
    with pytest.raises(ConfigError, match="another name"):
        Arguments(evaluation_strategy="epoch", eval_strategy="no")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("learning_rte", "learning_rate"), ("evaluation_stategy", "evaluation_strategy"), ("warmup_step", "warmup_steps")],
)
def test_a_misspelt_name_gets_its_neighbours(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"{wrong}.*{right}"):
        Arguments(**{wrong: 1})


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_strategy": "sometimes"},
        {"learning_rate": "high"},
        {"learning_rate": -1.0},
        {"max_steps": 2.5},
        {"max_steps": True},
        {"per_device_train_batch_size": 0},
        {"save_total_limit": 0},
        {"logging_steps": 2.5},
        {"lr_scheduler_type": "polynomial"},
        {"optim": "lion"},
        {"label_smoothing_factor": 1.0},
        {"class_weights": "equal"},
        {"class_weights": ["a"]},
        {"freeze": "embed"},
        {"learning_rates": {"embed": "slow"}},
        {"learning_rates": [0.1]},
        {"layer_lr_decay": 0.0},
        {"ema_decay": 1.0},
        {"disable_tqdm": 1},
        {"load_best_model_at_end": True},
        {"save_strategy": "best"},
        {"load_best_model_at_end": True, "eval_strategy": "epoch"},
        {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 4},
        {"fp16": True},
        {"report_to": "wanbd"},
        {"push_to_hub": "yes"},
        {"deepspeed": "file.json"},
    ],
    ids=lambda s: "-".join(s),
)
def test_a_wrong_value_names_the_setting(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="|".join(settings)):
        Arguments(**settings)


def test_needless_names_are_accepted_while_they_change_nothing() -> None:
    given = {
        "report_to": "none", "log_level": "info", "fp16": False, "bf16": False, "push_to_hub": False,
        "overwrite_output_dir": True, "do_train": True, "dataloader_pin_memory": True, "group_by_length": False,
        "save_safetensors": True, "local_rank": -1, "deepspeed": None,
    }  # fmt: skip
    assert Arguments("out", **given).to_dict() == Arguments("out").to_dict()
    told = copy.deepcopy(Arguments("out", **given))
    assert told.do_train and told.log_level == "info" and told.fp16 is False and not told.do_eval
    with pytest.raises(AttributeError, match="do_train"):
        told.do_trian  # noqa: B018
    with pytest.raises(ConfigError, match="differ"):
        Arguments(do_train=True, no_cuda=True, use_cpu=False)
    # upstream dropped some of these names long after the tutorials were written
    dropped = {
        "overwrite_output_dir", "use_mps_device", "use_ipex", "tf32", "past_index", "jit_mode_eval", "group_by_length",
        "half_precision_backend", "hub_private_repo", "save_safetensors", "include_tokens_per_second",
        "predict_with_generate", "include_inputs_for_metrics", "fp16_full_eval", "bf16_full_eval", "torch_compile",
        "torch_empty_cache_steps", "log_level_replica", "local_rank",
    }  # fmt: skip
    assert set(NEEDLESS) - set(inspect.signature(transformers.TrainingArguments).parameters) <= dropped


# settings that are not read as `args.NAME` outside their own file -> where they are
ELSEWHERE = {
    "save_steps": "TrainingArguments.steps",
    "logging_steps": "TrainingArguments.steps",
    "warmup_steps": "TrainingArguments.warmup",
    "warmup_ratio": "TrainingArguments.warmup",
}


def test_every_setting_is_read_somewhere() -> None:
    read: set[str] = set()
    for path in Path(cutaway.train.__file__).parent.glob("*.py"):
        if path.name == "arguments.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "args":
                read.add(node.attr)
    fields = set(inspect.signature(Arguments).parameters)
    assert fields - read == set(ELSEWHERE)
    own = inspect.getsource(Arguments)
    for name, where in ELSEWHERE.items():
        assert f"def {where.split('.')[1]}(" in own and name in own


@pytest.mark.parametrize("name", ["save_on_each_node", "include_num_input_tokens_seen", "include_tokens_per_second"])
def test_what_is_not_built_is_refused(name: str) -> None:
    assert Arguments(**{name: False})
    with pytest.raises(ConfigError, match=name):
        Arguments(**{name: True})


def test_processes_wait_as_long_as_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    asked: dict[str, Any] = {}
    meeting = importlib.import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(meeting, "rendezvous", lambda _: iter([(dist.HashStore(), 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **given: asked.update(given))
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr("atexit.register", lambda _: None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    cutaway.Trainer(model=torch.nn.Linear(1, 1), args=Arguments(ddp_timeout=77, use_cpu=True, disable_tqdm=True))
    assert asked["timeout"].total_seconds() == 77


@pytest.mark.parametrize(("told", "expected"), [(None, True), (True, True), (False, False)])
def test_unused_weights_are_seen_or_told(monkeypatch: pytest.MonkeyPatch, told: bool | None, expected: bool) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda *args, **given: asked.update(given))
    layers = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])
    ProcessGroup().joint(layers, layers[0](torch.ones(1)).sum(), told)
    assert asked["find_unused_parameters"] is expected


def test_our_names_are_upstreams_but_a_few() -> None:
    own = set(inspect.signature(Arguments).parameters)
    theirs = set(inspect.signature(transformers.TrainingArguments).parameters)
    assert own - theirs <= {
        "class_weights", "match_upstream", "warmup_ratio", "label_names", "learning_rates", "layer_lr_decay", "freeze",
        "ema_decay", "per_device_train_batch_tokens", "logging_dir",
    }  # fmt: skip
    assert len(own) < 70
    assert next(iter(inspect.signature(Arguments).parameters)) == "output_dir"


def test_steps_may_be_a_part_of_the_training() -> None:
    args = Arguments(eval_strategy="steps", eval_steps=0.1, save_steps=0.25, warmup_ratio=0.1)
    assert [args.steps("eval_steps", 100), args.steps("save_steps", 10), args.warmup(101)] == [10, 3, 11]
    assert Arguments(warmup_steps=5, warmup_ratio=0.5).warmup(100) == 5
    assert Arguments(warmup_steps=0.2).warmup(100) == 20


def test_what_is_best_follows_from_the_metric() -> None:
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    assert Arguments(**settings).greater_is_better is False
    assert Arguments(**settings, metric_for_best_model="eval_loss").greater_is_better is False
    assert Arguments(**settings, metric_for_best_model="accuracy").greater_is_better is True
    assert "learning_rate=0.1" in repr(Arguments(learning_rate=0.1))

"""The names of settings, old and new, and what is said about wrong ones."""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import inspect
import json
import pickle
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
from cutaway.train.upstream_arguments import UpstreamArguments

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
        {"lr_scheduler_type": "polynomal"},
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
    plain, these = Arguments("out").to_dict(), Arguments("out", **given).to_dict()
    assert {k for k in plain if plain[k] != these[k]} == {"overwrite_output_dir", "log_level", "do_train"}
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
        "predict_with_generate", "fp16_full_eval", "bf16_full_eval", "torch_compile",
        "torch_empty_cache_steps", "log_level_replica", "local_rank",
    }  # fmt: skip
    assert set(NEEDLESS) - set(inspect.signature(transformers.TrainingArguments).parameters) <= dropped
    assert set(NEEDLESS) | {"do_eval", "include_inputs_for_metrics"} == {
        f.name for f in dataclasses.fields(UpstreamArguments)
    }


def test_every_setting_of_upstream_is_one_here() -> None:
    theirs = {f.name: f for f in dataclasses.fields(transformers.TrainingArguments)}
    assert set(theirs) - {f.name for f in dataclasses.fields(Arguments)} == set()
    for name in set(theirs) & {f.name for f in dataclasses.fields(UpstreamArguments)}:
        default = theirs[name].default  # what upstream begins with must be allowed here
        Arguments(**{name: [] if default is dataclasses.MISSING else default})


@dataclasses.dataclass
class Mine(Arguments):
    """A script's own settings beside ours."""

    task: str = dataclasses.field(default="a", metadata={"help": "what is learned"})
    most: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.label = f"{self.task} {self.learning_rate}"


def test_a_dataclass_of_ones_own() -> None:
    mine = Mine("~/x", task="b", learning_rate=1, eval_strategy="steps", logging_steps=7)
    assert mine.label == "b 1.0" and mine.eval_steps == 7 and mine.do_eval and mine.eval_strategy == "steps"
    assert mine.output_dir == str(Path.home() / "x") and mine.to_dict()["task"] == "b"
    assert repr(mine).startswith("Mine(")
    assert copy.deepcopy(mine).to_dict() == mine.to_dict() == pickle.loads(pickle.dumps(mine)).to_dict()
    assert dataclasses.replace(mine, most=3).most == 3
    with pytest.raises(ConfigError, match="learning_rate"):
        Mine(learning_rate="high")
    with pytest.raises(ConfigError, match="fp16"):
        Mine(fp16=True)


def test_several_settings_at_once() -> None:
    for kind in (Arguments, transformers.TrainingArguments):
        args = kind("out", report_to="none").set_training(learning_rate=1e-3, batch_size=4, num_epochs=2)
        args = args.set_evaluate(strategy="steps", steps=7, batch_size=3).set_save(strategy="epoch", total_limit=2)
        args = args.set_optimizer(name="sgd", beta1=0.8).set_lr_scheduler(name="cosine", warmup_steps=5)
        args = args.set_logging(strategy="steps", steps=9, report_to="none").set_testing(batch_size=5)
        assert (args.per_device_train_batch_size, args.eval_steps, args.save_total_limit) == (4, 7, 2)
        assert (args.optim, args.adam_beta1, args.lr_scheduler_type, args.warmup_steps) == ("sgd", 0.8, "cosine", 5)
        assert args.do_train and args.do_predict and args.logging_steps == 9 and args.per_device_eval_batch_size == 5
        assert args.eval_strategy == "steps" and args.save_strategy == "epoch"
    with pytest.raises(ConfigError, match="learning_rate"):
        Arguments("out").set_training(learning_rate=-1.0)


def test_what_a_script_asks_about_its_process() -> None:
    args = Arguments("x", use_cpu=True)
    assert (args.device, args.n_gpu, args.world_size, args.process_index) == (torch.device("cpu"), 0, 1, 0)
    assert args.should_log and args.should_save and args.parallel_mode.value == "not_parallel"
    with args.main_process_first(desc="map"):
        pass
    assert args.get_warmup_steps(100) == 0 and Arguments(log_level="info").get_process_log_level() == 20
    assert json.loads(args.to_json_string())["output_dir"] == "x"
    assert isinstance(args.to_sanitized_dict()["eval_steps"], str)


# settings that are not read as `args.NAME` outside their own file -> where they are
ELSEWHERE = {
    "save_steps": "TrainingArguments.steps",
    "logging_steps": "TrainingArguments.steps",
    "warmup_steps": "TrainingArguments.warmup",
    "warmup_ratio": "TrainingArguments.warmup",
    "activation_checkpointing": "TrainingArguments.__post_init__",
}


def test_every_setting_is_read_somewhere() -> None:
    read: set[str] = set()
    for path in Path(cutaway.train.__file__).parent.glob("*.py"):
        if path.name == "arguments.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "args":
                read.add(node.attr)
    fields = set(inspect.signature(Arguments).parameters) - {f.name for f in dataclasses.fields(UpstreamArguments)}
    assert fields - read == set(ELSEWHERE)
    own = inspect.getsource(Arguments)
    for name, where in ELSEWHERE.items():
        assert f"def {where.split('.')[1]}(" in own and name in own


@pytest.mark.parametrize("name", ["save_on_each_node", "full_determinism", "include_tokens_per_second"])
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
    own = set(inspect.signature(Arguments).parameters) - {f.name for f in dataclasses.fields(UpstreamArguments)}
    theirs = set(inspect.signature(transformers.TrainingArguments).parameters)
    assert own - theirs <= {
        "class_weights", "match_upstream", "warmup_ratio", "label_names", "learning_rates", "layer_lr_decay", "freeze",
        "ema_decay", "per_device_train_batch_tokens", "logging_dir",
    }  # fmt: skip
    assert len(own) < 80
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


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "num_train_epochs", "adam_epsilon", "save_steps"])
def test_no_number_is_nan_or_infinite(field: str) -> None:
    for number in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ConfigError, match=f"{field} is {number}"):
            Arguments(**{field: number})  # type: ignore[arg-type]
    assert Arguments(max_grad_norm=float("inf")).max_grad_norm == float("inf")  # clips nothing

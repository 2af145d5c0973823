"""Every argument of everything public in training: it is used, known to be without effect, or refused."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

import pytest
import transformers
from training_samples import arguments, model

import cutaway
from cutaway.errors import CutawayError
from cutaway.train.hooks import CALLED
from cutaway.train.ignored_arguments import NEEDLESS

PUBLIC = [name for name in cutaway.train.__all__ if name not in ("TrainOutput", "PredictionOutput")]
HERE = {name: getattr(cutaway.train, name) for name in PUBLIC}

# our argument -> why nothing reads it
WITHOUT_EFFECT = {
    "Trainer.push_to_hub.blocking": "only True is taken, and refused otherwise",
    "EarlyStoppingCallback.check_metric_value.control": "as upstream's, for whoever overrides it",
    "TrainingArguments.main_process_first.desc": "for upstream's log",
    "Seq2SeqTrainingArguments.main_process_first.desc": "for upstream's log",
}
# upstream's argument that is not here -> what to do, or why there is nothing to do
NOT_HERE = {
    "ProgressCallback.max_str_len": "lines are cut by the terminal",
    "Trainer.push_to_hub.kwargs": "the arguments of create_model_card, which are here one by one",
    "TrainerState.stateful_callbacks": "a checkpoint keeps the states of callbacks beside the state",
    "DataCollatorForLanguageModeling.tf_experimental_compile": "no TensorFlow",
}
UPSTREAM = {name: getattr(transformers, name) for name in PUBLIC if hasattr(transformers, name)}


def parameters(function: Any) -> list[inspect.Parameter]:
    """What a caller may name."""
    found = inspect.signature(function).parameters.values()
    return [p for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]


def methods(kind: Any) -> dict[str, Any]:
    """The public methods of a class, its own and inherited ones of the library."""
    found = {}
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        function = getattr(method, "__func__", method)
        if not inspect.isfunction(function) or function.__code__.co_filename == "<string>":  # a dataclass's own
            continue
        public = not name.startswith("_") or name in ("__init__", "__call__")
        if public and function.__module__.startswith("cutaway."):
            found[name] = function
    return found


def unread(function: Any) -> list[str]:
    """The arguments of a function that its body never reads."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = [node for statement in tree.body for node in ast.walk(statement)]
    read = {node.id for node in body if isinstance(node, ast.Name)}
    taken = tree.args
    names = [a.arg for a in [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]]
    return [name for name in names if name not in read | {"self", "cls"}]


def is_empty(function: Any) -> bool:
    """Whether a method has no body: it is there to be overridden."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return all(isinstance(s, ast.Expr | ast.Pass) or ast.unparse(s) == "return {}" for s in tree.body)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_read(name: str) -> None:
    kind = HERE[name]
    if inspect.isfunction(kind):
        assert unread(kind) == []
        return
    for own, function in methods(kind).items():
        hook = own in CALLED or own.startswith("on_")  # the arguments are for whoever overrides it
        if hook or is_empty(function) or own == "<lambda>":
            continue
        left = [a for a in unread(function) if f"{name}.{own}.{a}" not in WITHOUT_EFFECT]
        assert left == [], f"{name}.{own}"
    if dataclasses.is_dataclass(kind) and "Arguments" not in name and name not in ("TrainerState", "TrainerControl"):
        source = inspect.getsource(inspect.getmodule(kind))  # type: ignore[arg-type]
        for field in dataclasses.fields(kind):
            assert f"self.{field.name}" in source, f"{name}.{field.name}"


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_every_argument_of_upstream_is_here_or_is_told(name: str) -> None:
    ours, theirs = HERE[name], UPSTREAM[name]
    pairs = {"": (ours, theirs)}
    if inspect.isclass(theirs) and not issubclass(theirs, str):
        for method in ("__call__", *CALLED):
            if callable(getattr(theirs, method, None)) and callable(getattr(ours, method, None)):
                if method == "__call__" and not issubclass(theirs, transformers.data.data_collator.DataCollatorMixin):
                    continue
                pairs[f".{method}"] = (getattr(ours, method), getattr(theirs, method))
    for own, (here, there) in pairs.items():
        if own == ".metrics_format":
            continue
        known = {p.name for p in inspect.signature(here).parameters.values()}
        for parameter in parameters(there):
            full = f"{name}{own}.{parameter.name}"
            assert parameter.name in known or full in NOT_HERE or "push_to_hub" in own, full


def test_every_setting_that_is_not_built_is_refused_by_name() -> None:
    """A value that is not upstream's default is taken where it changes nothing, and refused where it would."""
    theirs = {f.name: f for f in dataclasses.fields(transformers.TrainingArguments)}
    ours = {f.name for f in dataclasses.fields(cutaway.TrainingArguments)}
    assert theirs.keys() <= ours
    for name, needless in NEEDLESS.items():
        if needless.values is None or name in ("log_level", "log_level_replica"):
            continue
        for value in (True, 7, "something", {"a": 1}):
            if any(value is good for good in needless.values):
                continue
            with pytest.raises(CutawayError, match=name):
                cutaway.TrainingArguments(**{name: value})


def test_home_and_the_strategy(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for library in (cutaway, transformers):
        args = library.TrainingArguments("~/out", eval_strategy="steps", metric_for_best_model="f1", report_to="none")
        assert args.output_dir == str(tmp_path / "out")
        assert args.do_eval and args.greater_is_better and args.eval_steps == 500
        plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "report_to": "none"}
        assert library.TrainingArguments("x", eval_strategy="epoch", **plateau).metric_for_best_model == "loss"
        with pytest.raises(ValueError, match="eval"):
            library.TrainingArguments("x", **plateau)
        for given, kept in ((True, "all"), (False, "no"), ("non_padding", "non_padding")):
            args = library.TrainingArguments("x", include_num_input_tokens_seen=given, report_to="none")
            assert args.include_num_input_tokens_seen == kept


FAMILIES = (
    "BertForSequenceClassification", "GPT2LMHeadModel", "LlamaForCausalLM", "T5ForConditionalGeneration",
    "BartForConditionalGeneration", "MPNetForMaskedLM", "ElectraForMaskedLM", "ModernBertForMaskedLM",
    "Qwen3ForCausalLM",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_weights_decay(name: str, tmp_path: Any) -> None:
    ours = model(name)
    ours.save_pretrained(tmp_path / "model")
    theirs = getattr(transformers, name).from_pretrained(tmp_path / "model")
    told = []
    for library, net in ((cutaway, ours), (transformers, theirs)):
        args = library.TrainingArguments(
            str(tmp_path), weight_decay=0.1, use_cpu=True, report_to="none", disable_tqdm=True
        )
        trainer = library.Trainer(net, args)
        groups = trainer.create_optimizer().param_groups
        told.append([(group["weight_decay"], sum(p.numel() for p in group["params"])) for group in groups])
        assert sum(len(g) for g in trainer.get_optimizer_group()) == len([p for g in groups for p in g["params"]])
        assert trainer.get_learning_rates() == [5e-5, 5e-5]
    assert told[0] == told[1]


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd", "rmsprop", "adagrad"])
def test_optimizers_are_upstreams(optim: str, tmp_path: Any) -> None:
    args = [
        library.TrainingArguments(str(tmp_path), optim=optim, learning_rate=0.1, report_to="none")
        for library in (cutaway, transformers)
    ]
    (ours, given), (theirs, wanted) = (
        library.Trainer.get_optimizer_cls_and_kwargs(one)
        for library, one in zip((cutaway, transformers), args, strict=True)
    )
    assert ours.__name__ == theirs.__name__
    assert {k: v for k, v in given.items() if k != "fused"} == {k: v for k, v in wanted.items() if k != "fused"}
    if optim == "sgd":
        made = cutaway.Trainer(model(FAMILIES[0]), arguments(tmp_path, optim="sgd", optim_args="momentum=0.9"))
        assert made.create_optimizer().defaults["momentum"] == 0.9
        with pytest.raises(ValueError, match="optim_args"):
            cutaway.Trainer(model(FAMILIES[0]), arguments(tmp_path, optim_args="momentum")).create_optimizer()


def test_tokens_are_counted_and_inputs_reach_the_metrics(tmp_path: Any) -> None:
    data = [{"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0], "labels": 1}] * 4
    seen: list[Any] = []

    def metrics(given: Any) -> dict[str, float]:
        predictions, labels, inputs, losses = given
        seen.append((predictions.shape, labels.shape, inputs.shape, losses.shape))
        return {"n": 1.0}

    for how, n in (("all", 12), ("non_padding", 8), ("no", 0)):
        args = arguments(
            tmp_path, max_steps=1, per_device_train_batch_size=4, include_num_input_tokens_seen=how,
            include_for_metrics=["inputs", "loss"], optim="sgd",
        )  # fmt: skip
        trainer = cutaway.Trainer(model(FAMILIES[0], num_labels=2), args, None, data, data, compute_metrics=metrics)
        trainer.train()
        assert trainer.state.num_input_tokens_seen == n
        assert ("num_input_tokens_seen" in trainer.state.log_history[0]) == (how != "no")
        assert trainer.optimizer is not None and trainer.lr_scheduler is not None
        trainer.evaluate()
    assert seen[0] == ((4, 2), (4,), (4, 3), (4,))

"""The methods that a subclass of `Trainer` overrides: called as transformers calls them, or refused."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import ConfigError, InputError
from cutaway.train.hooks import CALLED, FORMER, NOT_CALLED, ItemCount

NAME = "BertForSequenceClassification"

UPSTREAM = {
    name
    for kind in (transformers.Trainer, transformers.Seq2SeqTrainer)
    for name in dir(kind)
    if not name.startswith("__") and callable(getattr(kind, name))
}


def test_the_tables_hold_upstreams_methods() -> None:
    assert CALLED | (NOT_CALLED.keys() - FORMER) == UPSTREAM
    assert not CALLED & NOT_CALLED.keys() and not FORMER & UPSTREAM
    assert all(hasattr(cutaway.Seq2SeqTrainer, name) for name in CALLED)


@pytest.mark.parametrize("name", sorted(CALLED - {"metrics_format"}))  # upstream's takes no self
def test_hooks_take_upstreams_arguments_in_its_order(name: str) -> None:
    ours, theirs = getattr(cutaway.Seq2SeqTrainer, name), getattr(transformers.Seq2SeqTrainer, name)
    parts: list[list[str]] = []
    for method in (ours, theirs):
        found = inspect.signature(method).parameters.values()
        parts.append([p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)])
    n = len(parts[1])
    if name == "push_to_hub":  # the card's arguments come in one dict
        n = 5
    assert parts[0][:n] == parts[1][:n]


def test_a_method_that_nobody_would_call_is_refused(tmp_path: Path) -> None:
    for name, way in NOT_CALLED.items():
        kind = type("Mine", (cutaway.Trainer,), {name: lambda self: None})
        with pytest.raises(ConfigError, match=f"Mine overrides {name}, .*{way.split(',')[0].split('(')[0]}"):
            kind(model(NAME), arguments(tmp_path))
    with pytest.raises(ConfigError, match="_inner_training_loop"):  # through a base class of one's own, too
        type("Child", (type("Base", (cutaway.Seq2SeqTrainer,), {"_inner_training_loop": None}),), {})(
            model("T5ForConditionalGeneration"), cutaway.Seq2SeqTrainingArguments(str(tmp_path))
        )


def spy(kind: Any, names: set[str]) -> tuple[Any, list[str]]:
    """A subclass of a Trainer that notes which of its methods are called, and calls the usual ones."""
    called: list[str] = []

    def watched(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return getattr(super(mine, self), name)(*args, **kwargs)

        return method

    mine: Any = type("Mine", (kind,), {name: watched(name) for name in names})
    return mine, called


def both(tmp_path: Path) -> tuple[Any, Any]:
    """One tiny Llama of each library, with the same weights."""
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=40, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(3)
    theirs = transformers.LlamaForCausalLM(config)
    theirs.save_pretrained(tmp_path / "model")
    return cutaway.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="float32"), theirs


def texts(n: int, length: int = 9) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 60, (length,), generator=draw) for _ in range(n)]
    return [{"input_ids": i, "attention_mask": torch.ones_like(i), "labels": i.clone()} for i in ids]


# called by upstream in this order of events; the rest depends on the way a library goes
EVERY = {
    "get_train_dataloader", "get_eval_dataloader", "get_test_dataloader", "_get_train_sampler", "_get_eval_sampler",
    "create_optimizer", "create_scheduler", "get_decay_parameter_names", "training_step", "compute_loss",
    "_prepare_inputs", "prediction_step", "evaluation_loop", "evaluate", "predict", "log", "save_model", "_save",
    "_save_checkpoint", "_maybe_log_save_evaluate", "get_batch_samples", "_get_num_items_in_batch",
    "floating_point_ops", "store_flos", "_wrap_model", "_evaluate", "_determine_best_metric", "_load_best_model",
    "_clip_grad_norm", "_get_grad_norm", "_get_learning_rate", "compute_loss_context_manager", "_get_dataloader",
    "autocast_smart_context_manager", "_set_signature_columns_if_needed", "_get_output_dir", "_track_num_input_tokens",
    "is_world_process_zero", "is_local_process_zero", "_move_model_to_device", "_validate_args",
}  # fmt: skip
PER_STEP = ("training_step", "compute_loss", "get_batch_samples", "_clip_grad_norm", "_maybe_log_save_evaluate", "log")


def test_a_subclass_of_every_hook_goes_as_upstream_and_learns_the_same(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path)
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"), "use_cpu": True, "disable_tqdm": True, "report_to": "none",
        "logging_steps": 1, "max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "train_sampling_strategy": "sequential", "learning_rate": 1e-2, "weight_decay": 0.1, "eval_strategy": "steps",
        "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "loss",
        "seed": 1,
    }  # fmt: skip
    counts, losses = [], []
    for library, net in ((transformers, theirs), (cutaway, ours)):
        kind, called = spy(library.Trainer, EVERY)
        events: list[str] = []

        def noting(name: str, events: list[str] = events) -> Any:
            return lambda self, args, state, control, **kwargs: events.append(name)

        watch = type(
            "Watch", (library.TrainerCallback,),
            {name: noting(name) for name in dir(transformers.TrainerCallback) if name.startswith("on_")},
        )  # fmt: skip
        args = library.TrainingArguments(**{**settings, "output_dir": str(tmp_path / library.__name__)})
        trainer = kind(
            model=net, args=args, train_dataset=texts(16), eval_dataset=texts(4), callbacks=[watch],
            data_collator=library.default_data_collator,
        )  # fmt: skip
        trainer.train()
        trainer.predict(texts(2))
        losses.append([e["loss"] for e in trainer.state.log_history if "loss" in e])
        losses[-1] += [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
        counts.append((set(called), {name: called.count(name) for name in PER_STEP}, events))
    assert counts[1][0] >= counts[0][0] - {"_get_output_dir"}
    assert counts[1][2] == counts[0][2]  # every event of the callbacks, in its order
    for name in ("training_step", "_clip_grad_norm"):
        assert counts[1][1][name] == counts[0][1][name]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_training_step_of_ones_own(tmp_path: Path) -> None:
    """The three ways people write it: on top of the usual one, with the accelerator, and all by hand."""

    class OnTop(cutaway.Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            return super().training_step(model, inputs, num_items_in_batch) * 1.0

    class ByAccelerator(cutaway.Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            model.train()
            inputs = self._prepare_inputs(inputs)
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            self.accelerator.backward(loss)
            return loss.detach()

    class ByHand(cutaway.Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            loss = self.compute_loss(model, self._prepare_inputs(inputs)) / self.args.gradient_accumulation_steps
            loss.backward()
            return loss.detach()

    data = rows(NAME)
    found = []
    for kind in (cutaway.Trainer, OnTop, ByAccelerator, ByHand):
        args = arguments(tmp_path, max_steps=2, per_device_train_batch_size=4, gradient_accumulation_steps=2)
        trainer = kind(model(NAME), args, train_dataset=data)
        loss = trainer.train().training_loss
        found.append((loss, weights(trainer.model)))
    for loss, after in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert furthest(after, found[0][1]) < 1e-6


def test_a_loss_of_ones_own_is_a_share_or_a_mean(tmp_path: Path) -> None:
    """Whether a loss was divided by num_items_in_batch is seen; both give the training of one whole batch."""
    ways: list[Any] = []

    def loss_of(outputs: Any, labels: Any, reduction: str) -> Any:
        logits = outputs.logits[:, :-1].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction=reduction)

    class Mean(cutaway.Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            loss = loss_of(outputs, inputs["labels"], "mean")
            return (loss, outputs) if return_outputs else loss

    class Share(cutaway.Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            loss = loss_of(outputs, inputs["labels"], "sum") / num_items_in_batch
            return (loss, outputs) if return_outputs else loss

    class Handed(cutaway.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)

    class Old(cutaway.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
            return super().compute_loss(model, inputs, return_outputs)

    def func(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return loss_of(outputs, labels, "sum") / num_items_in_batch

    data = texts(3, 6) + texts(3, 12)  # parts of unlike sizes
    ways = [(cutaway.Trainer, {}), (Mean, {}), (Share, {}), (Handed, {}), (Old, {}),
            (cutaway.Trainer, {"compute_loss_func": func})]  # fmt: skip
    found = []
    for kind, more in ways:
        ours, _ = both(tmp_path)
        args = arguments(
            tmp_path / "out", max_steps=1, per_device_train_batch_size=3, gradient_accumulation_steps=2,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = kind(ours, args, train_dataset=data, eval_dataset=data[:3], **more)
        found.append((trainer.train().training_loss, weights(trainer.model), trainer.evaluate()["eval_loss"]))
    for loss, after, evaluated in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert furthest(after, found[0][1]) < 1e-6
        assert evaluated == pytest.approx(found[0][2], rel=1e-5)


def test_loaders_and_samplers_of_ones_own(tmp_path: Path) -> None:
    data = rows(NAME, 12)
    seen: list[int] = []

    def collate(batch: list[Any]) -> Any:
        seen.extend(next(i for i, row in enumerate(data) if row["input_ids"] is one["input_ids"]) for one in batch)
        return cutaway.default_data_collator(batch)

    class Backwards(cutaway.Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return list(reversed(range(len(train_dataset))))

    class Loader(cutaway.Trainer):
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(self.train_dataset[:4], batch_size=2, collate_fn=collate)

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            return torch.utils.data.DataLoader(data[:2], batch_size=1, collate_fn=collate)

    args = arguments(tmp_path, num_train_epochs=1, per_device_train_batch_size=5)
    trainer = Backwards(model(NAME), args, collate, data)
    assert trainer.train().global_step == 3
    assert seen == list(reversed(range(12)))
    seen.clear()
    args = arguments(tmp_path, num_train_epochs=2, eval_strategy="epoch")
    loader = Loader(model(NAME), args, collate, data)
    assert loader.train().global_step == 4
    assert seen == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1]
    usual = cutaway.Trainer(model(NAME), args, collate, data, data[:5])
    batches = list(usual.get_train_dataloader())
    assert len(usual.get_train_dataloader()) == len(batches) == 2
    assert usual.num_examples(usual.get_train_dataloader()) == 12
    assert sum(len(batch["labels"]) for batch in usual.get_eval_dataloader()) == 5
    assert len(next(iter(usual.get_test_dataloader(data[:3])))["labels"]) == 3
    with pytest.raises(InputError, match="train_dataset"):
        cutaway.Trainer(model(NAME), args, eval_dataset=data).get_train_dataloader()


def test_a_resumed_training_reads_on_in_a_loader_of_ones_own(tmp_path: Path) -> None:
    data = rows(NAME, 12)

    class Shuffled(cutaway.Trainer):
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(
                self.train_dataset, batch_size=2, shuffle=True, collate_fn=cutaway.default_data_collator
            )

    def trained(folder: str, steps: int, resume: Any = None) -> Any:
        args = arguments(tmp_path / folder, max_steps=9, save_strategy="steps", save_steps=4)
        trainer = Shuffled(model(NAME), args, train_dataset=data)
        if steps < 9:

            class Stop(cutaway.TrainerCallback):
                def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                    raise KeyboardInterrupt

            trainer.add_callback(Stop)
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
            return None
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model)

    whole = trained("whole", 9)
    trained("cut", 4)
    assert furthest(trained("cut", 9, True), whole) == 0.0


def test_a_prediction_step_of_ones_own(tmp_path: Path) -> None:
    class Twice(cutaway.Trainer):
        def prediction_step(
            self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
        ) -> tuple[Any, Any, Any]:
            assert not model.training
            loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
            return loss * 2, None if logits is None else logits + 1, labels

    data = rows(NAME, 6)
    usual = cutaway.Trainer(model(NAME), arguments(tmp_path, per_device_eval_batch_size=4), eval_dataset=data)
    mine = Twice(model(NAME), arguments(tmp_path, per_device_eval_batch_size=4), eval_dataset=data)
    assert mine.evaluate()["eval_loss"] == pytest.approx(2 * usual.evaluate()["eval_loss"], rel=1e-5)
    found = usual.predict(data).predictions
    assert mine.predict(data).predictions == pytest.approx(found + 1, rel=1e-5)


def test_files_of_ones_own_are_in_a_checkpoint(tmp_path: Path) -> None:
    class Mine(cutaway.Trainer):
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            (Path(output_dir or "") / "mine.txt").write_text("x")

    args = arguments(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = Mine(model(NAME), args, train_dataset=rows(NAME))
    trainer.train()
    trainer.save_model(tmp_path / "end")
    assert (tmp_path / "checkpoint-1" / "mine.txt").is_file() and (tmp_path / "end" / "mine.txt").is_file()


def test_a_control_and_a_state_of_a_callback(tmp_path: Path) -> None:
    class Stops(cutaway.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            assert kwargs["train_dataloader"] is not None
            return cutaway.TrainerControl(should_training_stop=True)

    trainer = cutaway.Trainer(
        model(NAME), arguments(tmp_path, max_steps=5), train_dataset=rows(NAME), callbacks=[Stops]
    )
    assert trainer.train().global_step == 1
    assert trainer.state.total_flos > 0
    assert trainer.pop_callback(Stops) is not None and trainer.pop_callback(Stops) is None
    with pytest.raises(ConfigError, match="is no callback"):
        trainer.add_callback(object())


def test_looking_at_the_number_of_items_is_not_dividing_by_it() -> None:
    for look in (
        lambda n: n > 10,
        bool,
        lambda n: n == 4,
        copy.deepcopy,
        lambda n: f"{n:.1f} {n}",
        lambda n: n.numel(),
    ):
        count = ItemCount.of(4)
        look(count)
        assert not count.used
    loss = torch.tensor(8.0)
    for use in (lambda n: loss / n, lambda n: torch.div(loss, other=n), lambda n: torch.stack([n, n]), float):
        count = ItemCount.of(4)
        use(count)
        assert count.used
    assert f"{ItemCount.of(4):.1f}" == "4.0"


def test_the_callback_handler_is_called_as_upstreams_evaluations_call_it(tmp_path: Path) -> None:
    model, _ = both(tmp_path)
    seen: list[Any] = []

    class Watching(cutaway.TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **at_hand: Any) -> None:
            seen.append((metrics, at_hand["model"]))

    class Own(cutaway.Trainer):
        def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
            found = self.evaluation_loop(self.get_eval_dataloader(eval_dataset), "Evaluation")
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found.metrics)
            return found.metrics

    args = cutaway.TrainingArguments(str(tmp_path / "out"), use_cpu=True, disable_tqdm=True, report_to="none")
    trainer = Own(model, args, eval_dataset=texts(3), callbacks=[Watching])
    assert seen == [] and trainer.evaluate() == seen[0][0]
    assert seen[0][1] is model
    events = {name for name in vars(transformers.TrainerCallback) if name.startswith("on_")}
    assert events <= set(dir(trainer.callback_handler))

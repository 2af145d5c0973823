"""`Trainer`: fine-tune, evaluate and predict, under the names that tutorials use."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from cutaway.errors import ConfigError, InputError
from cutaway.train import chance, saving
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batches import Batches
from cutaway.train.callback import Callbacks, Flow
from cutaway.train.collator import DataCollatorWithPadding, default_data_collator
from cutaway.train.evaluation import EvalPrediction, Pass, PredictionOutput, run_pass
from cutaway.train.loop import Loop
from cutaway.train.objective import Objective, Sizes, balanced, joined, total
from cutaway.train.optimizer import make_optimizer
from cutaway.train.places import Places
from cutaway.train.plan import lengths_of
from cutaway.train.progress import ProgressCallback
from cutaway.train.reporting import Reporting
from cutaway.train.rows import Rows, Stream, open_rows, taken_columns
from cutaway.train.search import Searching
from cutaway.train.seed import set_seed
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy
from cutaway.train.trackers import BY_NAME
from cutaway.train.weights import load_weights, save_weights

log = logging.getLogger("cutaway")
_EVALUATION = -3  # where training has the number of the epoch


class TrainOutput(NamedTuple):
    """What `Trainer.train` gives; training_loss is the mean over all updates."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer(Reporting, Searching):
    """Trains a model on rows of token ids.

    Args:
        model: a model whose forward takes `labels` and gives a loss.
        args: TrainingArguments; by default all defaults.
        data_collator: rows -> batch; by default they are padded by the tokenizer, or stacked where there is none.
        train_dataset, eval_dataset: `datasets.Dataset`, list of dicts, torch Dataset, DataFrame, generator, or function
            that makes a generator; eval_dataset may be several by name. Columns that the model does not take are left
            out.
        processing_class, tokenizer: two names of the tokenizer, which pads and is saved with the model.
        compute_metrics: EvalPrediction -> {name: number}, after each evaluation. With batch_eval_metrics it is called
            after each batch as compute_metrics(EvalPrediction, compute_result=is it the last), and keeps its own
            counts: then memory does not grow with the data.
        callbacks: TrainerCallback objects or classes.
        optimizers: (optimizer, schedule) instead of those of args; either may be None.
        preprocess_logits_for_metrics: (logits, labels) -> what to keep of the logits until compute_metrics.
        model_init: makes the model, instead of `model`: anew for each call of train and each trial of a search.

    The loss of an update is the mean over all labelled places of all its rows, however they are cut into batches.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
        *,
        tokenizer: Any = None,
        model_init: Callable[..., Any] | None = None,
    ) -> None:
        if model_init is not None and (model is not None or any(optimizers)):
            raise ConfigError("model_init makes the model anew, so it goes with neither model= nor optimizers=.")
        self.args = args if args is not None else TrainingArguments()
        set_seed(self.args.seed)
        self.model_init = model_init
        model = self.fresh_model() if model_init is not None else model
        if not isinstance(model, torch.nn.Module):
            raise ConfigError(f"Trainer needs a model, not {type(model).__name__}; load one with from_pretrained.")
        if tokenizer is not None and processing_class is not None and tokenizer is not processing_class:
            raise ConfigError("tokenizer is another name of processing_class, and they differ; give one of them.")
        cuda = torch.cuda.is_available() and not self.args.use_cpu
        self.device = torch.device("cuda" if cuda else "cpu")
        self.model: Any = model.to(self.device)
        self.processing_class = processing_class if processing_class is not None else tokenizer
        pads = hasattr(self.processing_class, "pad")
        self.data_collator = data_collator or (
            DataCollatorWithPadding(self.processing_class) if pads else default_data_collator
        )
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.compute_metrics, self.preprocess_logits_for_metrics = compute_metrics, preprocess_logits_for_metrics
        self.optimizer, self.lr_scheduler = optimizers
        self.state, self.control = TrainerState(), TrainerControl()
        self.objective: Objective | None = None
        progress = [] if self.args.disable_tqdm else [ProgressCallback]
        trackers = [BY_NAME[name] for name in self.args.report_to or ()]
        self.callbacks = Callbacks([Flow, *(callbacks or []), *trackers, *progress])
        forward = taken_columns(model) or set()
        spans = {"start_positions", "end_positions"} <= forward
        self.label_names = self.args.label_names or (["start_positions", "end_positions"] if spans else ["labels"])
        if self.args.eval_strategy != IntervalStrategy.NO and eval_dataset is None:
            raise ConfigError(f"eval_strategy is {self.args.eval_strategy.value!r}, so Trainer needs eval_dataset.")
        self.tell("on_init_end")

    @property
    def tokenizer(self) -> Any:
        """Another name of processing_class."""
        return self.processing_class

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Train, from the beginning or from where a checkpoint stopped.

        Args:
            resume_from_checkpoint: True for the newest whole checkpoint in output_dir, a checkpoint, or a folder of
                them. The resumed training ends in the same bits as one that was never stopped.

        Raises:
            InputError: the data or the labels cannot be used.
            CheckpointError: there is no whole checkpoint where one is named.
        """
        args, output = self.args, Path(self.args.output_dir)
        resume = args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        set_seed(args.seed)
        if self.model_init is not None:
            self.model = self.fresh_model().to(self.device)
        saving.sweep(output)
        source = self._open(self.train_dataset)
        self.objective = objective = self._objective(source)
        batches = self._batches(source)
        self._prepare()
        self.state, self.control = TrainerState(), TrainerControl()
        if args.match_upstream:
            log.warning("match_upstream: the losses of accumulated parts are added up as the upstream library does it, "
                        "so the loss and the gradients depend on how a batch is cut.")  # fmt: skip
        if not resume and saving.numbered(output):
            log.warning("%s holds checkpoints of an earlier training. This one begins at the beginning and leaves them "
                        "there; give it a folder of its own, or resume_from_checkpoint=True.", output)  # fmt: skip
        made_here = self.optimizer is None, self.lr_scheduler is None
        loop = Loop(self, batches, objective, self._steps(batches))
        found = saving.choose(output, resume) if resume else None
        if found is not None:
            loop.load(found)
        began, first = time.perf_counter(), self.state.global_step
        try:
            loop.run()
            loop.leave()
            self._finish(began, first, float(loop.lost))
            self.tell("on_train_end")
        finally:
            for callback in self.callbacks.all:
                getattr(callback, "close", lambda: None)()
            # another call of train begins anew, unless the optimizer is the user's own
            self.optimizer = None if made_here[0] else self.optimizer
            self.lr_scheduler = None if made_here[1] else self.lr_scheduler
        metrics = {k: v for k, v in self.state.log_history[-1].items() if k != "step"}
        return TrainOutput(self.state.global_step, metrics["train_loss"], metrics)

    def _batches(self, source: Rows | Stream) -> Batches:
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        lengths: list[int] | None = None
        if args.train_sampling_strategy == "group_by_length" or args.per_device_train_batch_tokens:
            if isinstance(source, Stream):
                raise InputError("batches by length need to know all lengths first; give rows with a length.")
            lengths = lengths_of(source, args.length_column_name, seed)
        return Batches(
            source,
            self.data_collator,
            args.per_device_train_batch_size,
            seed,
            shuffle=args.train_sampling_strategy != "sequential",
            drop_last=args.dataloader_drop_last,
            workers=args.dataloader_num_workers,
            lengths=lengths,
            tokens=args.per_device_train_batch_tokens,
        )

    def _prepare(self) -> None:
        """Make the model what the arguments say: what is frozen, what is computed twice."""
        args = self.args
        if args.freeze:
            Places(self.model).freeze(args.freeze)
        if self.optimizer is not None and (args.learning_rates or args.layer_lr_decay != 1.0):
            raise ConfigError("learning_rates and layer_lr_decay do not reach an optimizer of your own; leave one out.")
        if args.gradient_checkpointing:
            if not hasattr(self.model, "gradient_checkpointing_enable"):
                raise ConfigError(
                    f"gradient_checkpointing: {type(self.model).__name__} has no blocks to compute twice."
                )
            self.model.gradient_checkpointing_enable()

    def precision(self) -> AbstractContextManager[Any]:
        """Inside, the model computes in the precision that the arguments name."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.args.bf16 else nullcontext()

    def _steps(self, batches: Batches) -> int:
        if self.args.max_steps > 0:
            return self.args.max_steps
        if batches.count is None:
            raise InputError("rows without a known number need max_steps: nobody can tell how many steps an epoch has.")
        return math.ceil(self.args.num_train_epochs * math.ceil(batches.count / self.args.gradient_accumulation_steps))

    def _finish(self, began: float, first: int, lost: float) -> None:
        seconds = max(time.perf_counter() - began, 1e-9)
        steps = self.state.global_step - first
        rows = steps * self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None:
            why = saving.fault(Path(best))
            if why is None:
                load_weights(self.model, Path(best))
            else:
                log.warning("the best model in %s is not loaded, the last one stays: %s.", best, why)
        self.model.eval()
        self.log(
            {
                "train_runtime": seconds,
                "train_samples_per_second": rows / seconds,
                "train_steps_per_second": steps / seconds,
                "train_loss": lost / max(1, self.state.global_step),
            }
        )

    def _open(self, data: Any) -> Rows | Stream:
        taken = taken_columns(self.model, self.label_names) if self.args.remove_unused_columns else None
        return open_rows(data, taken)

    def _objective(self, rows: Rows | Stream | None = None) -> Objective:
        args = self.args
        weights: Tensor | None = None
        if args.class_weights is not None and rows is not None:
            if args.class_weights == "balanced":
                if isinstance(rows, Stream):
                    raise InputError("class_weights='balanced' must count the labels first; give rows with a length.")
                weights = balanced(rows.labels(), int(self.model.config.num_labels))
            else:
                weights = torch.tensor(args.class_weights)
        smoothing = args.label_smoothing_factor if rows is not None else 0.0
        return Objective(self.model, smoothing, weights, args.match_upstream)

    def create_optimizer(self) -> Optimizer:
        """The optimizer of the arguments; override it for one of your own."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.args)
        return self.optimizer  # type: ignore[no-any-return]

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False) -> Any:
        """The mean loss over the labels of `inputs`; override it for a loss of your own.

        Trainer weighs the means of a batch's parts by how many labels they hold, so do not divide by anything else.
        """
        objective = self.objective or self._objective()
        own = objective.sizes(inputs)
        sums, outputs = objective.sums(model, inputs, own, shown=return_outputs)
        loss = joined(sums, own)
        return (loss, outputs) if return_outputs else loss

    @property
    def _own_loss(self) -> bool:
        return type(self).compute_loss is not Trainer.compute_loss

    def sums(
        self, objective: Objective, batch: dict[str, Any], own: Sizes, *, shown: bool
    ) -> tuple[Sizes, dict[str, Tensor], Any]:
        """(sizes, sums of losses, output) of a batch that is evaluated; `shown`: whether the output needs logits."""
        if not self._own_loss:
            return own, *objective.sums(self.model, batch, own, shown=shown)
        loss, outputs = self.compute_loss(self.model, batch, return_outputs=True)
        n = total(own)
        return {"places": n}, {"places": loss * n}, outputs

    def share(self, objective: Objective, batch: dict[str, Any], own: Sizes, whole: Sizes, parts: int) -> Tensor:
        """A part's share of an update's loss."""
        if not self._own_loss:
            return objective.share(self.model, batch, own, whole, parts)
        loss = self.compute_loss(self.model, batch)
        return loss * (total(own) / total(whole) if total(whole) else 0.0)  # type: ignore[no-any-return]

    # -- evaluating ----------------------------------------------------------------------------------------------------

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """The loss and the metrics on `eval_dataset` (by default the one of the trainer), also logged.

        Several data sets by name give metrics with the name in them. Random masks are the same in each evaluation.
        """
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(data, Mapping):
            found: dict[str, float] = {}
            for name, one in data.items():
                found |= self.evaluate(one, f"{metric_key_prefix}_{name}")
            return found
        _, metrics = self._pass(data, metric_key_prefix, keep=self.compute_metrics is not None)
        self.log(metrics)
        self.tell("on_evaluate", metrics=metrics)
        return metrics

    def predict(self, test_dataset: Any, metric_key_prefix: str = "test") -> PredictionOutput:
        """What the model says about each row, its labels if there are any, and the metrics."""
        found, metrics = self._pass(test_dataset, metric_key_prefix, keep=True)
        self.tell("on_predict", metrics=metrics)
        return PredictionOutput(found.predictions, found.label_ids, metrics)

    def _pass(self, data: Any, prefix: str, keep: bool) -> tuple[Pass, dict[str, float]]:
        args = self.args
        batches = Batches(
            self._open(data), self.data_collator, args.per_device_eval_batch_size, args.seed, shuffle=False,
            workers=args.dataloader_num_workers,
        )  # fmt: skip
        began = time.perf_counter()
        before = chance.capture()
        keep = keep and not args.prediction_loss_only
        streams = args.batch_eval_metrics and self.compute_metrics is not None
        try:
            with self.precision():
                found = run_pass(
                    self.model,
                    batches.epoch(_EVALUATION),
                    self._objective(),
                    self.sums,
                    self.label_names,
                    self.device,
                    keep=keep,
                    each=self.compute_metrics if keep and streams else None,
                    shrink=self.preprocess_logits_for_metrics,
                    after=lambda: self.tell("on_prediction_step"),
                )
            metrics: dict[str, float] = {} if found.loss is None else {f"{prefix}_loss": found.loss}
            if self.compute_metrics is not None and (found.label_ids is not None or found.measured is not None):
                named = found.measured
                if named is None:
                    named = self.compute_metrics(EvalPrediction(found.predictions, found.label_ids))
                for name, value in named.items():
                    key = name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"
                    metrics[key] = value.item() if hasattr(value, "item") else value
        finally:
            chance.restore(before)  # evaluating more or less often changes no training
        seconds = max(time.perf_counter() - began, 1e-9)
        metrics[f"{prefix}_runtime"] = seconds
        metrics[f"{prefix}_samples_per_second"] = found.rows / seconds
        metrics[f"{prefix}_steps_per_second"] = found.batches / seconds
        return found, metrics

    # -- saving, saying ------------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write the weights, the config and the tokenizer, for from_pretrained."""
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder)
        if hasattr(self.processing_class, "save_pretrained"):
            self.processing_class.save_pretrained(folder)

    def log(self, logs: dict[str, Any]) -> None:
        """Keep `logs` in state.log_history, with the epoch and the step, and tell the callbacks."""
        logs = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.tell("on_log", logs=logs)

    def add_callback(self, callback: Any) -> None:
        """Add a TrainerCallback, or a class of one."""
        self.callbacks.add(callback)

    def remove_callback(self, callback: Any) -> None:
        """Remove a callback, or the first of a class."""
        self.callbacks.take(callback)

    def tell(self, event: str, **at_hand: Any) -> None:
        """Call an event of all callbacks."""
        self.callbacks.call(
            event,
            self.args,
            self.state,
            self.control,
            model=self.model,
            processing_class=self.processing_class,
            tokenizer=self.processing_class,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
            **at_hand,
        )

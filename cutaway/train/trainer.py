"""`Trainer`: fine-tune, evaluate and predict, under the names that tutorials use."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from cutaway.errors import ConfigError, InputError
from cutaway.hub.folder_save import folder_save
from cutaway.train import saving
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batch_plan import lengths_of
from cutaway.train.batches import Batches
from cutaway.train.callback import Callbacks, DefaultFlowCallback
from cutaway.train.collator import DataCollatorWithPadding, default_data_collator
from cutaway.train.dataset import Rows, Stream, open_rows, taken_columns
from cutaway.train.distributed import ProcessGroup
from cutaway.train.evaluation import Evaluating
from cutaway.train.loop import Loop
from cutaway.train.objective import LabelCounts, Objective, balanced, joined, total
from cutaway.train.optimizer import make_optimizer
from cutaway.train.parameter_groups import ParameterAddresses
from cutaway.train.progress import ProgressCallback
from cutaway.train.pushing import Pushes, Pushing
from cutaway.train.reporting import Reporting
from cutaway.train.rng import set_seed
from cutaway.train.search import Searching
from cutaway.train.signals import SignalStop
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy
from cutaway.train.trackers import BY_NAME
from cutaway.train.weights import load_weights, save_weights

log = logging.getLogger("cutaway")


class TrainOutput(NamedTuple):
    """What `Trainer.train` gives; training_loss is the mean over all updates."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer(Evaluating, Reporting, Pushing, Searching):
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
            counts: then memory does not grow with the data. Batches with large logits come in parts.
        callbacks: TrainerCallback objects or classes.
        optimizers: (optimizer, schedule) instead of those of args; either may be None.
        preprocess_logits_for_metrics: (logits, labels) -> what to keep of the logits until compute_metrics. Over a
            vocabulary, give one, such as logits.argmax(-1): the logits of 1,000 x 512 tokens of BERT are 62 GB.
        model_init: makes the model, instead of `model`: anew for each call of train and each trial of a search.
        compute_loss_func: (outputs, labels, num_items_in_batch=...) -> the loss, instead of the model's own. With
            num_items_in_batch, the number of labelled places in the whole update, a sum over places divided by it is
            the mean that an update needs.

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
        compute_loss_func: Callable[..., Any] | None = None,
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
        self.ranks = ProcessGroup.here(cuda, self.args.ddp_timeout)
        self.device = torch.device("cuda", self.ranks.local) if cuda else torch.device("cpu")
        self.model: Any = model.to(self.device)
        self.processing_class = processing_class if processing_class is not None else tokenizer
        pads = hasattr(self.processing_class, "pad")
        self.data_collator = data_collator or (
            DataCollatorWithPadding(self.processing_class) if pads else default_data_collator
        )
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.compute_metrics, self.preprocess_logits_for_metrics = compute_metrics, preprocess_logits_for_metrics
        self.optimizer, self.lr_scheduler = optimizers
        self.compute_loss_func = compute_loss_func
        self.state, self.control = self._new_state(), TrainerControl()
        self.objective: Objective | None = None
        progress = [] if self.args.disable_tqdm else [ProgressCallback]
        trackers = [BY_NAME[name] for name in self.args.report_to or ()]
        pushes = [Pushes] if self.args.push_to_hub else []
        told = [*trackers, *pushes, *progress] if self.ranks.first else []
        self.callbacks = Callbacks([DefaultFlowCallback, *(callbacks or []), *told])
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
            OutputError: another process or thread trains in output_dir.
        """
        args, output = self.args, Path(self.args.output_dir)
        resume = args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        set_seed(args.seed)
        if self.model_init is not None:
            self.model = self.fresh_model().to(self.device)
        if not self.ranks.first:
            set_seed(self.ranks.seed(args.seed))
        source = self._open(self.train_dataset)
        self.objective = objective = self._objective(source)
        batches = self._batches(source)
        self._prepare()
        self.state, self.control = self._new_state(), TrainerControl()
        if args.match_upstream:
            log.warning("match_upstream: the losses of accumulated parts are added up as the upstream library does it, "
                        "so the loss and the gradients depend on how a batch is cut.")  # fmt: skip
        made_here = self.optimizer is None, self.lr_scheduler is None
        loop = Loop(self, batches, objective, self._steps(batches))
        claim = saving.OutputClaim(output)
        self.ranks.on_first_rank(claim.take)
        try:
            found = self.ranks.on_first_rank(lambda: saving.begin(output, resume))
            if found is not None:
                loop.load(found)
            began, first = time.perf_counter(), self.state.global_step
            with self._listening():
                loop.run()
            loop.leave()
            self._finish(began, first, loop.lost_by_all())
            self.tell("on_train_end")
        finally:
            claim.release()
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

    def _new_state(self) -> TrainerState:
        ranks = self.ranks
        return TrainerState(is_world_process_zero=ranks.first, is_local_process_zero=ranks.local == 0)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Inside, a signal to one of several processes makes all of them save and leave."""
        if self.ranks.size == 1 or any(isinstance(c, SignalStop) for c in self.callbacks.all):
            yield
            return
        stopping = SignalStop(patient=True)
        self.add_callback(stopping)
        try:
            with stopping.listening():
                yield
        finally:
            self.remove_callback(stopping)

    def _prepare(self) -> None:
        """Make the model what the arguments say: what is frozen, what is computed twice."""
        args = self.args
        if args.freeze:
            ParameterAddresses(self.model).freeze(args.freeze)
        if self.optimizer is not None and (args.learning_rates or args.layer_lr_decay != 1.0):
            raise ConfigError("learning_rates and layer_lr_decay do not reach an optimizer of your own; leave one out.")
        if args.gradient_checkpointing:
            if not hasattr(self.model, "gradient_checkpointing_enable"):
                raise ConfigError(
                    f"gradient_checkpointing: {type(self.model).__name__} has no blocks to compute twice."
                )
            self.model.gradient_checkpointing_enable()
        if args.fsdp and self.optimizer is not None:
            raise ConfigError("fsdp splits the weights, so an optimizer made before holds others; override "
                              "create_optimizer instead.")  # fmt: skip
        if args.fsdp:
            self.ranks.shard(self.model, self.device)

    def precision(self) -> AbstractContextManager[Any]:
        """Inside, the model computes in the precision that the arguments name."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.args.bf16 else nullcontext()

    def _steps(self, batches: Batches) -> int:
        if self.args.max_steps > 0:
            return self.args.max_steps
        if batches.count is None:
            raise InputError("rows without a known number need max_steps: nobody can tell how many steps an epoch has.")
        per_update = self.args.gradient_accumulation_steps * self.ranks.size
        return math.ceil(self.args.num_train_epochs * math.ceil(batches.count / per_update))

    def _finish(self, began: float, first: int, lost: float) -> None:
        seconds = max(time.perf_counter() - began, 1e-9)
        steps = self.state.global_step - first
        rows = steps * self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.ranks.size
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None:
            why = self.ranks.on_first_rank(lambda: saving.fault(Path(best)))
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

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss over the labels of `inputs`; override it for a loss of your own.

        Trainer weighs the means of a batch's parts by how many labels they hold, so do not divide by anything else.
        num_items_in_batch is what compute_loss_func is given; by default, how many labels `inputs` hold.
        """
        objective = self.objective or self._objective()
        own = objective.sizes(inputs)
        if self.compute_loss_func is not None and "labels" in inputs:
            outputs = model(**{k: v for k, v in inputs.items() if k != "labels"})
            count = total(own) if num_items_in_batch is None else num_items_in_batch
            loss = self.compute_loss_func(outputs, inputs["labels"], num_items_in_batch=count)
            return (loss, outputs) if return_outputs else loss
        sums, outputs = objective.sums(model, inputs, own, shown=return_outputs)
        loss = joined(sums, own)
        return (loss, outputs) if return_outputs else loss

    @property
    def _own_loss(self) -> bool:
        return type(self).compute_loss is not Trainer.compute_loss or self.compute_loss_func is not None

    def sums(
        self, objective: Objective, batch: dict[str, Any], own: LabelCounts, *, shown: bool
    ) -> tuple[LabelCounts, dict[str, Tensor], Any]:
        """(sizes, sums of losses, output) of a batch that is evaluated; `shown`: whether the output needs logits."""
        if not self._own_loss:
            return own, *objective.sums(self.model, batch, own, shown=shown)
        loss, outputs = self.compute_loss(self.model, batch, return_outputs=True)
        n = total(own)
        return {"places": n}, {"places": loss * n}, outputs

    def loss_share(
        self, model: Any, objective: Objective, batch: dict[str, Any], own: LabelCounts, whole: LabelCounts, parts: int
    ) -> Tensor:
        """A part's share of an update's loss, through `model`, which several processes wrap."""
        if not self._own_loss:
            return objective.loss_share(model, batch, own, whole, parts)
        if self.compute_loss_func is not None and type(self).compute_loss is Trainer.compute_loss:
            return self.compute_loss(model, batch, num_items_in_batch=total(whole))  # type: ignore[no-any-return]
        loss = self.compute_loss(model, batch)
        return loss * (total(own) / total(whole) if total(whole) else 0.0)  # type: ignore[no-any-return]

    # -- saving, saying ------------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write the weights, the config and the tokenizer, for from_pretrained: all of them, or none.

        Of several processes the first writes; with fsdp, all must call it.
        """
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        with self.ranks.gathered(self.model) as weights:
            if not self.ranks.first:
                return
            with folder_save(folder) as save:
                save_weights(self.model, save.aside, weights)
                if hasattr(self.processing_class, "save_pretrained"):
                    self.processing_class.save_pretrained(save.aside)

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

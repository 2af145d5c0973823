"""`Trainer`: fine-tune, evaluate and predict, under the names that tutorials use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from cutaway.errors import ConfigError
from cutaway.hub.folder_save import folder_save
from cutaway.train import pushing, reporting, saving, search
from cutaway.train.accelerator import Accelerator
from cutaway.train.accelerator_config import AcceleratorConfig
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import DEFAULT_CALLBACKS, Callbacks, best_value
from cutaway.train.collator import DataCollatorWithPadding, default_data_collator
from cutaway.train.dataset import taken_columns
from cutaway.train.default_hooks import DefaultHooks
from cutaway.train.distributed import ProcessGroup
from cutaway.train.evaluation import EvalLoopOutput, PredictionOutput
from cutaway.train.evaluator import Evaluator
from cutaway.train.hooks import check_overrides, overridden, takes
from cutaway.train.memory_tracker import MemoryTracker
from cutaway.train.progress import ProgressCallback
from cutaway.train.reporting import CardFields
from cutaway.train.rng import set_seed
from cutaway.train.search import BestRun, SearchSettings
from cutaway.train.session import RunningLoop, Trial
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy
from cutaway.train.trackers import BY_NAME
from cutaway.train.training_run import TrainingRun, TrainOutput
from cutaway.train.weights import load_weights, save_weights

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger("cutaway")


class Trainer(DefaultHooks):
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
        optimizer_cls_and_kwargs: (an optimizer's class, its arguments), instead of what args.optim names; or a class
            that is none and makes one of its own: `kind()(model, **arguments)`.
        optimizers: (optimizer, schedule) instead of those of args; either may be None.
        preprocess_logits_for_metrics: (logits, labels) -> what to keep of the logits until compute_metrics. Over a
            vocabulary, give one, such as logits.argmax(-1): the logits of 1,000 x 512 tokens of BERT are 62 GB.
        model_init: makes the model, instead of `model`: anew for each call of train and each trial of a search.
        compute_loss_func: (outputs, labels, num_items_in_batch=...) -> the loss, instead of the model's own. With
            num_items_in_batch, the number of labelled places in the whole update, a sum over places divided by it is
            the mean that an update needs.

    A subclass may override the methods that upstream's Trainer calls; they are called here with the same arguments. One
    that overrides a method which is never called here is refused. `loss_is_scaled_for_ga` says whether a compute_loss
    of one's own gives a share of the update's loss (True) or the mean of its batch (False); by default it is a share if
    it was calculated with num_items_in_batch.

    The loss of an update is the mean over all labelled places of all its rows, however they are cut into batches.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        processing_class: object = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: Sequence[object] | None = None,
        optimizers: tuple[Optimizer | None, LRScheduler | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
        *,
        tokenizer: object = None,
    ) -> None:
        check_overrides(type(self))
        if model_init is not None and (model is not None or any(optimizers)):
            raise ConfigError("model_init makes the model anew, so it goes with neither model= nor optimizers=.")
        if optimizer_cls_and_kwargs is not None and optimizers[0] is not None:
            raise ConfigError("optimizer_cls_and_kwargs makes the optimizer, and optimizers gives one; leave one out.")
        if tokenizer is not None and processing_class is not None and tokenizer is not processing_class:
            raise ConfigError("tokenizer is another name of processing_class, and they differ; give one of them.")
        self.args = args if args is not None else TrainingArguments()
        self.model_init = model_init
        self.processing_class = processing_class if processing_class is not None else tokenizer
        pads = hasattr(self.processing_class, "pad")
        self.data_collator = data_collator or (
            DataCollatorWithPadding(self.processing_class) if pads else default_data_collator
        )
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.compute_metrics, self.preprocess_logits_for_metrics = compute_metrics, preprocess_logits_for_metrics
        self.optimizer, self.lr_scheduler = optimizers
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        self.compute_loss_func = compute_loss_func
        self._train_batch_size = int(self.args.train_batch_size)
        self._signature_columns = None
        self.is_in_train = False
        with self._memory("init"):
            set_seed(self.args.seed)
            self._take_model(self.call_model_init() if model_init is not None else model)
            self.state, self.control = self._new_state(), TrainerControl()
            self.callbacks = Callbacks([*DEFAULT_CALLBACKS, *(callbacks or []), *self._callbacks_of_arguments()])
            self._validate_args()
            self.tell("on_init_end")

    def _take_model(self, model: nn.Module | None) -> None:
        """Put the model on the device of this process, and note what its forward takes."""
        if not isinstance(model, torch.nn.Module):
            raise ConfigError(f"Trainer needs a model, not {type(model).__name__}; load one with from_pretrained.")
        cuda = torch.cuda.is_available() and not self.args.use_cpu
        self.ranks = ProcessGroup.here(cuda, self.args.ddp_timeout)
        self.device = torch.device("cuda", self.ranks.local) if cuda else torch.device("cpu")
        self.accelerator = Accelerator(self.session)
        self.model = model
        if self.args.place_model_on_device:
            self._move_model_to_device(model, self.device)
        self.model_wrapped = model
        self.model_accepts_loss_kwargs = takes(model.forward, "num_items_in_batch")
        spans = {"start_positions", "end_positions"} <= (taken_columns(model) or set())
        self.label_names = self.args.label_names or (["start_positions", "end_positions"] if spans else ["labels"])

    def _callbacks_of_arguments(self) -> list[object]:
        """The callbacks that the arguments ask for: the first process alone tells and uploads."""
        if not self.ranks.first:
            return []
        trackers = [BY_NAME[name] for name in self.args.report_to or ()]
        pushes = [pushing.Pushes] if self.args.push_to_hub else []
        return [*trackers, *pushes, *([] if self.args.disable_tqdm else [ProgressCallback])]

    @cached_property
    def _memory_tracker(self) -> MemoryTracker:
        return MemoryTracker()

    def _memory(self, stage: str) -> AbstractContextManager[None]:
        """Inside, the memory of a stage is followed, where the arguments ask for it."""
        return nullcontext() if self.args.skip_memory_metrics else self._memory_tracker.stage(stage)

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.session, self)

    def _validate_args(self) -> None:
        """Refuse arguments that do not go together."""
        if self.args.accelerator_config is not None:
            AcceleratorConfig.read(self.args.accelerator_config).check_processes(self.ranks.size)
        if self.args.eval_strategy != IntervalStrategy.NO and self.eval_dataset is None:
            if overridden(self, "get_eval_dataloader") or overridden(self, "evaluate"):
                return
            raise ConfigError(f"eval_strategy is {self.args.eval_strategy.value!r}, so Trainer needs eval_dataset.")

    @property
    def tokenizer(self) -> Any:
        """Another name of processing_class."""
        return self.processing_class

    @property
    def callback_handler(self) -> Callbacks:
        """The callbacks, with what they are shown as it is now."""
        held = self.callbacks
        held.model, held.processing_class = self.model, self.processing_class
        held.optimizer, held.lr_scheduler = self.optimizer, self.lr_scheduler
        return held

    def _new_state(self) -> TrainerState:
        return TrainerState(
            is_local_process_zero=self.is_local_process_zero(), is_world_process_zero=self.is_world_process_zero()
        )

    # -- training ------------------------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Trial = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, from the beginning or from where a checkpoint stopped.

        Args:
            resume_from_checkpoint: True for the newest whole checkpoint in output_dir, a checkpoint, or a folder of
                them. The resumed training ends in the same bits as one that was never stopped.
            trial: of a search by your own means: model_init gets it, and settings by name are put into args.
            ignore_keys_for_eval: outputs of the model that evaluations in between leave out.

        Raises:
            InputError: the data or the labels cannot be used.
            CheckpointError: there is no whole checkpoint where one is named.
            OutputError: another process or thread trains in output_dir.
        """
        resume = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        if trial is not None:
            self.session.trial = trial
        self._train_batch_size = int(self.args.train_batch_size)
        with self._memory("train"):
            return TrainingRun(self.session, self, resume, ignore_keys_for_eval, self._memory_tracker).train()

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Rows of an update, over all processes."""
        size = self._train_batch_size if args is self.args else args.train_batch_size
        return int(size * args.gradient_accumulation_steps * self.ranks.size)

    def _load_best_model(self) -> None:
        """Load the weights of the best checkpoint, if it is whole."""
        assert self.state.best_model_checkpoint is not None
        best = Path(self.state.best_model_checkpoint)
        why = self.ranks.on_first_rank(lambda: saving.fault(best))
        if why is None:
            load_weights(self.model, best)
        else:
            logger.warning("the best model in %s is not loaded, the last one stays: %s.", best, why)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights of a checkpoint into the model."""
        load_weights(self.model if model is None else model, Path(resume_from_checkpoint))

    # -- evaluation: with several processes all of them must call it ---------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The loss and the metrics on `eval_dataset` (by default the one of the trainer), also logged.

        Several data sets by name give metrics with the name in them. Random masks are the same in each evaluation.

        Args:
            ignore_keys: outputs of the model that predictions leave out.
        """
        with self._memory("eval"):
            metrics = self._evaluator.evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            metrics |= self._memory_tracker.metrics("eval", metric_key_prefix)
        return metrics

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """What the model says about each row, its labels if there are any, and the metrics."""
        with self._memory("test"):
            output = self._evaluator.predict(test_dataset, ignore_keys, metric_key_prefix)
            if output.metrics is not None:
                output.metrics.update(self._memory_tracker.metrics("test", metric_key_prefix))
        return output

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """One pass over a loader: predictions and labels (unless only the loss is wanted), and the metrics."""
        return self._evaluator.loop(
            dataloader, prediction_loss_only, ignore_keys, metric_key_prefix, predicts=description == "Prediction"
        )

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """(the loss, the logits, the labels) of one batch; None for what there is not, or is not wanted."""
        return self._evaluator.step(model, inputs, prediction_loss_only, ignore_keys)

    def _evaluate(
        self, trial: Trial, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """An evaluation in a training; a schedule that follows a metric takes its step."""
        more: dict[str, Any] = {} if ignore_keys_for_eval is None else {"ignore_keys": ignore_keys_for_eval}
        metrics = self.evaluate(**more)
        if isinstance(self.lr_scheduler, ReduceLROnPlateau) and not skip_scheduler:
            self.lr_scheduler.step(best_value(self.args, metrics))
        return metrics

    def _running(self) -> RunningLoop:
        if self.session.loop is None:
            raise ConfigError("nothing is being trained: this method is called by train() while it runs.")
        return self.session.loop

    def _determine_best_metric(self, metrics: dict[str, float], trial: Trial) -> bool:
        """Whether these metrics are the best so far; the state notes it."""
        return self._running().judge(metrics)

    def _maybe_log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        model: nn.Module,
        trial: Trial,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        start_time: float,
        learning_rate: float | None = None,
    ) -> None:
        """After an update and an epoch: log, evaluate and save, as far as `control` asks for it."""
        self._running().log_save_evaluate()

    # -- saving, saying ------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Trial = None) -> str:
        """The folder of the checkpoints."""
        return str(self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Trial) -> None:
        """Write checkpoint-N with all that a resume needs."""
        self._running().save()

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Write the weights, the config and the tokenizer, for from_pretrained: all of them, or none.

        Of several processes the first writes; with fsdp, all must call it.
        """
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        with self.ranks.gathered(self.model) as weights:
            if not self.ranks.first:
                return
            with folder_save(folder) as save:
                self._save(str(save.aside), state_dict=weights)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the files of `save_model` into a folder."""
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder, state_dict)
        tokenizer = self.processing_class
        if tokenizer is None:
            tokenizer = getattr(self.data_collator, "tokenizer", None)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(folder)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Keep `logs` in state.log_history, with the epoch and the step, and tell the callbacks."""
        logs["epoch"] = self.state.epoch
        if self.args.include_num_input_tokens_seen not in (False, "no"):
            logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.tell("on_log", logs=logs)

    def add_callback(self, callback: object) -> None:
        """Add a TrainerCallback, or a class of one."""
        self.callbacks.add(callback)

    def pop_callback(self, callback: object) -> object:
        """Remove a callback, or the first of a class, and return it."""
        return self.callbacks.take(callback)

    def remove_callback(self, callback: object) -> None:
        """Remove a callback, or the first of a class."""
        self.callbacks.take(callback)

    def tell(self, event: str, **at_hand: object) -> None:
        """Call an event of all callbacks."""
        self.session.tell(event, **at_hand)

    def is_local_process_zero(self) -> bool:
        """Whether this process is the first of its machine."""
        return bool(self.ranks.local == 0)

    @property
    def is_fsdp_enabled(self) -> bool:
        """Whether each process holds a part of the weights."""
        return bool(self.args.fsdp)

    @property
    def is_deepspeed_enabled(self) -> bool:
        """Never: `fsdp=True` gives each process a part of the weights."""
        return False

    def is_world_process_zero(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.ranks.first)

    def log_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Say `metrics` of `split` ("train", "eval", "test") in the log of "cutaway", at level INFO."""
        if self.is_world_process_zero():
            reporting.log_metrics(split, metrics)

    def metrics_format(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """`metrics` as a person reads them: times as h:mm:ss, other numbers with four places."""
        return reporting.metrics_format(metrics)

    def save_metrics(self, split: str, metrics: dict[str, Any], combined: bool = True) -> None:
        """Write `metrics` to {split}_results.json and, `combined`, into all_results.json."""
        reporting.save_metrics(self.session, split, metrics, combined)

    def save_state(self) -> None:
        """Write trainer_state.json: where the training stands, with everything that was logged."""
        reporting.save_state(self.session)

    def create_model_card(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write README.md, a model card: what is given here as its fields, the evaluations, and the settings."""
        reporting.create_model_card(
            self.session, language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset,
            dataset_args,
        )  # fmt: skip

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **card: Unpack[CardFields],
    ) -> CommitInfo:
        """Save the model, write a model card, and upload output_dir, but for its checkpoints.

        The repository is hub_model_id, or else has the name of the folder. Of several processes all call it, and the
        first uploads.

        Args:
            blocking: it waits for the upload; the upstream library can also not wait.
            token: by default hub_token, or that of `hf auth login`. revision: a branch.
            card: arguments of `create_model_card`.

        Returns:
            huggingface_hub's CommitInfo.

        Raises:
            ConfigError: blocking is False.
            HubError: the hub cannot be reached, or refuses.
        """
        if not blocking:
            raise ConfigError("blocking is False, but an upload is waited for: leave it out.")
        self.save_model(_internal_call=True)
        self.create_model_card(**card)
        self.tell("on_push_begin")
        return pushing.push(self.session, commit_message, token, revision)

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], Mapping[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: object = "optuna",
        hp_name: Callable[[Any], str] | None = None,
        **search_settings: Unpack[SearchSettings],
    ) -> BestRun | list[BestRun]:
        """Train with different settings, and compare what `evaluate` says of the models.

        Each trial has a folder trial-N in output_dir; that of the best one stays, with its model, which is also left in
        `trainer.model`. best_settings.json and trials.csv in output_dir hold the outcome. A search that was killed goes
        on: what was cut off is tried again from its newest checkpoint, what was finished counts.

        Args:
            hp_space: optuna's trial -> settings of TrainingArguments; the rate, epochs, seed and batch size by default.
            compute_objective: metrics of an evaluation -> the value to compare. By default metric_for_best_model; where
                there is none, the sum of what compute_metrics gives, or else the loss.
            n_trials: how many trials the study is to hold, with those of an earlier call.
            direction: "minimize" or "maximize" it. A list of these where compute_objective gives several values: then
                all trials that no other one beats in each of them are given, and `trainer.model` is that of the last.
            hp_name: trial -> the name of its folder, instead of trial-N.
            search_settings: storage, study_name, sampler, pruner, timeout.
            storage: the SQLite file of the study (also as sqlite:///file); output_dir/study.db by default.
            sampler, pruner: of optuna; by default TPE, seeded, and the median rule over the evaluations in training.
            timeout: seconds after which no other trial begins.

        Raises:
            ConfigError: there is no model_init, or the direction is not that of the metric.
            InputError: the study is another process's, or another one.
            MissingExtraError: optuna is not installed.
        """
        return search.run(
            self.session, self, hp_space, compute_objective, n_trials, direction, backend, hp_name, **search_settings
        )

    def call_model_init(self, trial: Trial = None) -> nn.Module:
        """What model_init makes; it may take the trial of a search, which is None outside one.

        Raises:
            ConfigError: it takes more than that, or makes nothing.
        """
        assert self.model_init is not None
        n = search.positional(self.model_init)
        if n > 1:
            raise ConfigError(f"model_init takes {n} arguments; it may take none, or the trial of a search.")
        model = self.model_init(*[trial][:n])
        if model is None:
            raise ConfigError("model_init made nothing: it must return a model.")
        return model

    def end(self) -> None:
        """Called at the very end of a script, when no process needs another any more; nothing is left to close."""
        self.accelerator.end_training()

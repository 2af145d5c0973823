"""`Trainer`: fine-tune, evaluate and predict, under the names that tutorials use."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, Unpack, cast, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Sampler

from cutaway.errors import ConfigError, InputError
from cutaway.hub.folder_save import folder_save
from cutaway.train import pushing, reporting, saving, search
from cutaway.train.accelerator import Accelerator
from cutaway.train.accelerator_config import AcceleratorConfig
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batch_size import Beginning, train_that_fits
from cutaway.train.batches import Batches, moved
from cutaway.train.callback import DEFAULT_CALLBACKS, Callbacks, best_value
from cutaway.train.collator import DataCollatorWithPadding, default_data_collator
from cutaway.train.dataloader import (
    EpochBatches,
    SequentialOrder,
    batches_of,
    loader_of,
    training_order,
)
from cutaway.train.dataset import Rows, open_rows, taken_columns
from cutaway.train.distributed import ProcessGroup
from cutaway.train.evaluation import EvalLoopOutput, PredictionOutput
from cutaway.train.evaluator import Evaluator
from cutaway.train.hooks import check_overrides, overridden, takes
from cutaway.train.loop import Loop, measure, num_items
from cutaway.train.memory_tracker import MemoryTracker
from cutaway.train.neftune import noise
from cutaway.train.objective import Objective, total
from cutaway.train.optimizer import decaying_names, is_optimizer_factory, make_optimizer, make_schedule, optimizer_of
from cutaway.train.parameter_groups import ParameterAddresses
from cutaway.train.progress import ProgressCallback
from cutaway.train.reporting import CardFields
from cutaway.train.rng import set_seed
from cutaway.train.search import BestRun, SearchSettings
from cutaway.train.session import RunningLoop, TrainingSession, Trial
from cutaway.train.sharding import entire
from cutaway.train.signals import SignalStop
from cutaway.train.special_tokens import align_special_tokens
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy
from cutaway.train.trackers import BY_NAME
from cutaway.train.update_loss import UpdateLoss, training_objective
from cutaway.train.weights import load_weights, save_weights

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger("cutaway")
T = TypeVar("T")


class TrainOutput(NamedTuple):
    """What `Trainer.train` gives; training_loss is the mean over all updates."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class _OfSession(Generic[T]):
    """An attribute of the trainer that lives in its session, under the same name."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, trainer: None, owner: type[object]) -> Self: ...

    @overload
    def __get__(self, trainer: Trainer, owner: type[object]) -> T: ...

    def __get__(self, trainer: Trainer | None, owner: type[object]) -> T | Self:
        if trainer is None:
            return self
        value: T = getattr(trainer.session, self._name)
        return value

    def __set__(self, trainer: Trainer, value: T) -> None:
        setattr(trainer.session, self._name, value)


class Trainer:
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

    loss_is_scaled_for_ga: bool | None = None

    args = _OfSession[TrainingArguments]("The TrainingArguments.")
    model: Any = _OfSession("The model itself.")
    optimizer = _OfSession[Optimizer | None]("The optimizer, once it is made.")
    lr_scheduler = _OfSession[LRScheduler | None]("The schedule of the learning rate, once it is made.")
    processing_class: Any = _OfSession("The tokenizer.")
    state = _OfSession[TrainerState]("Where the training stands: a TrainerState.")
    control = _OfSession[TrainerControl]("What callbacks ask for: a TrainerControl.")
    callbacks = _OfSession[Callbacks]("All callbacks.")
    ranks = _OfSession[ProcessGroup]("The processes that train together.")
    device = _OfSession[torch.device]("The device of this process.")
    objective = _OfSession[Objective | None]("What a training minimizes.")

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
        self.args = args if args is not None else TrainingArguments()
        with self._memory("init"):
            if model_init is not None and (model is not None or any(optimizers)):
                raise ConfigError("model_init makes the model anew, so it goes with neither model= nor optimizers=.")
            if optimizer_cls_and_kwargs is not None and optimizers[0] is not None:
                raise ConfigError(
                    "optimizer_cls_and_kwargs makes the optimizer, and optimizers gives one; leave one out."
                )
            set_seed(self.args.seed)
            self.model_init = model_init
            model = self.call_model_init() if model_init is not None else model
            if not isinstance(model, torch.nn.Module):
                raise ConfigError(f"Trainer needs a model, not {type(model).__name__}; load one with from_pretrained.")
            if tokenizer is not None and processing_class is not None and tokenizer is not processing_class:
                raise ConfigError("tokenizer is another name of processing_class, and they differ; give one of them.")
            cuda = torch.cuda.is_available() and not self.args.use_cpu
            self.ranks = ProcessGroup.here(cuda, self.args.ddp_timeout)
            self.device = torch.device("cuda", self.ranks.local) if cuda else torch.device("cpu")
            self.accelerator = Accelerator(self.session)
            self.model = model
            if self.args.place_model_on_device:
                self._move_model_to_device(model, self.device)
            self.model_wrapped = model
            self.processing_class = processing_class if processing_class is not None else tokenizer
            pads = hasattr(self.processing_class, "pad")
            self.data_collator = data_collator or (
                DataCollatorWithPadding(self.processing_class) if pads else default_data_collator
            )
            self.train_dataset: Any = train_dataset
            self.eval_dataset: Any = eval_dataset
            self.compute_metrics, self.preprocess_logits_for_metrics = compute_metrics, preprocess_logits_for_metrics
            self.optimizer, self.lr_scheduler = optimizers
            self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
            self.compute_loss_func = compute_loss_func
            self._made: dict[str, Any] = {}
            self._train_batch_size = int(self.args.train_batch_size)
            self.state, self.control = self._new_state(), TrainerControl()
            self.is_in_train = False
            self.model_accepts_loss_kwargs = takes(model.forward, "num_items_in_batch")
            progress = [] if self.args.disable_tqdm else [ProgressCallback]
            trackers = [BY_NAME[name] for name in self.args.report_to or ()]
            pushes = [pushing.Pushes] if self.args.push_to_hub else []
            told = [*trackers, *pushes, *progress] if self.ranks.first else []
            self.callbacks = Callbacks([*DEFAULT_CALLBACKS, *(callbacks or []), *told])
            forward = taken_columns(model) or set()
            spans = {"start_positions", "end_positions"} <= forward
            self.label_names = self.args.label_names or (["start_positions", "end_positions"] if spans else ["labels"])
            self._signature_columns: list[str] | None = None
            self._validate_args()
            self.tell("on_init_end")

    @cached_property
    def session(self) -> TrainingSession:
        """What the training is while it runs; loop, evaluation, uploads and searches share it."""
        return TrainingSession()

    @cached_property
    def _memory_tracker(self) -> MemoryTracker:
        return MemoryTracker()

    def _memory(self, stage: str) -> AbstractContextManager[None]:
        """Inside, the memory of a stage is followed, where the arguments ask for it."""
        return nullcontext() if self.args.skip_memory_metrics else self._memory_tracker.stage(stage)

    @cached_property
    def _loss(self) -> UpdateLoss:
        return UpdateLoss(self.session, self)

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

    # -- data ----------------------------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        """Note the columns that the model takes, and labels, in `_signature_columns`; None where it takes any."""
        if self._signature_columns is None:
            found = taken_columns(self.model, self.label_names)
            self._signature_columns = None if found is None else sorted(found)

    def _columns(self) -> set[str] | None:
        if not self.args.remove_unused_columns:
            return None
        self._set_signature_columns_if_needed()
        return None if self._signature_columns is None else set(self._signature_columns)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        """The data set as it is read; columns that the model does not take are left out row by row."""
        return dataset

    def _get_collator_with_removed_columns(
        self, data_collator: Callable[..., Any], description: str | None = None
    ) -> Callable[..., Any]:
        """The collator; its rows have only the columns that the model takes."""
        return data_collator

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches to train on. One of your own may give them otherwise: each process computes its share of them.

        Raises:
            InputError: there is no train_dataset.
        """
        if self.train_dataset is None:
            raise InputError("there is no data set; give Trainer train_dataset (to train) or eval_dataset "
                             "(to evaluate).")  # fmt: skip
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self._train_batch_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The batches of `eval_dataset`: rows, or the name of one of the trainer's; by default the trainer's own."""
        if isinstance(eval_dataset, str) and isinstance(self.eval_dataset, Mapping):
            eval_dataset = self.eval_dataset[eval_dataset]
        return self._get_dataloader(
            dataset=self.eval_dataset if eval_dataset is None else eval_dataset,
            description="Evaluation",
            batch_size=self.args.per_device_eval_batch_size,
            sampler_fn=self._get_eval_sampler,
        )

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """The batches of `test_dataset`."""
        return self._get_dataloader(
            dataset=test_dataset,
            description="test",
            batch_size=self.args.per_device_eval_batch_size,
            sampler_fn=self._get_eval_sampler,
        )

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Sampler[int] | None] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader[Any]:
        """A loader of `dataset` in batches, in the order of what `sampler_fn` gives."""
        if hasattr(dataset, "remove_columns"):
            dataset = self._remove_unused_columns(dataset, description=description)
        collate = self._get_collator_with_removed_columns(self.data_collator, description=description)
        source = open_rows(dataset, self._columns())
        sampler = sampler_fn(dataset) if sampler_fn is not None and isinstance(source, Rows) else None
        return loader_of(self.args, source, dataset, collate, batch_size, sampler, training=is_training)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """The order of the training rows. One of your own (a torch Sampler) is drawn anew in each epoch."""
        data = self.train_dataset if train_dataset is None else train_dataset
        return training_order(self.args, data)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        """The order of the rows in an evaluation: theirs."""
        return SequentialOrder(eval_dataset) if hasattr(eval_dataset, "__len__") else None

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """How many rows a loader reads, or about how many where its data has no length."""
        try:
            return len(dataloader.dataset)  # type: ignore[arg-type]  # a TypeError is expected
        except (NameError, AttributeError, TypeError):
            return len(dataloader) * int(self.args.per_device_train_batch_size)

    def _prepare_input(self, data: Any) -> Any:
        """A batch, or a part of one, with its tensors on the trainer's device."""
        return moved(data, self.device)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch as the model takes it.

        Raises:
            InputError: it is empty.
        """
        inputs = self._prepare_input(inputs)
        if hasattr(inputs, "__len__") and len(inputs) == 0:
            raise InputError("a batch is empty: none of its columns is one that the model takes.")
        return inputs

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
            if self.args.auto_find_batch_size:
                return self._train_that_fits(resume, ignore_keys_for_eval)
            return self._train(resume, ignore_keys_for_eval)

    def _train_that_fits(self, resume: str | bool | None, ignore_keys: list[str] | None) -> TrainOutput:
        """`_train` with smaller batches where the memory does not suffice; a resume goes on with those it had."""
        if self.ranks.size > 1:
            raise ConfigError("auto_find_batch_size is for one process: others would wait for the one whose memory "
                              "does not suffice. Set per_device_train_batch_size instead.")  # fmt: skip
        found = saving.choose(Path(self.args.output_dir), resume) if resume else None
        if found is not None:
            self._train_batch_size = TrainerState.load_from_json(str(found / "trainer_state.json")).train_batch_size
        fresh = self.model_init is not None
        beginning = Beginning(None if fresh else self.model, self.optimizer, self.lr_scheduler, self.callbacks)

        def train(size: int) -> TrainOutput:
            self._train_batch_size = size
            return self._train(resume, ignore_keys)

        return train_that_fits(train, self._train_batch_size, beginning, lambda: found is not None)

    def _train(self, resume: str | bool | None, ignore_keys_for_eval: list[str] | None) -> TrainOutput:
        args, output, session = self.args, Path(self.args.output_dir), self.session
        set_seed(args.seed)
        if self.model_init is not None:
            self.model = self.model_wrapped = self.call_model_init(session.trial).to(self.device)
            self._signature_columns = None
        if not self.ranks.first:
            set_seed(self.ranks.seed(args.seed))
        align_special_tokens(self.model, self.processing_class)
        loader = self.callbacks.train_dataloader = self.get_train_dataloader()
        batches = batches_of(loader, args.seed if args.data_seed is None else args.data_seed, self.ranks.size)
        self.objective = training_objective(session, batches.source if isinstance(batches, Batches) else None)
        self._prepare()
        self.state, self.control = self._new_state(), TrainerControl()
        session.flos = 0.0
        if args.match_upstream:
            logger.warning("match_upstream: the losses of accumulated parts are added up as the upstream library does "
                           "it, so the loss and the gradients depend on how a batch is cut.")  # fmt: skip
        for name in ("optimizer", "lr_scheduler"):  # each training makes its own, unless the user gave one
            if self._made.get(name) is not None and getattr(self, name) is self._made[name]:
                setattr(self, name, None)
        given = {name: getattr(self, name) for name in ("optimizer", "lr_scheduler")}
        self.is_in_train = True
        try:
            loop = session.loop = Loop(session, self, batches, self._steps(batches), ignore_keys_for_eval)
            claim = saving.OutputClaim(output)
            self.ranks.on_first_rank(claim.take)
            try:
                found = self.ranks.on_first_rank(lambda: saving.begin(output, resume))
                if found is not None:
                    loop.load(found)
                began, first = time.perf_counter(), self.state.global_step
                with self._listening(), noise(self.model, args.neftune_noise_alpha):
                    loop.run()
                loop.leave()
                self._finish(began, first, loop.lost_by_all())
                self.tell("on_train_end")
            finally:
                claim.release()
        finally:
            self.is_in_train = False
            session.loop = None
            for callback in self.callbacks.all:
                getattr(callback, "close", lambda: None)()
            self._made = {name: None if one is not None else getattr(self, name) for name, one in given.items()}
        metrics = {k: v for k, v in self.state.log_history[-1].items() if k != "step"}
        return TrainOutput(self.state.global_step, metrics["train_loss"], metrics)

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Rows of an update, over all processes."""
        size = self._train_batch_size if args is self.args else args.train_batch_size
        return int(size * args.gradient_accumulation_steps * self.ranks.size)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Inside, a signal to one of several processes (or the only one, if asked) makes all save and leave."""
        alone = self.ranks.size == 1 and not self.args.enable_jit_checkpoint
        if alone or any(isinstance(c, SignalStop) for c in self.callbacks.all):
            yield
            return
        stopping = SignalStop(patient=self.ranks.size > 1)
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
        return self.session.precision()

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """Another name of `precision`."""
        return self.session.precision()

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """What a loss is computed inside: by default the precision that the arguments name."""
        return self.autocast_smart_context_manager()

    def _steps(self, batches: EpochBatches) -> int:
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        if batches.count is None:
            raise InputError("rows without a known number need max_steps: nobody can tell how many steps an epoch has.")
        per_update = self.args.gradient_accumulation_steps * self.ranks.size
        epochs = float(self.args.num_train_epochs)
        updates: int = math.ceil(batches.count / per_update)
        return math.ceil(epochs * updates)

    def _finish(self, began: float, first: int, lost: float) -> None:
        seconds = max(time.perf_counter() - began, 1e-9)
        steps = self.state.global_step - first
        rows = steps * self.get_total_train_batch_size(self.args)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        self.model.eval()
        self.store_flos()
        self.log(
            {
                "train_runtime": seconds,
                "train_samples_per_second": rows / seconds,
                "train_steps_per_second": steps / seconds,
                "total_flos": self.state.total_flos,
                "train_loss": lost / max(1, self.state.global_step),
                **self._memory_tracker.metrics("train", "train"),
            }
        )

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

    # -- the optimizer -------------------------------------------------------------------------------------------------

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Make both; override it, or one of the two below, for your own."""
        self.create_optimizer()
        self.create_scheduler(num_training_steps=num_training_steps, optimizer=self.optimizer)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimizer of the arguments; override it for one of your own."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, settings = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
            if is_optimizer_factory(kind):
                made = cast("Callable[[], Callable[..., Optimizer]]", kind)()(model, **settings)
                self.optimizer = made
                return made
            self.optimizer = make_optimizer(
                model, self.args, self.get_decay_parameter_names(model), kind, dict(settings)
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """The schedule of the arguments; override it for one of your own."""
        if self.lr_scheduler is None:
            self.lr_scheduler = make_schedule(
                self._made_optimizer() if optimizer is None else optimizer, self.args, num_training_steps
            )
        return self.lr_scheduler

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: nn.Module | None = None
    ) -> tuple[type[Optimizer], dict[str, Any]]:
        """(the class of the optimizer that the arguments name, what it is given)."""
        return optimizer_of(args)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The names of the weights that weight decay reaches: neither biases nor norms."""
        return decaying_names(model)

    def get_num_trainable_parameters(self) -> int:
        """How many numbers train."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def get_learning_rates(self) -> list[float]:
        """The rate of each group.

        Raises:
            ConfigError: there is no optimizer yet.
        """
        return [group["lr"] for group in self._made_optimizer().param_groups]

    def get_optimizer_group(self, param: Tensor | None = None) -> dict[str, Any] | list[list[Tensor]] | None:
        """The group that holds a weight, or all groups.

        Raises:
            ConfigError: there is no optimizer yet.
        """
        groups = self._made_optimizer().param_groups
        if param is None:
            return [group["params"] for group in groups]
        return next((group for group in groups if any(p is param for p in group["params"])), None)

    def _made_optimizer(self) -> Optimizer:
        if self.optimizer is None:
            raise ConfigError("Trainer optimizer is None: it is made by train(); call create_optimizer() before it.")
        return self.optimizer

    def _get_learning_rate(self) -> float:
        """The rate of the first group."""
        return float(self._made_optimizer().param_groups[0]["lr"])

    # -- one update ----------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """(the next `num_batches` batches or what is left of them, how many labelled places the update has)."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        """How many labelled places these batches hold, with those of the other processes; None for no batch."""
        if not batch_samples:
            return None
        session, pending = self.session, self.session.pending
        if len(pending) == len(batch_samples):
            group = [turn._replace(batch=batch) for turn, batch in zip(pending, batch_samples, strict=True)]
            session.update = measure(session, group)
            return num_items(total(session.update.whole))
        objective = self._loss.objective()
        return num_items(sum(total(objective.sizes(batch)) for batch in batch_samples))

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute one batch of an update, forward and backward.

        Args:
            model: the model as all processes compute it together.
            inputs: a batch. num_items_in_batch: how many labelled places the whole update has.

        Returns:
            The batch's share of the update's loss, as a number without a graph.
        """
        if not model.training:
            model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self._loss.loss_share(model, inputs, num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

    def first_loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The loss of a first batch, whose graph tells which weights are used."""
        with self.compute_loss_context_manager():
            return self._loss.loss_share(model, batch, None)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss over the labels of `inputs`; override it for a loss of your own.

        It is the mean over what they label, or, with num_items_in_batch, their sum divided by it. The loss of an
        override counts as a share of the update's where it was calculated with num_items_in_batch, and otherwise as a
        mean, which is weighed by how many labels the batch holds.
        """
        return self._loss.compute(model, inputs, return_outputs, num_items_in_batch)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        """Clip the gradients at max_grad_norm; their norm before."""
        return self._norm(float(self.args.max_grad_norm))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """The norm of the gradients, unless it is known already."""
        return self._norm(math.inf) if grad_norm is None else grad_norm

    def _norm(self, limit: float) -> Tensor:
        weights = [p for g in self._made_optimizer().param_groups for p in g["params"] if p.grad is not None]
        return entire(torch.nn.utils.clip_grad_norm_(weights, limit)) if weights else torch.zeros(())

    def _wrap_model(
        self, model: nn.Module, training: bool = True, dataloader: DataLoader[Any] | None = None
    ) -> nn.Module:
        """The model as it is called; several processes join what this gives."""
        return model

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Put the model on the trainer's device."""
        model.to(device)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a batch, forward and backward: 6 for each token and each weight that is no embedding.

        Kaplan et al., 2020 (arXiv:2001.08361), section 2.1. 0 where the model cannot tell its weights.
        """
        name = getattr(self.model, "main_input_name", "input_ids")
        if not isinstance(inputs, Mapping) or name not in inputs or not hasattr(self.model, "num_parameters"):
            return 0
        return int(6 * inputs[name].numel() * self._weights_that_multiply)

    @property
    def _weights_that_multiply(self) -> int:
        held: tuple[Any, int] | None = vars(self).get("_counted_weights")
        if held is None or held[0] is not self.model:
            held = self._counted_weights = (self.model, self.model.num_parameters(exclude_embeddings=True))
        return held[1]

    def store_flos(self) -> None:
        """Add the operations since the last time to state.total_flos."""
        self.state.total_flos += self.ranks.sum([self.session.flos])[0]
        self.session.flos = 0.0

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of a batch in state.num_input_tokens_seen, as include_num_input_tokens_seen asks."""
        how = self.args.include_num_input_tokens_seen
        if how in (False, "no"):
            return
        name, n = getattr(self.model, "main_input_name", "input_ids"), 0
        if name in inputs:
            mask = inputs.get("attention_mask") if how == "non_padding" else None
            n = inputs[name].numel() if mask is None else int(mask.sum())
        self.state.num_input_tokens_seen += int(self.ranks.sum([float(n)])[0])

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

"""What a training computes with, by upstream's names: its batches, its optimizer, and one update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler

from cutaway.errors import ConfigError, InputError
from cutaway.train.accelerator import Accelerator
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batches import moved
from cutaway.train.callback import Callbacks
from cutaway.train.dataloader import SequentialOrder, loader_of, training_order
from cutaway.train.dataset import Rows, open_rows, taken_columns
from cutaway.train.distributed import ProcessGroup
from cutaway.train.loop import measure, num_items
from cutaway.train.objective import Objective, total
from cutaway.train.optimizer import decaying_names, is_optimizer_factory, make_optimizer, make_schedule, optimizer_of
from cutaway.train.session import SessionAttribute, TrainingSession
from cutaway.train.sharding import entire
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.update_loss import UpdateLoss


class DefaultHooks:
    """Data, optimizer and update of a `Trainer`, unless its subclass has others.

    Each method may be overridden, and is called with upstream's arguments.
    """

    args = SessionAttribute[TrainingArguments]("The TrainingArguments.")
    model: Any = SessionAttribute("The model itself.")
    optimizer = SessionAttribute[Optimizer | None]("The optimizer, once it is made.")
    lr_scheduler = SessionAttribute[LRScheduler | None]("The schedule of the learning rate, once it is made.")
    processing_class: Any = SessionAttribute("The tokenizer.")
    state = SessionAttribute[TrainerState]("Where the training stands: a TrainerState.")
    control = SessionAttribute[TrainerControl]("What callbacks ask for: a TrainerControl.")
    callbacks = SessionAttribute[Callbacks]("All callbacks.")
    ranks = SessionAttribute[ProcessGroup]("The processes that train together.")
    device = SessionAttribute[torch.device]("The device of this process.")
    objective = SessionAttribute[Objective | None]("What a training minimizes.")

    loss_is_scaled_for_ga: bool | None = None
    model_accepts_loss_kwargs: bool
    accelerator: Accelerator
    data_collator: Callable[[list[Any]], Any]
    train_dataset: Any
    eval_dataset: Any
    label_names: list[str]
    compute_loss_func: Callable[..., Tensor] | None
    optimizer_cls_and_kwargs: tuple[type[Optimizer], dict[str, Any]] | None
    _train_batch_size: int
    _signature_columns: list[str] | None

    @cached_property
    def session(self) -> TrainingSession:
        """What the training is while it runs; loop, evaluation, uploads and searches share it."""
        return TrainingSession()

    @cached_property
    def _loss(self) -> UpdateLoss:
        return UpdateLoss(self.session, self)

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

    def precision(self) -> AbstractContextManager[Any]:
        """Inside, the model computes in the precision that the arguments name."""
        return self.session.precision()

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """Another name of `precision`."""
        return self.session.precision()

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """What a loss is computed inside: by default the precision that the arguments name."""
        return self.autocast_smart_context_manager()

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

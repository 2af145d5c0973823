"""The loss of an update as a trainer computes it: each batch's share, by the user's own loss where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.train.dataset import Rows, Stream
from cutaway.train.hooks import ItemCount, overridden, takes
from cutaway.train.objective import LabelCounts, Objective, balanced, joined, total

if TYPE_CHECKING:
    from cutaway.train.session import TrainingSession


class LossHooks(Protocol):
    """What a loss is computed with, by upstream's names; `Trainer` is one such set of hooks."""

    compute_loss_func: Callable[..., Tensor] | None
    loss_is_scaled_for_ga: bool | None
    model_accepts_loss_kwargs: bool

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch."""


def training_objective(session: TrainingSession, rows: Rows | Stream | None) -> Objective:
    """What a training minimizes: with the label smoothing and the class weights of the arguments.

    Raises:
        InputError: the classes are to count alike, and the rows have no length.
    """
    args, model = session.args, session.model
    weights: Tensor | None = None
    if args.class_weights == "balanced":
        if not isinstance(rows, Rows):
            raise InputError("class_weights='balanced' must count the labels first; give rows with a length.")
        weights = balanced(rows.labels(), int(model.config.num_labels))
    elif args.class_weights is not None:
        weights = torch.tensor(args.class_weights)
    return Objective(model, args.label_smoothing_factor, weights, args.match_upstream)


class UpdateLoss:
    """The loss of a session's updates; it knows the session and the hooks, and no trainer."""

    def __init__(self, session: TrainingSession, hooks: LossHooks) -> None:
        self.session, self.hooks = session, hooks

    def objective(self) -> Objective:
        """The objective of the training that runs; outside of one, without label smoothing and class weights."""
        if self.session.objective is not None:
            return self.session.objective
        return Objective(self.session.model, match_upstream=self.session.args.match_upstream)

    def share(self, model: nn.Module, inputs: dict[str, Any], num_items: Tensor | int | None) -> Tensor:
        """The share of the update's loss that a batch has; the whole loss of the batch outside of an update."""
        hooks, update, match_upstream = self.hooks, self.session.update, self.session.args.match_upstream
        if update is None:  # training_step by itself
            alone: Tensor = hooks.compute_loss(model, inputs)
            return alone
        sizes, whole = update.sizes[update.current], update.whole
        redefined = overridden(hooks, "compute_loss")
        if not redefined and hooks.compute_loss_func is None:
            return self.objective().loss_share(model, inputs, sizes, whole, update.parts)
        n = total(whole) if num_items is None else float(num_items)
        count = ItemCount.of(n)
        loss: Tensor
        if not redefined or takes(hooks.compute_loss, "num_items_in_batch"):
            loss = hooks.compute_loss(model, inputs, num_items_in_batch=count)
        else:
            loss = hooks.compute_loss(model, inputs)
        if not redefined:
            return loss
        scaled = count.used if hooks.loss_is_scaled_for_ga is None else hooks.loss_is_scaled_for_ga
        if match_upstream and hooks.loss_is_scaled_for_ga is None:
            scaled = hooks.model_accepts_loss_kwargs or hooks.compute_loss_func is not None
        if scaled:
            return loss
        if match_upstream:
            return loss / update.parts
        return loss * (total(sizes) / n if n else 0.0)

    def compute(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Tensor | int | None
    ) -> Any:
        """`Trainer.compute_loss`: the mean over what `inputs` label, or with `num_items` their sum divided by it."""
        objective, func = self.objective(), self.hooks.compute_loss_func
        sizes = objective.sizes(inputs)
        if func is not None:
            outputs = model(**{k: v for k, v in inputs.items() if k != "labels"})
            count = ItemCount.of(total(sizes)) if num_items is None else num_items
            loss = func(outputs, inputs.get("labels"), num_items_in_batch=count)
            return (loss, outputs) if return_outputs else loss
        sums, outputs = objective.sums(model, inputs, sizes, shown=return_outputs)
        whole, update = sizes, self.session.update
        if num_items is not None:
            n = float(num_items)
            whole = update.whole if update is not None and total(update.whole) == n else _counted(sizes, n)
        loss = joined(sums, whole)
        return (loss, outputs) if return_outputs else loss


def _counted(sizes: LabelCounts, n: float) -> LabelCounts:
    """Sizes where a caller says how many items there are in all."""
    here = total(sizes)
    return {name: size * n / here for name, size in sizes.items()} if here else sizes

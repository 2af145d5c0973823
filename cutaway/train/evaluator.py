"""Evaluation and prediction of a trainer: the passes over its data, and what the model answers in them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from cutaway.nn.call_context import Evaluation
from cutaway.train.dataloader import batches_of
from cutaway.train.evaluation import (
    EVALUATION,
    Answer,
    EvalLoopOutput,
    EvalPrediction,
    PredictionOutput,
    cut_by_logits,
    predicted,
    run_pass,
)
from cutaway.train.half_precision import weights_in
from cutaway.train.hooks import ItemCount, overridden, takes
from cutaway.train.objective import LabelCounts, Objective, joined, total
from cutaway.train.rng import capture, restore
from cutaway.train.update_loss import ComputesLoss, has_own_loss, measured_objective

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from cutaway.train.session import TrainingSession


class EvaluationHooks(ComputesLoss, Protocol):
    """What an evaluation calls and asks, by upstream's names; `Trainer` is one such set of hooks."""

    compute_metrics: Callable[..., dict[str, Any]] | None
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None
    label_names: list[str]
    eval_dataset: Any

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The batches to evaluate on."""

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """The batches to predict."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The metrics on one of several data sets."""

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """One pass over a loader."""

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """(loss, logits, labels) of a batch."""

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """What a loss is computed inside."""

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Keep and tell the metrics."""

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]: ...
    def _wrap_model(
        self, model: nn.Module, training: bool = True, dataloader: DataLoader[Any] | None = None
    ) -> nn.Module: ...


class Evaluator:
    """Evaluates the model of a session; it knows the session and the hooks, and no trainer.

    Each method is what the hook of upstream's name does unless a subclass of Trainer overrides it.
    """

    def __init__(self, session: TrainingSession, hooks: EvaluationHooks) -> None:
        self.session, self.hooks = session, hooks

    # -- passes --------------------------------------------------------------------------------------------------------

    def evaluate(self, eval_dataset: Any, ignore: list[str] | None, prefix: str) -> dict[str, float]:
        """`Trainer.evaluate`: the metrics on the data, also logged."""
        hooks = self.hooks
        data = hooks.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(data, Mapping):
            metrics_of_all: dict[str, float] = {}
            for name, part in data.items():
                metrics_of_all |= hooks.evaluate(
                    eval_dataset=name if eval_dataset is None else part,
                    ignore_keys=ignore,
                    metric_key_prefix=f"{prefix}_{name}",
                )
            return metrics_of_all
        loader = hooks.get_eval_dataloader(data if eval_dataset is not None else None)
        only_loss = True if hooks.compute_metrics is None else None
        metrics = self._timed(loader, "Evaluation", only_loss, ignore, prefix).metrics
        hooks.log(metrics)
        self.session.tell("on_evaluate", metrics=metrics)
        return metrics

    def predict(self, test_dataset: Any, ignore: list[str] | None, prefix: str) -> PredictionOutput:
        """`Trainer.predict`: what the model says about each row."""
        output = self._timed(self.hooks.get_test_dataloader(test_dataset), "Prediction", None, ignore, prefix)
        self.session.tell("on_predict", metrics=output.metrics)
        return PredictionOutput(output.predictions, output.label_ids, output.metrics)

    def _timed(
        self, loader: DataLoader[Any], what: str, only_loss: bool | None, ignore: list[str] | None, prefix: str
    ) -> EvalLoopOutput:
        """An evaluation with its speed."""
        began = time.perf_counter()
        output = self.hooks.evaluation_loop(
            loader, description=what, prediction_loss_only=only_loss, ignore_keys=ignore, metric_key_prefix=prefix
        )
        seconds = max(time.perf_counter() - began, 1e-9)
        size = self.session.args.per_device_eval_batch_size * self.session.ranks.size
        metrics = output.metrics
        metrics[f"{prefix}_runtime"] = seconds
        metrics[f"{prefix}_samples_per_second"] = output.num_samples / seconds
        metrics[f"{prefix}_steps_per_second"] = math.ceil(output.num_samples / size) / seconds
        # what follows from them must be the same everywhere
        return EvalLoopOutput(output[0], output[1], self.session.ranks.broadcast(metrics), output[3])

    def loop(
        self,
        dataloader: DataLoader[Any],
        only_loss: bool | None,
        ignore: list[str] | None,
        prefix: str,
        *,
        predicts: bool = False,
    ) -> EvalLoopOutput:
        """`Trainer.evaluation_loop`: one pass; `predicts`: what the model says is wanted, not a number."""
        with weights_in(self.session.model, self._dtype()):
            return self._pass(dataloader, only_loss, ignore, prefix, predicts=predicts)

    def _dtype(self) -> torch.dtype | None:
        """What the weights of an evaluation are in, if not in what they are; a training keeps them."""
        if self.session.loop is not None:
            return None
        args = self.session.args
        return torch.float16 if args.fp16_full_eval else torch.bfloat16 if args.bf16_full_eval else None

    def _pass(
        self,
        dataloader: DataLoader[Any],
        only_loss: bool | None,
        ignore: list[str] | None,
        prefix: str,
        *,
        predicts: bool,
    ) -> EvalLoopOutput:
        session, hooks, args, ranks = self.session, self.hooks, self.session.args, self.session.ranks
        keep = not (args.prediction_loss_only if only_loss is None else only_loss)
        session.callbacks.eval_dataloader = dataloader
        model = hooks._wrap_model(session.model, training=False)
        before = capture()
        streams = args.batch_eval_metrics and hooks.compute_metrics is not None
        objective = measured_objective(session)
        hooked = overridden(hooks, "prediction_step")
        # a loss of the user's, or upstream's, may depend on the batch; and ranks must stay in step
        whole = (
            not keep or has_own_loss(hooks) or hooked or objective.match_upstream or ranks.sharded
            or (ranks.size > 1 and streams)
        )  # fmt: skip

        def answers(batch: dict[str, Any]) -> Answer:
            if not hooked:
                answer = self.answer(model, objective, hooks._prepare_inputs(batch), keep, ignore)
                return answer._replace(logits=self._kept(answer.logits, answer.labels)) if keep else answer
            loss, logits, labels = hooks.prediction_step(model, batch, not keep, ignore_keys=ignore)
            n = total(objective.sizes(batch))
            sums = None if loss is None else {"places": loss.detach().mean() * n}
            return Answer({"places": n}, sums, self._kept(logits, labels) if keep else None, labels)

        try:
            with torch.no_grad(), Evaluation(session.model)(), hooks.compute_loss_context_manager():
                result = run_pass(
                    batches_of(dataloader, args.seed, ranks.size).turns(EVALUATION, ranks),
                    answers,
                    ranks,
                    keep=keep,
                    by_rows=objective.match_upstream,
                    finite=args.logging_nan_inf_filter,
                    each=hooks.compute_metrics if keep and streams else None,
                    cut=lambda batch: [batch] if whole else cut_by_logits(session.model, batch),
                    after=lambda: session.tell("on_prediction_step"),
                    include=(*args.include_for_metrics, *(("inputs",) if args.include_inputs_for_metrics else ())),
                    join=args.eval_do_concat_batches,
                    hold=predicts,
                )
            metrics: dict[str, float] = {} if result.loss is None else {f"{prefix}_loss": result.loss}
            named: Mapping[str, Any] = result.measured or {}
            if not streams and hooks.compute_metrics is not None and keep and result.label_ids is not None:
                shown = EvalPrediction(result.predictions, result.label_ids, result.inputs, result.losses)
                named = hooks.compute_metrics(shown)
            for name, value in named.items():
                key = name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"
                metrics[key] = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
        finally:
            restore(before)  # evaluating more or less often changes no training
        return EvalLoopOutput(result.predictions, result.label_ids, metrics, result.rows)

    # -- one batch -----------------------------------------------------------------------------------------------------

    def step(
        self, model: nn.Module, inputs: dict[str, Any], loss_only: bool, ignore: list[str] | None
    ) -> tuple[Any, Any, Any]:
        """`Trainer.prediction_step`: (the loss, the logits, the labels) of one batch; None for what there is not."""
        inputs = self.hooks._prepare_inputs(inputs)
        with torch.no_grad(), Evaluation(self.session.model)(), self.hooks.compute_loss_context_manager():
            answer = self.answer(model, measured_objective(self.session), inputs, not loss_only, ignore)
        loss = None if answer.sums is None else joined(answer.sums, answer.sizes).detach()
        return loss, answer.logits, answer.labels

    def answer(
        self, model: nn.Module, objective: Objective, batch: dict[str, Any], keep: bool, ignore: list[str] | None
    ) -> Answer:
        """What the model says of a batch; its logits are all of them."""
        sizes, labels = objective.sizes(batch), self.labels(batch)
        sums: dict[str, Tensor] | None = None
        if labels is None:
            outputs = model(**batch)
        elif has_own_loss(self.hooks):
            outputs, sizes, sums = self._with_own_loss(model, batch, sizes)
        else:
            sums, outputs = objective.sums(model, batch, sizes, shown=keep)
        if not keep:
            return Answer(sizes, sums)
        if ignore is None:  # a model's config may say it
            ignore = getattr(getattr(self.session.model, "config", None), "keys_to_ignore_at_inference", None)
        return Answer(sizes, sums, predicted(outputs, ignore), labels)

    def _with_own_loss(
        self, model: nn.Module, batch: dict[str, Any], sizes: LabelCounts
    ) -> tuple[Any, LabelCounts, dict[str, Tensor]]:
        """(output, sizes, sums of losses) by the user's own loss, which is a mean or a sum over the labelled places."""
        n, compute_loss = total(sizes), self.hooks.compute_loss
        if takes(compute_loss, "num_items_in_batch"):
            loss, outputs = compute_loss(model, batch, return_outputs=True, num_items_in_batch=ItemCount.of(n))
        else:
            loss, outputs = compute_loss(model, batch, return_outputs=True)
        return outputs, {"places": n}, {"places": loss.detach() * n}

    def labels(self, batch: Mapping[str, Any]) -> Any:
        """The labels of a batch: one tensor, or several in a tuple; None where there are none."""
        labels = [batch[name] for name in self.hooks.label_names if batch.get(name) is not None]
        return None if not labels else labels[0] if len(labels) == 1 else tuple(labels)

    def _kept(self, logits: Any, labels: Any) -> Any:
        """What is kept of the logits until compute_metrics."""
        shrink = self.hooks.preprocess_logits_for_metrics
        return logits if shrink is None or logits is None else shrink(logits, labels)

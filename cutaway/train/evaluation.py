"""One pass over a data set: the loss, and what the model said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cutaway.models.lm_heads import OutputHead
from cutaway.nn.call_context import Evaluation
from cutaway.train import rng
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batches import Batches, RankBatch, moved
from cutaway.train.dataset import Rows, Stream
from cutaway.train.distributed import ProcessGroup
from cutaway.train.objective import LabelCounts, Objective, added, joined

_EVALUATION = -3  # where training has the number of the epoch
_LOGITS = 2**25  # numbers of a vocabulary's logits that are there at once: 128 MB in float32


class EvalPrediction(NamedTuple):
    """What compute_metrics gets: the logits of all rows (a tuple where the model has several), and their labels."""

    predictions: Any
    label_ids: Any


class PredictionOutput(NamedTuple):
    """What `Trainer.predict` gives."""

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]


@dataclass
class Pass:
    """What a pass found; loss is None where rows have no labels, the arrays are None unless they were wanted.

    `measured`: what a metric that follows batch by batch said after the last.
    """

    loss: float | None
    predictions: Any
    label_ids: Any
    rows: int
    batches: int
    measured: dict[str, Any] | None = None


def run_pass(
    model: Any,
    turns: Iterator[RankBatch],
    objective: Objective,
    sums_of: Callable[..., tuple[LabelCounts, dict[str, Tensor], Any]],
    label_names: list[str],
    device: torch.device,
    ranks: ProcessGroup,
    *,
    keep: bool,
    each: Callable[..., dict[str, Any]] | None = None,
    shrink: Callable[[Any, Any], Any] | None = None,
    cut: Callable[[Any], list[Any]] = lambda batch: [batch],
    answer: Callable[[dict[str, Any]], Any],
    after: Callable[[], None] = lambda: None,
) -> Pass:
    """Run the model, without dropout and gradients, over batches; each rank its own, and every rank is told of all.

    The loss is the mean over all labelled places of all batches (upstream takes the mean over rows of their batches'
    means; so does `match_upstream`).

    Args:
        sums_of: the sizes, the sums of losses and the output of a batch with labels, `shown` with its logits.
        keep: whether predictions and labels are kept, as NumPy arrays; otherwise memory does not grow with the data.
        each: a metric that is given them batch by batch instead, with compute_result=True at the last.
        shrink: (logits, labels) -> what to keep of the logits.
        cut: a batch -> parts of it, which are computed one after another.
        answer: the output for a batch without labels.
        after: called after each batch.
    """
    sums: dict[str, Tensor] = {}
    sizes: list[LabelCounts] = []
    said: list[EvalPrediction] = []
    rows = n = 0
    measured: dict[str, Any] | None = None
    with torch.no_grad(), Evaluation(model)():
        for turn, ends, last in _in_parts(turns, cut):
            n += turn.held if ends else 0
            if not turn.mine and not ranks.sharded and each is None:
                continue  # nobody waits for this one
            own = objective.sizes(turn.batch)
            batch = moved(turn.batch, device)
            given = [batch[name] for name in label_names if name in batch]
            if given:
                own, found, outputs = sums_of(objective, batch, own, shown=keep)
                if objective.match_upstream:
                    own, found = _by_rows(batch, found, own)
                for name, value in found.items() if turn.mine else ():
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=device)) + value
                sizes += [own] if turn.mine else []
            else:
                outputs = answer(batch)
            if keep:
                logits = predicted(outputs)
                truth = None if not given else given[0] if len(given) == 1 else tuple(given)
                told = EvalPrediction(_array(logits if shrink is None else shrink(logits, truth)), _array(truth))
                del logits
                if each is not None:
                    for i, one in enumerate(ranks.gather(told)[: turn.held]):
                        measured = each(one, compute_result=last and i == turn.held - 1)
                elif turn.mine:
                    said.append(told)
                del told
            del outputs  # not held on to while the next batch is computed
            if turn.mine:
                rows += _rows_of(batch)
                if ends:
                    after()
    every = ranks.gather((rows, {k: float(v) for k, v in sums.items()}, added(sizes)))
    whole = added([one[2] for one in every])
    loss = joined(added([one[1] for one in every]), whole) if any(whole.values()) else None
    parts = _in_turn(ranks.gather(said))
    predictions, truths = _stacked([p.predictions for p in parts]), _stacked([p.label_ids for p in parts])
    return Pass(loss, predictions, truths, sum(one[0] for one in every), n, measured)


def _in_turn(every: list[list[Any]]) -> list[Any]:
    """What the ranks found, in the order of the batches: the first of each, then the second ones."""
    longest = max(len(one) for one in every)
    return [one[i] for i in range(longest) for one in every if i < len(one)]


def _ahead(turns: Iterator[RankBatch]) -> Iterator[tuple[RankBatch, bool]]:
    """(turn, whether it is the last)."""
    for turn in turns:
        for following in turns:
            yield turn, False
            turn = following
        yield turn, True


def _in_parts(turns: Iterator[RankBatch], cut: Callable[[Any], list[Any]]) -> Iterator[tuple[RankBatch, bool, bool]]:
    """(a turn with a part of its batch, whether it is the last of the batch, whether it is the last of all)."""
    for turn, last in _ahead(turns):
        parts = cut(turn.batch)
        for i, part in enumerate(parts, 1):
            yield RankBatch(part, turn.mine, turn.held), i == len(parts), last and i == len(parts)


def cut_by_logits(model: Any, batch: Any) -> list[Any]:
    """The rows of a batch in parts whose logits over a vocabulary take little room; anything else is left whole."""
    if not isinstance(model, OutputHead) or not model.own_forward:
        return [batch]
    texts = next((batch[k] for k in ("labels", "decoder_input_ids", "input_ids") if k in batch), None)
    rows = _rows_of(batch)
    if texts is None or any(not isinstance(v, Tensor) or v.dim() == 0 or len(v) != rows for v in batch.values()):
        return [batch]
    matrix: Any = model.get_output_embeddings()
    numbers = texts[0].numel() * len(matrix.weight)
    size = max(1, _LOGITS // max(1, numbers))
    return [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, rows, size)]


def _by_rows(batch: Any, found: dict[str, Tensor], own: LabelCounts) -> tuple[LabelCounts, dict[str, Tensor]]:
    n = float(_rows_of(batch))
    return {"places": n}, {"places": joined(found, own) * n}


def _rows_of(batch: Any) -> int:
    return next((int(v.shape[0]) for v in batch.values() if isinstance(v, Tensor) and v.dim()), 1)


def predicted(outputs: Any) -> Any:
    """The logits among a model's outputs; for a model that names none, all its tensors but the loss."""
    if isinstance(outputs, tuple):
        rest = [v for v in outputs if isinstance(v, Tensor) and v.dim()]
        return rest[0] if len(rest) == 1 else tuple(rest)
    names = [k for k in outputs if k.endswith("logits")]
    names = names or [k for k in outputs if k != "loss" and isinstance(outputs[k], Tensor)]
    values = tuple(outputs[k] for k in names)
    return values[0] if len(values) == 1 else values


def _array(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_array(v) for v in value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return value


def _stacked(parts: list[Any]) -> Any:
    """Arrays of batches as one; -100 fills up batches that are shorter than the longest."""
    if not parts or parts[0] is None:
        return None
    if isinstance(parts[0], tuple):
        return tuple(_stacked([p[i] for p in parts]) for i in range(len(parts[0])))
    if parts[0].ndim < 2 or len({p.shape[1:] for p in parts}) == 1:
        return np.concatenate(parts)
    longest = max(p.shape[1] for p in parts)
    whole = np.full((sum(len(p) for p in parts), longest, *parts[0].shape[2:]), -100, dtype=parts[0].dtype)
    row = 0
    for part in parts:
        whole[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return whole


class Evaluating:
    """The part of `Trainer` that asks the model about rows. With several processes all of them must call it."""

    args: TrainingArguments
    model: Any
    ranks: ProcessGroup
    device: torch.device
    label_names: list[str]
    eval_dataset: Any
    data_collator: Any
    compute_metrics: Callable[..., dict[str, Any]] | None
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None

    if TYPE_CHECKING:
        _open: Callable[[Any], Rows | Stream]
        _objective: Callable[[], Objective]
        precision: Callable[[], AbstractContextManager[Any]]
        sums: Callable[..., tuple[LabelCounts, dict[str, Tensor], Any]]
        log: Callable[[dict[str, Any]], None]
        tell: Callable[..., None]

        @property
        def _own_loss(self) -> bool: ...

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

    def without_labels(self, batch: dict[str, Any]) -> Any:
        """What the model says about rows without labels."""
        return self.model(**batch)

    def _pass(self, data: Any, prefix: str, keep: bool) -> tuple[Pass, dict[str, float]]:
        args = self.args
        batches = Batches(
            self._open(data), self.data_collator, args.per_device_eval_batch_size, args.seed, shuffle=False,
            workers=args.dataloader_num_workers,
        )  # fmt: skip
        began = time.perf_counter()
        before = rng.capture()
        keep = keep and not args.prediction_loss_only
        streams = args.batch_eval_metrics and self.compute_metrics is not None
        objective = self._objective()
        # a loss of the user's, or upstream's, may depend on the batch; and ranks must stay in step
        whole = not keep or self._own_loss or objective.match_upstream or (self.ranks.size > 1 and streams)
        try:
            with self.precision():
                found = run_pass(
                    self.model,
                    batches.turns(_EVALUATION, self.ranks),
                    objective,
                    self.sums,
                    self.label_names,
                    self.device,
                    self.ranks,
                    keep=keep,
                    each=self.compute_metrics if keep and streams else None,
                    shrink=self.preprocess_logits_for_metrics,
                    cut=lambda batch: [batch] if whole or self.ranks.sharded else cut_by_logits(self.model, batch),
                    answer=self.without_labels,
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
            rng.restore(before)  # evaluating more or less often changes no training
        seconds = max(time.perf_counter() - began, 1e-9)
        metrics[f"{prefix}_runtime"] = seconds
        metrics[f"{prefix}_samples_per_second"] = found.rows / seconds
        metrics[f"{prefix}_steps_per_second"] = found.batches / seconds
        return found, self.ranks.broadcast(metrics)  # what follows from them must be the same everywhere

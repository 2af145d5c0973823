"""One pass over a data set: the loss, and what the model said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cutaway.train.batches import moved
from cutaway.train.objective import Objective, Sizes, added, joined


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
    batches: Iterator[Any],
    objective: Objective,
    sums_of: Callable[..., tuple[Sizes, dict[str, Tensor], Any]],
    label_names: list[str],
    device: torch.device,
    *,
    keep: bool,
    each: Callable[..., dict[str, Any]] | None = None,
    shrink: Callable[[Any, Any], Any] | None = None,
    after: Callable[[], None] = lambda: None,
) -> Pass:
    """Run the model, without dropout and gradients, over batches.

    The loss is the mean over all labelled places of all batches (upstream takes the mean over rows of their batches'
    means; so does `match_upstream`).

    Args:
        sums_of: the sizes, the sums of losses and the output of a batch with labels, `shown` with its logits.
        keep: whether predictions and labels are kept, as NumPy arrays; otherwise memory does not grow with the data.
        each: a metric that is given them batch by batch instead, with compute_result=True at the last.
        shrink: (logits, labels) -> what to keep of the logits.
        after: called after each batch.
    """
    training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    sizes: list[Sizes] = []
    said: list[Any] = []
    labels: list[Any] = []
    rows = n = 0
    measured: dict[str, Any] | None = None
    try:
        with torch.no_grad():
            for batch, last in _ahead(batches):
                own = objective.sizes(batch)
                batch = moved(batch, device)
                given = [batch[name] for name in label_names if name in batch]
                if given:
                    own, found, outputs = sums_of(objective, batch, own, shown=keep)
                    if objective.match_upstream:
                        own, found = _by_rows(batch, found, own)
                    for name, value in found.items():
                        sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=device)) + value
                    sizes.append(own)
                else:
                    outputs = model(**batch)
                if keep:
                    logits = predicted(outputs)
                    truth = None if not given else given[0] if len(given) == 1 else tuple(given)
                    answer = _array(logits if shrink is None else shrink(logits, truth))
                    if each is not None:
                        measured = each(EvalPrediction(answer, _array(truth)), compute_result=last)
                    else:
                        said.append(answer)
                        labels.append(_array(truth))
                rows += _rows_of(batch)
                n += 1
                after()
    finally:
        model.train(training)
    loss = float(joined(sums, added(sizes))) if sums and any(added(sizes).values()) else None
    return Pass(loss, _stacked(said), _stacked(labels), rows, n, measured)


def _ahead(batches: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """(batch, whether it is the last)."""
    for batch in batches:
        for following in batches:
            yield batch, False
            batch = following
        yield batch, True


def _by_rows(batch: Any, found: dict[str, Tensor], own: Sizes) -> tuple[Sizes, dict[str, Tensor]]:
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

"""One pass over a data set: the loss, and what the model said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.models.lm_heads import OutputHead
from cutaway.train.batches import RankBatch
from cutaway.train.distributed import ProcessGroup
from cutaway.train.objective import LabelCounts, added, joined

EVALUATION = -3  # where training has the number of the epoch
_LOGITS = 2**25  # numbers of a vocabulary's logits that are there at once: 128 MB in float32


class EvalPrediction:
    """What compute_metrics gets: the logits of all rows (a tuple where the model has several), and their labels.

    It unpacks into the two, and into `inputs` and `losses` where include_for_metrics asks for them.
    """

    def __init__(self, predictions: Any, label_ids: Any, inputs: Any = None, losses: Any = None) -> None:
        self.predictions, self.label_ids, self.inputs, self.losses = predictions, label_ids, inputs, losses
        more = [one for one in (inputs, losses) if one is not None]
        self.elements = (predictions, label_ids, *more)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.elements)

    def __getitem__(self, place: int) -> Any:
        return self.elements[place]

    def __len__(self) -> int:
        return len(self.elements)


class PredictionOutput(NamedTuple):
    """What `Trainer.predict` gives."""

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]


class EvalLoopOutput(NamedTuple):
    """What `Trainer.evaluation_loop` gives."""

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]
    num_samples: int


class Answer(NamedTuple):
    """What the model said of one batch.

    Attributes:
        sizes, sums: how much is labelled, and the sums of losses over it; sums is None where the batch has no labels.
        logits, labels: None unless they are kept.
    """

    sizes: LabelCounts
    sums: dict[str, Tensor] | None
    logits: Any = None
    labels: Any = None


@dataclass
class Pass:
    """What a pass found; loss is None where rows have no labels, the arrays are None unless they were wanted.

    `measured`: what a metric that follows batch by batch said after the last.
    """

    loss: float | None
    predictions: Any
    label_ids: Any
    rows: int
    measured: dict[str, Any] | None = None
    inputs: Any = None
    losses: Any = None


def run_pass(
    turns: Iterator[RankBatch],
    answers: Callable[[Any], Answer],
    ranks: ProcessGroup,
    *,
    keep: bool,
    by_rows: bool = False,
    finite: bool = True,
    each: Callable[..., dict[str, Any]] | None = None,
    cut: Callable[[Any], list[Any]] = lambda batch: [batch],
    after: Callable[[], object] = lambda: None,
    include: tuple[str, ...] = (),
    join: bool = True,
    hold: bool = False,
) -> Pass:
    """Ask for an answer to each batch; each rank its own, and every rank is told of all.

    The loss is the mean over all labelled places of all batches.

    Args:
        answers: a batch -> what the model says of it, without dropout and gradients.
        keep: whether predictions and labels are kept, as NumPy arrays; otherwise memory does not grow with the data.
        by_rows: the mean over rows of their batches' means instead, as the upstream library takes it.
        finite: batches whose loss is no number are left out of the mean, unless all are such.
        each: a metric that is given the answers batch by batch as tensors, with compute_result=True at the last.
        cut: a batch -> parts of it, which are computed one after another.
        after: called after each batch.
        include: what else is kept for metrics: "inputs" and "loss".
        join: whether the batches' arrays are made one; otherwise they are lists.
        hold: whether predictions are kept beside `each` too.
    """
    losses: list[tuple[LabelCounts, dict[str, Tensor]]] = []
    said: list[EvalPrediction] = []
    rows = 0
    measured: dict[str, Any] | None = None
    for turn, ends, last in _in_parts(turns, cut):
        if not turn.mine and not ranks.sharded and each is None:
            continue  # nobody waits for this one
        n = _rows_of(turn.batch)
        answer = answers(turn.batch)
        own, sums = answer.sizes, answer.sums
        if sums is not None and by_rows:
            own, sums = {"places": float(n)}, {"places": joined(sums, own) * float(n)}
        if sums is not None and turn.mine:
            losses.append((own, {name: value.detach() for name, value in sums.items()}))
        if keep:
            more: dict[str, Any] = {}
            if "inputs" in include and isinstance(turn.batch, Mapping):
                more["inputs"] = _array(turn.batch.get("input_ids"))
            if "loss" in include and sums is not None:
                more["losses"] = np.full(n, float(joined(sums, own)), dtype=np.float32)
            told = EvalPrediction(_array(answer.logits), _array(answer.labels), **more)
            if each is not None:
                for i, one in enumerate(ranks.gather(told)[: turn.held]):
                    measured = each(_as_tensors(one), compute_result=last and i == turn.held - 1)
            if turn.mine and (each is None or hold):
                said.append(told)
            del told
        del answer  # not held on to while the next batch is computed
        if turn.mine:
            rows += n
            if ends:
                after()
    every = ranks.gather((rows, *_summed(losses, finite)))
    whole = added([one[2] for one in every])
    loss = joined(added([one[1] for one in every]), whole) if any(whole.values()) else None
    if loss is None and any(one[3] for one in every):
        loss = float("nan")
    parts = _in_turn(ranks.gather(said))
    pack = _stacked if join else list
    arrays = [pack([getattr(p, name) for p in parts]) for name in ("predictions", "label_ids", "inputs", "losses")]
    arrays = [None if isinstance(a, list) and (not a or a[0] is None) else a for a in arrays]
    return Pass(loss, arrays[0], arrays[1], sum(one[0] for one in every), measured, arrays[2], arrays[3])


def _summed(
    losses: list[tuple[LabelCounts, dict[str, Tensor]]], finite: bool
) -> tuple[dict[str, float], LabelCounts, bool]:
    """(the sums of losses, the sizes, whether a loss was left out because it is no number)."""
    names = dict.fromkeys(name for _, sums in losses for name in sums)
    values = {name: [float(sums[name].double()) if name in sums else 0.0 for _, sums in losses] for name in names}
    good = [all(np.isfinite(values[name][i]) for name in names) for i in range(len(losses))]
    if not finite:
        good = [True] * len(losses)
    kept = {name: sum(v for v, fine in zip(values[name], good, strict=True) if fine) for name in names}
    return kept, added([own for (own, _), fine in zip(losses, good, strict=True) if fine]), not all(good)


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


def cut_by_logits(model: nn.Module, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a batch in parts whose logits over a vocabulary take little room; anything else is left whole."""
    if not isinstance(model, OutputHead) or not model.own_forward:
        return [batch]
    texts = next((batch[k] for k in ("labels", "decoder_input_ids", "input_ids") if k in batch), None)
    rows = _rows_of(batch)
    if texts is None or any(not isinstance(v, Tensor) or v.dim() == 0 or len(v) != rows for v in batch.values()):
        return [batch]
    numbers = texts[0].numel() * len(model.get_output_embeddings().weight)  # type: ignore[arg-type]
    size = max(1, _LOGITS // max(1, numbers))
    return [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, rows, size)]


def _rows_of(batch: Mapping[str, object]) -> int:
    return next((int(v.shape[0]) for v in batch.values() if isinstance(v, Tensor) and v.dim()), 1)


def predicted(outputs: Any, ignore: Sequence[str] | None = None) -> Any:
    """The logits among a model's outputs; for a model that names none, all its tensors but the loss.

    Args:
        ignore: names of outputs that are left out.
    """
    if isinstance(outputs, tuple):
        rest = [v for v in outputs if isinstance(v, Tensor) and v.dim()]
        return rest[0] if len(rest) == 1 else tuple(rest)
    shown = [k for k in outputs if k not in (ignore or ())]
    names = [k for k in shown if k.endswith("logits")]
    names = names or [k for k in shown if k != "loss" and isinstance(outputs[k], Tensor)]
    values = tuple(outputs[k] for k in names)
    return values[0] if len(values) == 1 else values


def _array(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_array(v) for v in value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return value


def _as_tensors(one: EvalPrediction) -> EvalPrediction:
    """A batch's arrays as tensors, which is what upstream gives a metric that follows batch by batch."""

    def tensor(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(tensor(v) for v in value)
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return EvalPrediction(tensor(one.predictions), tensor(one.label_ids), tensor(one.inputs), tensor(one.losses))


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

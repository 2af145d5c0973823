"""The losses that `labels=` asks for. -100 marks places without a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import InputError

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

IGNORED = -100


def _check(labels: object, name: str = "labels", *, whole: bool = True) -> None:
    """InputError unless labels are a tensor, of whole numbers where they name classes."""
    if not isinstance(labels, Tensor):
        raise InputError(f"{name} must be a tensor, not {type(labels).__name__}; use torch.tensor({name}).")
    if whole and (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
        raise InputError(f"{name} must be whole numbers, one class each; their dtype is {labels.dtype}.")


def _classes(logits: Tensor, labels: Tensor, name: str = "labels") -> Tensor:
    """labels as int64, checked against the number of classes."""
    n = logits.shape[-1]
    labels = labels.to(logits.device).long()
    if labels.device.type == "cpu" and labels.numel():
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= n))]
        if wrong.numel():
            raise InputError(f"{name} holds {int(wrong[0])}, but there are {n} classes (0..{n - 1}); set num_labels=.")
    return labels


def cross_entropy(logits: Tensor, labels: Tensor, name: str = "labels") -> Tensor:
    """Mean of -log p(label) over labelled places; logits [..., classes], labels [...]."""
    _check(labels, name)
    if logits.shape[:-1] != labels.shape:
        raise InputError(f"{name} has shape {list(labels.shape)}, but it must be {list(logits.shape[:-1])}.")
    labels = _classes(logits, labels, name)
    return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED)


def by_place(labels: Tensor, logits: Tensor) -> Tensor:
    """labels [batch, length], where a script has laid the rows of a batch end to end, [batch * length]."""
    _check(labels)
    places = logits.shape[:-1]
    return labels.view(places) if labels.dim() == 1 and labels.numel() == places.numel() else labels


def summed(mean: Tensor | None, labels: Tensor) -> Tensor:
    """The sum of a loss over labelled places, from its mean; 0 where there is none."""
    assert mean is not None
    n = int((labels != IGNORED).sum())
    return mean * n if n else torch.zeros_like(mean)


def labelled(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(states [n, hidden], labels [n]) of the places that have one; states [batch, length, hidden]."""
    _check(labels)
    if states.shape[:-1] != labels.shape:
        raise InputError(f"labels has shape {list(labels.shape)}, but it must be {list(states.shape[:-1])}.")
    here = labels != IGNORED
    return states[here], labels[here]


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log p(token | tokens before); logits [batch, length, vocabulary], labels [batch, length]."""
    _check(labels)
    if logits.shape[:-1] != labels.shape:
        raise InputError(f"labels has shape {list(labels.shape)}, but it must be {list(logits.shape[:-1])}.")
    return cross_entropy(logits[:, :-1], labels[:, 1:])


def classification(logits: Tensor, labels: Tensor, config: PretrainedConfig, *, shares: bool = False) -> Tensor:
    """By config.problem_type; where it is not set: one output is a regression, whole-number labels name one class each,
    other labels are several at once, or with `shares` how much of each class is right.
    """
    _check(labels, whole=False)
    kind = config.problem_type
    if kind is None:
        is_integer = labels.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        kind = "regression" if logits.shape[-1] == 1 else "single_label_classification" if is_integer else None
        kind = kind or "multi_label_classification"
    if kind == "regression":
        if logits.numel() != labels.numel():
            raise InputError(f"labels has shape {list(labels.shape)}, but a regression needs {list(logits.shape)}.")
        return F.mse_loss(logits.flatten().float(), labels.to(logits.device).flatten().float())
    if kind == "single_label_classification":
        if logits.shape[-1] == 1:  # the softmax of one number is 1: the loss would be 0 whatever the model says
            raise InputError(
                'problem_type is "single_label_classification" with one label, which is nothing to choose from; set it '
                'to "regression" or "multi_label_classification" (labels 0.0 or 1.0), or num_labels to 2 or more.'
            )
        labels = labels.flatten()
        return cross_entropy(logits, labels)
    if labels.shape != logits.shape:
        raise InputError(
            f"labels has shape {list(labels.shape)}, but several labels at once need {list(logits.shape)}."
        )
    labels = labels.to(logits.device).float()
    if shares and config.problem_type is None:
        return F.cross_entropy(logits.float(), labels)
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def yes_or_no(logits: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of -log p(label) over the real tokens of `mask`; logits, labels and mask [batch, length], labels 0 or 1."""
    _check(labels, whole=False)
    if labels.shape != logits.shape:
        raise InputError(f"labels has shape {list(labels.shape)}, but it must be {list(logits.shape)}.")
    labels = labels.to(logits.device).float()
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise InputError("labels must be 0 or 1 for every token, also for padding.")
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
    return loss.mean() if mask is None else loss[mask].mean()


def span(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the two cross-entropies; positions outside the text carry no loss (Devlin et al., 2019, section 4.2).

    The answer is looked for among the real tokens of `mask` [batch, length]: padding changes no loss. (Upstream lets
    padding take part, so there a text's loss depends on the batch it is in.)
    """
    length = start_logits.shape[1]
    losses = []
    for name, logits, places in (
        ("start_positions", start_logits, starts),
        ("end_positions", end_logits, ends),
    ):
        _check(places, name)
        if places.numel() != logits.shape[0]:
            raise InputError(f"{name} has shape {list(places.shape)}, but it must be [{logits.shape[0]}].")
        places = places.to(logits.device).long().flatten().clamp(0, length)
        logits = logits.float()
        if mask is not None:
            real = F.pad(mask, (0, 1))  # [batch, length + 1]
            places = places.where(real.gather(1, places[:, None])[:, 0], length)
            logits = logits.masked_fill(~mask, -torch.inf)
        losses.append(F.cross_entropy(logits, places, ignore_index=length))
    return (losses[0] + losses[1]) / 2

"""What is minimized: the mean loss over everything that is labelled in the whole accumulated batch.

A batch may be computed in parts of any sizes. The loss of the whole is (sum of losses over all labelled places) /
(number of them); the part's share of it needs only the number, which the labels tell before anything is computed. So
the parts of 16 = 2 x 8 = 6 + 6 + 4 rows add up to the same loss and the same gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.models.label_heads import (
    MultipleChoice,
    QuestionAnswering,
    ReplacedTokens,
    SequenceClassification,
    TokenClassification,
)
from cutaway.models.lm_heads import CausalLM, loss_only
from cutaway.models.seq2seq_heads import Seq2SeqClassification, Seq2SeqLM, Seq2SeqQuestionAnswering
from cutaway.nn.call_context import hidden_words_computed
from cutaway.nn.decoder_inputs import decoder_reads
from cutaway.nn.losses import IGNORED
from cutaway.train.distributed import ProcessGroup, bare

Kind = Literal["text", "places", "next", "target", "span", "replaced", "unknown"]
LabelCounts = dict[str, float]
Number = TypeVar("Number", Tensor, float)


def kind_of(model: nn.Module) -> Kind:
    """What the labels of a model stand for: a text, places, the next token, a target text, a span, every real token.

    "unknown" for a model that is not built from cutaway's heads: its loss is taken to be a mean over its labels.
    """
    if isinstance(model, (SequenceClassification, Seq2SeqClassification)):
        return "text"
    if isinstance(model, (QuestionAnswering, Seq2SeqQuestionAnswering)):
        return "span"
    if isinstance(model, ReplacedTokens):
        return "replaced"
    if isinstance(model, CausalLM):
        return "next"
    if isinstance(model, Seq2SeqLM):
        return "target"
    if isinstance(model, (TokenClassification, MultipleChoice)) or type(model).__name__.endswith("ForMaskedLM"):
        return "places"
    return "unknown"


class Objective:
    """The loss of a model, in shares.

    Args:
        model: with or without one of cutaway's heads.
        smoothing: how much of each label is spread over all classes (Szegedy et al., 2016, section 7).
        weights: [classes], what a label of each class counts; the mean is weighted by them, over the whole batch.
        match_upstream: add up the parts as the upstream library does, and look for answers in padding (see
            `TrainingArguments`).
    """

    def __init__(
        self, model: nn.Module, smoothing: float = 0.0, weights: Tensor | None = None, match_upstream: bool = False
    ) -> None:
        self.kind = kind_of(model)
        # upstream shifts these models' labels, but counts the first one of each text too
        self.counts_first = match_upstream and type(model).__name__.endswith("LMHeadModel")
        self.smoothing, self.weights, self.match_upstream = smoothing, weights, match_upstream
        self.config = getattr(model, "config", None)
        self.own = bool(smoothing) or weights is not None
        if self.own and (self.kind in ("span", "replaced", "unknown") or self._problem(None) in _NUMBERS):
            what = "label_smoothing_factor" if smoothing else "class_weights"
            raise ConfigError(f"{what} needs a model with one label for each text or place; {type(model).__name__} "
                              "has none: leave it out, or override Trainer.compute_loss.")  # fmt: skip

    def _problem(self, labels: Tensor | None) -> str | None:
        """The kind of classification, as cutaway.nn.losses tells it."""
        if self.kind != "text":
            return None
        given = getattr(self.config, "problem_type", None)
        if given is not None:
            return str(given)
        if getattr(self.config, "num_labels", 2) == 1:
            return "regression"
        if labels is not None and labels.is_floating_point():
            return "multi_label_classification"
        return "single_label_classification" if labels is not None else None

    def note_problem(self, batch: object) -> None:
        """Write the kind of classification that these labels make it into the model's config, where it is not told.

        Otherwise whoever loads the saved model would have to guess, and a pipeline would squash a regression.
        """
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        known = getattr(self.config, "problem_type", None)
        if self.kind == "text" and labels is not None and self.config is not None and known is None:
            self.config.problem_type = self._problem(labels)

    # -- how much is labelled ------------------------------------------------------------------------------------------

    def sizes(self, batch: object) -> LabelCounts:
        """How many labelled places a batch holds, for each of the means that the loss is made of."""
        if not isinstance(batch, Mapping):  # for a training_step or a prediction_step of one's own
            return {"places": 1.0}
        if self.kind == "span" and "start_positions" in batch:
            starts, ends = span_targets(batch, in_padding=self.match_upstream)
            return {"start": float((starts != IGNORED).sum()), "end": float((ends != IGNORED).sum())}
        labels = batch.get("labels")
        if not isinstance(labels, Tensor):
            rows = next((v.shape[0] for v in batch.values() if isinstance(v, Tensor) and v.dim()), 1)
            return {"places": float(rows)}
        if self.kind == "replaced":  # every real token, whatever stands at padding
            mask = batch.get("attention_mask")
            return {"places": float(labels.numel() if mask is None else (mask != 0).sum())}
        if labels.is_floating_point() or self._problem(labels) in _NUMBERS:
            return {"places": float(labels.numel())}
        if self.counts_first:
            places, all_places = labels[:, 1:] != IGNORED, labels != IGNORED
            return {"places": float(places.sum()), "upstream": float(all_places.sum())}
        labels = labels[:, 1:] if self.kind == "next" else labels
        labelled = labels[labels != IGNORED]
        if self.weights is not None:
            return {"places": float(self.weights.to(labels.device)[self._checked(labelled)].sum(dtype=torch.float64))}
        return {"places": float(labelled.numel())}

    def _checked(self, labels: Tensor) -> Tensor:
        n = 0 if self.weights is None else len(self.weights)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < n:
            raise InputError(f"labels hold {int(labels.max())}, but class_weights has {n} values; give one per class.")
        return labels

    # -- sums and shares -----------------------------------------------------------------------------------------------

    def loss_share(
        self, model: nn.Module, batch: Mapping[str, Any], own: LabelCounts, whole: LabelCounts, parts: int = 1
    ) -> Tensor:
        """This part's share of the loss of the whole; the shares of all parts add up to the loss.

        Args:
            batch: the model's input with labels.
            own: the sizes of this part. whole: those of all parts, added up.
            parts: how many there are; only match_upstream asks.

        Raises:
            InputError: the batch has no labels that the model's loss could be computed from.
        """
        if self.match_upstream and self.kind == "span":
            with hidden_words_computed():
                return self._mean(batch, self._run(model, batch, shown=False), own) / parts
        if self.match_upstream and self.kind != "next":
            mean = self._mean(batch, self._run(model, batch, shown=False), own)
            return mean
        if self.counts_first:
            whole = {"places": whole["upstream"]}
        return joined(self.sums(model, batch, own, shown=False)[0], whole)

    def sums(
        self, model: nn.Module, batch: Mapping[str, Any], own: LabelCounts, *, shown: bool = True
    ) -> tuple[dict[str, Tensor], Any]:
        """(the sum of losses over the labelled places, for each mean that the loss is made of; the model's output).

        Unless it is to be `shown`, the output has no logits where the loss does not need them.
        """
        if "start" in own:
            return self._span(model, batch)
        outputs = self._run(model, batch, shown=shown)
        places = own["places"]
        if not places and "logits" not in outputs:
            return {"places": outputs.loss}, outputs  # 0, and part of the graph
        if not places:  # the mean over nothing is no number
            return {"places": _logits(outputs).sum() * 0.0}, outputs
        if self.own:
            return {"places": self._sum(batch, outputs)}, outputs
        return {"places": self._mean(batch, outputs, own) * places}, outputs

    def _run(self, model: nn.Module, batch: Mapping[str, Any], *, shown: bool) -> Any:
        given = dict(batch)
        if not shown and not self.own:
            given |= loss_only(bare(model))
        if self.own:  # the loss is computed here, so the model need not
            labels = given.pop("labels", None)
            if self.kind == "target" and labels is not None and "decoder_input_ids" not in given:
                given["decoder_input_ids"] = decoder_reads(bare(model), labels)
        return model(**given)

    def _mean(self, batch: Mapping[str, Any], outputs: Any, own: LabelCounts) -> Tensor:
        if self.own:
            return self._sum(batch, outputs) / own["places"]
        loss = outputs[0] if isinstance(outputs, tuple) else outputs.get("loss") if hasattr(outputs, "get") else None
        loss = loss if loss is not None else getattr(outputs, "loss", None)
        if not isinstance(loss, Tensor):
            raise InputError(
                f"the model gave no loss for a batch with {sorted(batch)}; it needs a column 'labels' (or 'label')."
            )
        return loss.mean()

    def _sum(self, batch: Mapping[str, Any], outputs: Mapping[str, Tensor]) -> Tensor:
        """The sum of weighted, smoothed -log p(label) over labelled places."""
        labels, logits = batch.get("labels"), _logits(outputs)
        if labels is None or self._problem(labels) in _NUMBERS:
            raise InputError("label smoothing and class weights need 'labels' of one class each in every batch.")
        if self.kind == "next":
            logits, labels = logits[:, :-1], labels[:, 1:]
        weights = None if self.weights is None else self.weights.to(logits.device, torch.float32)
        return F.cross_entropy(
            logits.flatten(0, -2).float(),  # [places, classes]
            labels.flatten().long(),
            weight=weights,
            ignore_index=IGNORED,
            label_smoothing=self.smoothing,
            reduction="sum",
        )

    def _span(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
        """Beginnings and ends are two means, each over the texts that hold theirs."""
        given = {k: v for k, v in batch.items() if k not in ("start_positions", "end_positions")}
        with hidden_words_computed() if self.match_upstream else nullcontext():
            outputs = model(**given)
        sums: dict[str, Tensor] = {}
        mask = None if self.match_upstream else batch.get("attention_mask")
        for name, places in zip(("start", "end"), span_targets(batch, in_padding=self.match_upstream), strict=True):
            logits = outputs[f"{name}_logits"].float()
            here = places != IGNORED
            if not bool(here.any()):
                sums[name] = logits.sum() * 0.0
                continue
            if mask is not None:
                logits = logits.masked_fill(mask == 0, -torch.inf)
            sums[name] = F.cross_entropy(logits[here], places[here], reduction="sum")
        return sums, outputs


_PART = {"places": 1.0, "start": 0.5, "end": 0.5}  # what each mean counts in the loss
_NUMBERS = ("regression", "multi_label_classification")


def span_targets(batch: Mapping[str, Any], *, in_padding: bool = False) -> tuple[Tensor, Tensor]:
    """start and end [batch]; -100 where the answer does not lie in the text, which then carries no loss.

    in_padding: an answer may lie in the padding, as upstream takes it.
    """
    ids = batch.get("input_ids", batch.get("inputs_embeds"))
    if ids is None or "end_positions" not in batch:
        raise InputError("a batch with start_positions also needs end_positions, and input_ids.")
    length, mask = ids.shape[1], batch.get("attention_mask")
    found = []
    for name in ("start_positions", "end_positions"):
        places = batch[name].flatten()
        real = (places >= 0) & (places < length)
        if mask is not None and not in_padding:
            real &= mask.gather(1, places.clamp(0, length - 1)[:, None])[:, 0] != 0  # [batch]
        found.append(places.where(real, IGNORED))
    return found[0], found[1]


def _logits(outputs: Mapping[str, Tensor]) -> Tensor:
    for name in ("logits", "start_logits"):
        if name in outputs:
            return outputs[name]
    raise InputError(f"the model's output has no logits; it has {sorted(outputs)}. Override Trainer.compute_loss.")


def joined(sums: Mapping[str, Number], sizes: LabelCounts) -> Number:
    """The loss, or a share of it: each sum over its size."""
    found = [sums[name] * (_PART[name] / sizes[name]) for name in sums if sizes[name]]
    return sum(found[1:], found[0]) if found else next(iter(sums.values())) * 0.0


def total(sizes: LabelCounts) -> float:
    """How many labelled places there are, in all means together."""
    return sum(n for name, n in sizes.items() if name in _PART)


def added(sizes: Sequence[LabelCounts]) -> LabelCounts:
    """Sizes of parts -> sizes of the whole."""
    names = dict.fromkeys(name for one in sizes for name in one)
    return {name: sum(one.get(name, 0.0) for one in sizes) for name in names}


def summed(sizes: LabelCounts, ranks: ProcessGroup) -> LabelCounts:
    """Sizes of what one rank holds -> sizes of what all hold."""
    if ranks.size == 1:
        return sizes
    names = (*_PART, "upstream")
    found = zip(names, ranks.sum([sizes.get(name, 0.0) for name in names]), strict=True)
    return {name: n for name, n in found if n or name in sizes}


def balanced(labels: Sequence[int], classes: int) -> Tensor:
    """[classes]: n / (classes * n of the class), so that each class counts alike (King and Zeng, 2001); 0 for none."""
    counts = torch.bincount(torch.as_tensor(labels, dtype=torch.int64), minlength=classes).float()
    return torch.where(counts > 0, counts.sum() / (classes * counts.clamp(min=1)), 0.0)

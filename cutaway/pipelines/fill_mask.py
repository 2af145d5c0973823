"""Which words belong in the gaps of a text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from cutaway.errors import InputError
from cutaway.pipelines.base import Pipeline, text_only
from cutaway.pipelines.plan import Row

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel

logger = logging.getLogger("cutaway")


@dataclass(frozen=True)
class Fill:
    """One word for one gap: its probability, its token, and the text with it."""

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True)
class Filled:
    """masks: for each gap, in order, its words, best first. cut: how many tokens of the text were left out."""

    masks: tuple[tuple[Fill, ...], ...]
    cut: int = 0


class FillMaskPipeline(Pipeline):
    """The `top_k` (5) likeliest tokens of each mask token, or of `targets` only.

    Shapes are upstream's: a text with one mask gives a list of dicts, one with several a list for each mask; a list of
    texts gives a list of these, and a list of one text what the text alone gives.

    Probabilities are of each gap by itself, over the whole vocabulary, also with `targets`.
    """

    model: GenerativeModel

    settings: ClassVar[dict[str, Any]] = {"top_k": 5, "targets": None, "tokenizer_kwargs": None, "long": None}

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        if self.tokenizer.mask_token_id is None:
            raise InputError("fill-mask needs a mask token, and this model's tokenizer has none. Use another model.")
        top_k = 5 if settings["top_k"] is None else settings["top_k"]
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise InputError(f"top_k={top_k!r} must be a whole number from 1 up.")
        targets = settings["targets"]
        ids = None if targets is None else self._target_ids([targets] if isinstance(targets, str) else targets)
        return {**settings, **(settings["tokenizer_kwargs"] or {}), "top_k": top_k, "targets": ids}

    def _target_ids(self, targets: Sequence[str]) -> list[int]:
        vocabulary = self.tokenizer.get_vocab()
        found: dict[int, None] = {}
        for target in targets:
            index = vocabulary.get(target)
            if index is None:
                ids = self.tokenizer(target, add_special_tokens=False)["input_ids"]
                if not ids:
                    logger.warning(
                        "The target %r is no token of this model and has none in it; it is left out.", target
                    )
                    continue
                index = ids[0]
                token = self.tokenizer.convert_ids_to_tokens(index)
                logger.warning("The target %r is no token of this model; its first token, %r, is used.", target, token)
            found[index] = None
        if not found:
            raise InputError("targets= holds no token of this model. Pass at least one, or leave targets out.")
        return list(found)

    def check(self, item: object) -> str:
        return text_only(self.task, item)

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        rows = self.fitted(items, settings)
        for text, own in zip(items, rows, strict=True):
            if self.tokenizer.mask_token_id not in own[0].inputs["input_ids"]:
                cut = f" ({own[0].cut} tokens were cut)" if own[0].cut else ""
                raise InputError(
                    f"The text {text[:60]!r}{cut} has no gap. Write {self.tokenizer.mask_token} where a word is wanted."
                )
        return rows

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """For each row (scores, tokens), both [masks, top_k]. Only the gaps go through the output matrix."""
        batch = self.batch(rows)
        gap = self.tokenizer.mask_token_id
        assert gap is not None  # `encode` found one in each text
        row, place = torch.nonzero(batch["input_ids"].eq(gap), as_tuple=True)  # [masks] each
        hidden = self.model.base(**batch).last_hidden_state[row, place]  # [masks, hidden]
        scores = self.model.logits(hidden).float().softmax(-1)  # [masks, vocabulary]
        ids = settings["targets"]
        if ids is not None:
            scores = scores[:, ids]
        best = scores.topk(min(settings["top_k"], scores.shape[1]))
        tokens = best.indices if ids is None else torch.tensor(ids, device=scores.device)[best.indices]
        counts = torch.bincount(row, minlength=len(rows)).tolist()
        return list(zip(best.values.split(counts), tokens.split(counts), strict=True))

    def finish(self, item: str, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> Filled:
        ids = rows[0].inputs["input_ids"]
        places = [i for i, index in enumerate(ids) if index == self.tokenizer.mask_token_id]
        masks = []
        for place, scores, tokens in zip(places, *(part.tolist() for part in outputs[0]), strict=True):
            fills = []
            for score, token in zip(scores, tokens, strict=True):
                whole = [*ids[:place], token, *ids[place + 1 :]]
                whole = [index for index in whole if index != self.tokenizer.pad_token_id]
                # the other gaps of a text with several stay to be seen
                text = self.tokenizer.decode(whole, skip_special_tokens=len(places) == 1)
                fills.append(Fill(score, token, self.tokenizer.decode([token]), text))
            masks.append(tuple(fills))
        return Filled(tuple(masks), rows[0].cut)

    def shaped(self, result: Filled, settings: Mapping[str, Any]) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        masks = [[dict(vars(fill)) for fill in mask] for mask in result.masks]
        return masks[0] if len(masks) == 1 else masks

    def several(self, answers: list[Any], settings: Mapping[str, Any]) -> object:
        return answers[0] if len(answers) == 1 else answers

"""How well a language model foresees a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from cutaway.errors import InputError
from cutaway.generate.logprobs import token_logits
from cutaway.generate.search import reads_both_ways
from cutaway.pipelines.base import Pipeline, text_only
from cutaway.pipelines.plan import Row

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel, LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike


@dataclass(frozen=True)
class Perplexity:
    """loss: the mean negative log-likelihood of `tokens` tokens, in nats. perplexity: its exponential.

    cut: how many tokens of the text were left out.
    """

    perplexity: float
    loss: float
    tokens: int
    cut: int = 0


class PerplexityPipeline(Pipeline):
    """A text gives {"perplexity", "loss", "tokens"}: each token but the first, given those before it.

    `long="window"` reads a text of any length in windows that share `overlap` tokens: each token counts once, with at
    least that many before it.
    """

    model: GenerativeModel

    settings: ClassVar[dict[str, Any]] = {"long": None, "overlap": None}
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate", "window")

    def __init__(self, model: LanguageModel, tokenizer: TokenizerLike, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        if not self.model.can_generate() or self.model.is_encoder_decoder:
            raise InputError(
                f"perplexity needs a causal language model, and {type(self.model).__name__} is none. Load one with "
                "AutoModelForCausalLM."
            )

        if reads_both_ways(self.model):
            raise InputError(
                f"perplexity is of models that read a text from its first word to its last, and "
                f"{type(self.model).__name__} reads it both ways: each token would be foreseen from itself. Load a "
                "causal language model, for example gpt2 or llama."
            )

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        overlap = settings["overlap"]
        if overlap is not None and (not isinstance(overlap, int) or isinstance(overlap, bool) or overlap < 1):
            raise InputError(f"overlap={overlap!r} must be a whole number from 1 up: a token is foreseen from others.")
        return settings

    def check(self, item: object) -> str:
        return text_only(self.task, item)

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        found = self.fitted(items, settings)
        for text, rows in zip(items, found, strict=True):
            if sum(row.length for row in rows) < 2:
                raise InputError(f"The text {text!r:.40} has fewer than two tokens, so there is none to foresee.")
            before = 0
            for row in rows:  # what comes before a token tells of it, so the later window leaves it to the earlier one
                if row.window is not None:
                    row.window = replace(row.window, own_start=before, own_end=row.window.end)
                    before = row.window.end
        return found

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """Of each row (sum of the negative log-likelihoods of its own tokens, their number)."""
        batch = self.batch(rows)
        batch.pop("token_type_ids", None)
        own = [range(max(row.own[0], 1), row.own[1]) for row in rows]
        places = [(i, t) for i, tokens in enumerate(own) for t in tokens]
        losses = [
            torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
            for logits, tokens in token_logits(self.model, batch, places)
        ]
        parts = torch.cat(losses).split([len(tokens) for tokens in own])
        return [(float(part.double().sum()), len(part)) for part in parts]

    def finish(self, item: str, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> Perplexity:
        tokens = sum(count for _, count in outputs)
        loss = sum(total for total, _ in outputs) / tokens
        return Perplexity(math.exp(loss), loss, tokens, rows[0].cut)

    def shaped(self, result: Perplexity, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"perplexity": result.perplexity, "loss": result.loss, "tokens": result.tokens}

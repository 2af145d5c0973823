"""The small model of speculative decoding: what it has read, and what it writes ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from cutaway.generate.cache_reuse import common_prefix_length, positions_are_fixed
from cutaway.nn.call_context import Evaluation
from cutaway.nn.kv_cache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from cutaway.generate.prompt import Prompt
    from cutaway.models.protocols import DecodeStepper, GenerativeModel


class Assistant:
    """The small model, with its cache of the text that it has read.

    Args:
        n_ahead: the most tokens that it writes ahead.
        confident: it stops before a token that it finds less likely than this.
    """

    def __init__(self, model: GenerativeModel, n_ahead: int, confident: float) -> None:
        self.model, self.n_ahead, self.confident = model, n_ahead, confident
        self.evaluating = Evaluation(cast(nn.Module, model))
        self.source: Prompt | None = None  # what an encoder reads
        self.memory: Tensor | None = None  # [1, source length, hidden], what it said
        self.cache: Cache | None = None
        self.stepper: DecodeStepper | None = None
        self.read: list[int] = []  # what the cache holds

    def write(
        self, text: list[int], n: int, choose: Callable[[Tensor], tuple[int, Tensor]]
    ) -> tuple[list[int], list[Tensor]]:
        """At most n tokens after `text`, and the probabilities [V] that each was chosen from.

        Args:
            choose: logits [1, V] float32 -> a token, and the probabilities [V] of all.
        """
        guesses: list[int] = []
        probabilities: list[Tensor] = []
        with torch.no_grad(), self.evaluating():
            logits = self._run(text)
            while True:
                token, probability = choose(logits.float())
                if guesses and float(probability[token]) < self.confident:
                    break
                guesses.append(token)
                probabilities.append(probability)
                if len(guesses) == min(n, self.n_ahead):
                    break
                logits = self._run([*text, *guesses])
        return guesses, probabilities

    def _run(self, text: list[int]) -> Tensor:
        """The logits [1, V] after `text`; what the cache holds of it is not run again."""
        kept = min(common_prefix_length(self.read, text), len(text) - 1)
        if self.cache is not None and kept < len(self.read):
            if kept and positions_are_fixed(self.model):
                self.cache.crop(kept)
            else:
                self.cache, self.stepper, kept = None, None, 0
        device = next(cast(nn.Module, self.model).parameters()).device
        ids = torch.tensor([text[kept if self.cache is not None else 0 :]], device=device)
        memory_mask = None
        if self.model.is_encoder_decoder:
            assert self.source is not None
            memory_mask = self.source.encoder_mask
        if self.stepper is not None and self.stepper.is_unobserved and self.cache is not None:
            logits = self.stepper(ids, self.cache, self.memory, memory_mask)
        else:
            asked = {"past_key_values": self.cache, "use_cache": True, "logits_to_keep": 1, "return_dict": True}
            outputs = self.model(**self._inputs(ids, memory_mask), **asked)
            self.cache, logits = outputs.past_key_values, outputs.logits
            if self.model.is_encoder_decoder:
                self.memory = outputs.encoder_last_hidden_state
            self.stepper = self.model.decode_stepper()
        self.read = list(text)
        return logits[:, -1]

    def _inputs(self, ids: Tensor, memory_mask: Tensor | None) -> dict[str, object]:
        """What the model reads: ids [1, n], of an encoder-decoder with its source."""
        if not self.model.is_encoder_decoder:
            return {"input_ids": ids}
        assert self.source is not None
        read: dict[str, object] = {"decoder_input_ids": ids, "attention_mask": memory_mask}
        if self.memory is None:
            return read | {"input_ids": self.source.encoder_ids}
        return read | {"encoder_outputs": (self.memory,)}

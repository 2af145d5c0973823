"""Guidance: what the model says to another prompt, a step at a time, for classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.logits_process import LogitsProcessor
from cutaway.generate.prompt import Prompt, pad_left, read_ids, read_mask

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.nn.kv_cache import Cache


class Guidance:
    """The scores after the negative prompt and the same answer.

    Without a negative prompt, each prompt's last token alone is it, as upstream: the answer goes on from the same
    place, without what was asked. The model runs twice in every step.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        ids: object,
        mask: object,
        copies: int,
        evaluating: Callable[[], AbstractContextManager[None]],
    ) -> None:
        if model.is_encoder_decoder:
            raise GenerationError("guidance_scale works on decoders; this model is an encoder-decoder. Leave it out.")
        self.model, self.evaluating = model, evaluating
        rows = prompt.ids.shape[0]
        if ids is None:
            self.ids, self.mask = prompt.ids[:, -1:], None
        else:
            ids = read_ids("negative_prompt_ids", ids, prompt.ids.device)
            if ids.shape[0] not in (1, rows):
                raise GenerationError(
                    f"negative_prompt_ids has {ids.shape[0]} rows for {rows} prompts: pass one row, or one per prompt."
                )
            self.ids, self.mask = pad_left(ids, read_mask(mask, ids, None, ()))
        index = torch.arange(rows, device=prompt.ids.device).repeat_interleave(copies)
        self.first = index if self.ids.shape[0] == rows else torch.zeros_like(index)
        self.cache: Cache | None = None

    def logits(self, newest: Tensor) -> Tensor:
        """[A, V] after the newest tokens [A] of the running sequences."""
        begins = self.cache is None
        inputs = {"input_ids": self.ids if begins else newest[:, None], "attention_mask": self.mask if begins else None}
        more = {} if begins else {"past_key_values": self.cache}
        with self.evaluating():
            outputs = self.model(
                **inputs, **more, use_cache=True, logits_to_keep=1, return_dict=True,
                output_attentions=False, output_hidden_states=False,
            )  # fmt: skip
        self.cache = outputs.past_key_values
        logits: Tensor = outputs.logits[:, -1].float()
        if begins:
            self.cache.select(self.first)
            logits = logits[self.first]
        return logits

    def select(self, index: Tensor) -> None:
        """Leaves the sequences at the positions `index` of the running ones, in that order."""
        assert self.cache is not None  # a step filled it
        self.cache.select(index)


class UnbatchedClassifierFreeGuidanceLogitsProcessor(LogitsProcessor):
    """Away from what the model says to another prompt, which it runs beside; as `guidance_scale` of `generate`."""

    def __init__(
        self,
        guidance_scale: float,
        model: LanguageModel,
        unconditional_ids: Tensor | None = None,
        unconditional_attention_mask: Tensor | None = None,
        use_cache: bool = True,
    ) -> None:
        self.guidance_scale, self.model, self.use_cache = guidance_scale, model, use_cache
        self.ids, self.mask = unconditional_ids, unconditional_attention_mask
        self.cache: Cache | None = None
        self.begun = False

    def get_unconditional_logits(self, input_ids: Tensor) -> Tensor:
        """Logits [B, L, V] after the other prompt and what was chosen since."""
        newest = input_ids[:, -1:]
        if not self.begun:
            self.ids = newest if self.ids is None else self.ids
            self.mask = torch.ones_like(self.ids) if self.mask is None else self.mask
            self.begun = True
            read = self.ids
        else:
            assert self.ids is not None
            assert self.mask is not None
            self.ids = torch.cat((self.ids, newest), 1)
            self.mask = torch.cat((self.mask, torch.ones_like(newest)), 1)
            read = newest if self.use_cache else self.ids
        with torch.no_grad():
            out = self.model(read, attention_mask=self.mask, use_cache=self.use_cache, past_key_values=self.cache)
        self.cache = out.get("past_key_values")
        logits: Tensor = out.logits
        return logits

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.log_softmax(dim=-1)
        if self.guidance_scale == 1:
            return scores
        other = self.get_unconditional_logits(input_ids)[:, -1].log_softmax(dim=-1)
        return self.guidance_scale * (scores - other) + other

"""Speculative decoding: a small model writes a few tokens ahead, the large one checks them in one pass.

Greedy search keeps a guess that is its own choice. In sampling a guess x, drawn with probability q(x), is kept with
probability min(1, p(x) / q(x)), and a token in its place is drawn from max(p - q, 0): the text then has exactly the
distribution p of the large model (Leviathan et al., 2023, section 2.3; Chen et al., 2023).

Where attentions or hidden states of each step are asked for, the large model takes its steps one by one, without the
small one: the text is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate import sampling
from cutaway.generate.assistant import Assistant
from cutaway.generate.options import Settings
from cutaway.generate.plan import Plan
from cutaway.generate.prompt import Prompt
from cutaway.generate.prompt_lookup import LookupSearch

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel
    from cutaway.tokenization.protocols import TokenizerLike

N_AHEAD, CONFIDENT = 5, 0.4  # tokens written ahead, and the least probability with which one is


class AssistedSearch(LookupSearch):
    """`Search` for one text with `assistant_model`."""

    def __init__(
        self, model: GenerativeModel, prompt: Prompt, plan: Plan, tokenizer: TokenizerLike | None = None
    ) -> None:
        super().__init__(model, prompt, plan, tokenizer)
        assert plan.assistant is not None
        self.assistant = plan.assistant
        self.assistant.source = prompt
        self.probabilities: list[Tensor] = []  # [V] each: what the guesses ahead were chosen from

    def guesses(self) -> list[int]:
        n = min(self.assistant.n_ahead, self.plan.max_length - self.width - 1)  # the model itself says one more
        if n < 1:
            return []
        text: list[int] = self.sequences[0, self.first : self.width].tolist()
        guessed, self.probabilities = self.assistant.write(text, n, self._draft)
        return guessed

    def _draft(self, logits: Tensor) -> tuple[int, Tensor]:
        """A token of the small model, as the call chooses: its likeliest one, or one that is drawn."""
        if self.rng is None:
            probabilities = logits.softmax(-1)
            return int(probabilities.argmax()), probabilities[0]
        scores = self._warped(logits)
        return int(sampling.draw(scores, self.rng.uniform(1))), scores.softmax(-1)[0]

    def _warped(self, scores: Tensor) -> Tensor:
        """What sampling draws from, [1, V]."""
        if self.plan.temperature != 1.0:
            scores = sampling.temperature(scores, self.plan.temperature)
        return self.warp(scores)

    def choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """`Search.choose`, of which a guess is the first candidate."""
        if self.rng is None or not self.ahead:
            return super().choose(scores)
        warped = self._warped(scores)
        p, guess = warped.softmax(-1)[0], self.ahead[0]  # [V]
        q = self.probabilities[len(self.probabilities) - len(self.ahead)]
        if float(self.rng.uniform(1)) * float(q[guess]) < float(p[guess]):
            token = torch.tensor([guess], device=scores.device)
        else:
            rest = (p - q).clamp_min(0)
            token = sampling.draw(rest.log()[None] if bool(rest.any()) else warped, self.rng.uniform(1))
        if bool((token < 0).any()):
            raise self.nothing_to_choose()
        return token, warped.log_softmax(dim=-1) if self.plan.rules.renormalize else warped


def read_assistant(s: Settings, model: GenerativeModel, rows: int, *, reads_ids: bool = True) -> Assistant | None:
    """The small model of a call, checked; None without one. `reads_ids`: whether an encoder's text is given as ids.

    Raises:
        GenerationError: it cannot write, has another vocabulary, or is an encoder-decoder where the model is none (or
            the other way); or the call is for several texts or beams.
    """
    small = s.call.get("assistant_model")
    if small is None:
        return None
    needed, loader = "a decoder with a language-model head", "AutoModelForCausalLM"
    if model.is_encoder_decoder:
        needed, loader = "an encoder-decoder, which reads the same source", "AutoModelForSeq2SeqLM"
    writes = getattr(small, "can_generate", lambda: False)()
    if not writes or getattr(small, "is_encoder_decoder", False) != model.is_encoder_decoder:
        raise GenerationError(f"assistant_model is a {type(small).__name__}: pass {needed}, which {loader} loads.")
    if model.is_encoder_decoder and not reads_ids:
        raise GenerationError(
            "assistant_model reads the source itself, so it needs input_ids; here are the encoder's outputs or vectors "
            "alone. Pass the ids, or leave it out; prompt_lookup_num_tokens guesses without another model."
        )
    if s["watermarking_config"] is not None:
        raise GenerationError("watermarking_config and assistant_model exclude each other: leave one of them out.")
    if s.call.get("prompt_lookup_num_tokens") is not None:  # of the model's files it is a wish, and gives way
        raise GenerationError(
            f"prompt_lookup_num_tokens={s['prompt_lookup_num_tokens']} and assistant_model both say what to guess "
            "from: leave one of them out."
        )
    sizes = [one.get_input_embeddings().num_embeddings for one in (model, small)]
    if sizes[0] != sizes[1]:
        raise GenerationError(
            f"assistant_model has {sizes[1]:,} tokens and the model {sizes[0]:,}: they must share one vocabulary."
        )
    copies, beams = s.integer("num_return_sequences", 1) or 1, s.integer("num_beams", 1) or 1
    if rows > 1 or copies > 1 or beams > 1 or not s.flag("use_cache"):
        raise GenerationError(
            f"assistant_model writes ahead for one text at a time, with a cache; here are {rows} prompts, "
            f"num_return_sequences={copies}, num_beams={beams}, use_cache={s['use_cache']}. Pass one text, or leave it "
            "out."
        )
    n_ahead = s.integer("num_assistant_tokens", 1) or N_AHEAD
    confident = s["assistant_confidence_threshold"]
    if confident is None:
        confident = CONFIDENT
    if isinstance(confident, bool) or not isinstance(confident, float | int) or not 0 <= confident <= 1:
        raise GenerationError(f"assistant_confidence_threshold={confident!r}: pass a number from 0 to 1.")
    # how sure a draw is says nothing of whether it will be kept: in sampling the probabilities decide
    return Assistant(small, n_ahead, 0.0 if s.flag("do_sample") else float(confident))

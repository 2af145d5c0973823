"""Greedy search that runs several tokens at once: guesses from the text itself, checked by the model (Saxena, 2023).

The model reads the newest token and the guesses in one pass. Its logits after the newest token decide the next one, as
ever; if that is the first guess, the logits after it are there already, and so on. The first guess that is wrong, and
what was computed after it, is forgotten. So the text is the one of plain greedy search, up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.cache_reuse import guess, positions_are_fixed
from cutaway.generate.plan import Plan
from cutaway.generate.prompt import Prompt
from cutaway.generate.search import Search
from cutaway.outputs import CausalLMOutputWithPast, Seq2SeqLMOutput

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel
    from cutaway.tokenization.protocols import TokenizerLike


class PromptLookupCandidateGenerator:
    """The guesses of `prompt_lookup_num_tokens`, for a search of one's own.

    Args:
        eos_token_id: ids at which a guess ends before them; None for none.
        num_output_tokens: the most tokens that are guessed. max_matching_ngram_size: the longest run that is looked up.
        max_length: what the text and the guesses may have together. logits_processor, vocab_size: as upstream names
            what its own search hands over; guesses follow from the text alone.
    """

    def __init__(
        self,
        eos_token_id: Tensor | list[int] | None = None,
        num_output_tokens: int = 10,
        max_matching_ngram_size: int | None = None,
        max_length: int = 20,
        logits_processor: object = None,
        vocab_size: int | None = None,
    ) -> None:
        longest = 2 if max_matching_ngram_size is None else max_matching_ngram_size
        if longest < 1 or num_output_tokens < 1:
            raise GenerationError("num_output_tokens and max_matching_ngram_size must be 1 or more.")
        self.eos_token_id, self.num_output_tokens = eos_token_id, num_output_tokens
        self.max_matching_ngram_size, self.max_length = longest, max_length

    def get_candidates(self, input_ids: Tensor, **kwargs: object) -> tuple[Tensor, None]:
        """The text [1, L] with the guesses behind it, [1, L + guesses]; no scores belong to them."""
        n = min(self.num_output_tokens, self.max_length - input_ids.shape[1] - 1)
        guesses = guess(input_ids[0], n, self.max_matching_ngram_size) if n > 0 else []
        ends = [] if self.eos_token_id is None else torch.as_tensor(self.eos_token_id).flatten().tolist()
        first = next((i for i, token in enumerate(guesses) if token in ends), len(guesses))
        return torch.cat((input_ids, input_ids.new_tensor([guesses[:first]]).view(1, first)), 1), None

    def update_candidate_strategy(self, input_ids: Tensor, scores: Tensor, num_matches: int) -> None:
        """Guesses follow from the text alone: there is nothing to learn."""


class LookupSearch(Search):
    """`Search` for one text with `prompt_lookup_num_tokens`."""

    def __init__(
        self, model: GenerativeModel, prompt: Prompt, plan: Plan, tokenizer: TokenizerLike | None = None
    ) -> None:
        super().__init__(model, prompt, plan, tokenizer)
        self.first, self.hidden = prompt.padding[0], prompt.hidden[0]  # columns of padding, and hidden words
        self.ahead: list[int] = []  # guesses whose logits are known
        self.known: Tensor | None = None  # [1, 1 + guesses, V]

    def run(self) -> CausalLMOutputWithPast | Seq2SeqLMOutput:
        if self.ahead and self.known is not None and self.ahead[0] == int(self.newest):
            self.ahead, self.known = self.ahead[1:], self.known[:, 1:]
            return CausalLMOutputWithPast(logits=self.known[:, :1])
        self.forget()
        if not self.can_step() or not positions_are_fixed(self.model):
            return super().run()
        assert self.cache is not None
        assert self.stepper is not None
        if not self.stepper.is_unobserved:  # guesses that do not hold are nobody's to see
            return super().run()
        self.ahead = self.guesses()
        ids = torch.tensor([[int(self.newest), *self.ahead]], device=self.newest.device)
        memory = None if self.encoded is None else self.encoded[0]
        self.known = self.stepper(ids, self.cache, memory, self.encoder_mask)
        return CausalLMOutputWithPast(logits=self.known[:, :1])

    def guesses(self) -> list[int]:
        """What may follow the text."""
        assert self.plan.prompt_lookup is not None
        guessed, longest = self.plan.prompt_lookup
        n_guesses = min(guessed, self.plan.max_length - self.width - 1)  # the model itself says one more
        return guess(self.sequences[0, self.first : self.width], n_guesses, longest)

    def forget(self) -> None:
        """Takes out of the cache what follows the text's last token but one."""
        self.ahead, self.known = [], None
        n_kept = self.width - 1 - self.first - self.hidden
        if self.cache is not None and self.cache.longest > n_kept:
            self.cache.crop(n_kept)

    def close(self) -> None:
        self.forget()
        super().close()

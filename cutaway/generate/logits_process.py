"""Rules on scores as objects, under upstream's names: for `generate(logits_processor=[...])`, and for one's own loops.

Each is called with (input_ids [B, L], scores [B, V]) and returns new scores. The formulas are those of
`cutaway.generate.sampling` and `.phrases`, which `generate` uses for its settings. A processor sees what it is given:
padding among `input_ids` counts as text here, as it does upstream; the settings of `generate` leave it out.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate import sampling
from cutaway.generate.phrases import Phrases, no_repeat_ngram


class LogitsProcessor:
    """Base of all of them; a class of one's own overrides `__call__`."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(ids [B, L] of the texts so far, scores [B, V]) -> scores [B, V]."""
        raise NotImplementedError(f"{type(self).__name__} must say what it does in __call__(input_ids, scores).")


LogitsWarper = LogitsProcessor


class LogitsProcessorList(list[Any]):
    """Processors, called one after another."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """The scores after all of them; `kwargs` go to those that take more than ids and scores."""
        for processor in self:
            takes = inspect.signature(processor.__call__).parameters
            if len(takes) > 2:
                if missing := [name for name in list(takes)[2:] if name not in kwargs]:
                    raise GenerationError(f"{type(processor).__name__} needs {', '.join(missing)}: pass it by name.")
                scores = processor(input_ids, scores, **kwargs)
            else:
                scores = processor(input_ids, scores)
        return scores


def _ids(name: str, value: object) -> Tensor:
    """One id or several as a tensor [N]."""
    found = torch.as_tensor(value).reshape(-1)
    if found.is_floating_point() or bool((found < 0).any()):
        raise GenerationError(f"{name}={value!r}: pass one token id or several, each 0 or more.")
    return found.long()


def above_zero(name: str, value: object, most: float = math.inf, *, below: bool = False) -> float:
    """A number above 0 and at most (or `below`) `most`; GenerationError for anything else."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= most or (below and number == most):
        limit = "" if most == math.inf else f" and {'below' if below else 'at most'} {most:g}"
        raise GenerationError(f"{name}={value!r}: pass a number above 0{limit}.")
    return float(number)


def whole_number(name: str, value: object, least: int = 1) -> int:
    """An integer of at least `least`; GenerationError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise GenerationError(f"{name}={value!r}: pass an integer of {least} or more.")
    return value


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Makes tokens that were there less likely; the first `prompt_ignore_length` columns (or [B]) do not count."""

    def __init__(self, penalty: float, prompt_ignore_length: int | Tensor | None = None) -> None:
        self.penalty = above_zero("penalty", penalty)
        if isinstance(prompt_ignore_length, int):
            whole_number("prompt_ignore_length", prompt_ignore_length, 0)
        self.prompt_ignore_length = prompt_ignore_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ignored, vocabulary = self.prompt_ignore_length, scores.shape[-1]
        seen = input_ids.clamp(max=vocabulary)
        if isinstance(ignored, int):
            seen = seen[:, ignored:]
        elif ignored is not None:
            columns = torch.arange(seen.shape[1], device=seen.device)
            seen = seen.masked_fill(columns < ignored.to(seen.device)[:, None], vocabulary)
        room = torch.nn.functional.pad(scores, (0, 1))  # one more column for what is not to count
        return sampling.repetition_penalty(room, seen, self.penalty)[:, :vocabulary]


class EncoderRepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Makes the tokens of the source likelier, for a penalty above 1."""

    def __init__(self, penalty: float, encoder_input_ids: Tensor) -> None:
        self.penalty, self.encoder_input_ids = 1 / above_zero("penalty", penalty), encoder_input_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return sampling.repetition_penalty(scores, self.encoder_input_ids.to(scores.device), self.penalty)


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Lets no run of `ngram_size` tokens come twice."""

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = whole_number("ngram_size", ngram_size)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return no_repeat_ngram(scores, input_ids, self.ngram_size)


class EncoderNoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Lets no run of `encoder_ngram_size` tokens of the source come."""

    def __init__(self, encoder_ngram_size: int, encoder_input_ids: Tensor) -> None:
        self.ngram_size = whole_number("encoder_ngram_size", encoder_ngram_size)
        self.encoder_input_ids = encoder_input_ids if encoder_input_ids.dim() > 1 else encoder_input_ids[None]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        source = self.encoder_input_ids.to(scores.device)
        copies = scores.shape[0] // source.shape[0]
        return no_repeat_ngram(scores, input_ids, self.ngram_size, source.repeat_interleave(copies, 0))


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Adds to the score of each phrase's last token once the others stand there.

    Args:
        sequence_bias: {(5, 8): -2.0}, or pairs [[[5, 8], -2.0]].
    """

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Sequence[Any]]) -> None:
        try:
            pairs = sequence_bias.items() if isinstance(sequence_bias, Mapping) else sequence_bias
            self.sequence_bias = {tuple(int(i) for i in ids): float(bias) for ids, bias in pairs}
        except (TypeError, ValueError):
            self.sequence_bias = {}
        if not self.sequence_bias or any(not ids or min(ids) < 0 for ids in self.sequence_bias):
            raise GenerationError(
                f"sequence_bias={sequence_bias!r}: pass a dict from tuples of ids to numbers, such as {{(5, 8): -2.0}}."
            )
        self._phrases: Phrases | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._phrases is None:
            if wrong := [i for ids in self.sequence_bias for i in ids if i >= scores.shape[-1]]:
                raise GenerationError(f"{wrong} are no ids of this model, which has {scores.shape[-1]} tokens.")
            self._phrases = Phrases(list(self.sequence_bias.items()), scores.device)
        return self._phrases.bias(scores, input_ids)


class NoBadWordsLogitsProcessor(SequenceBiasLogitsProcessor):
    """Rules phrases out; a phrase that is only an end token is left out of them."""

    def __init__(self, bad_words_ids: list[list[int]], eos_token_id: object = None) -> None:
        fits = isinstance(bad_words_ids, list) and bad_words_ids and all(isinstance(p, list) for p in bad_words_ids)
        if not fits:
            raise GenerationError(f"bad_words_ids={bad_words_ids!r}: pass a list of lists of ids, such as [[5, 8]].")
        ends = [] if eos_token_id is None else [[i] for i in _ids("eos_token_id", eos_token_id).tolist()]
        self.bad_word_ids = bad_words_ids
        forbidden = {tuple(phrase): -math.inf for phrase in bad_words_ids if phrase not in ends}
        if forbidden:
            super().__init__(forbidden)
        else:  # the end is all that was to be ruled out
            self.sequence_bias, self._phrases = {}, None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return super().__call__(input_ids, scores) if self.sequence_bias else scores.clone()


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Allows only what `prefix_allowed_tokens_fn(number of the prompt, its ids)` names; `num_beams` rows a prompt."""

    def __init__(self, prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]], num_beams: int) -> None:
        self._allowed, self._num_beams = prefix_allowed_tokens_fn, whole_number("num_beams", num_beams)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = torch.full_like(scores, -math.inf)
        for row, ids in enumerate(input_ids):
            allowed = torch.as_tensor(self._allowed(row // self._num_beams, ids), device=scores.device)
            if allowed.numel() == 0:
                raise GenerationError("prefix_allowed_tokens_fn allows no token: return at least one id.")
            mask[row, allowed.long()] = 0
        return scores + mask


class MinLengthLogitsProcessor(LogitsProcessor):
    """Rules the end out while there are fewer than `min_length` columns."""

    def __init__(self, min_length: int, eos_token_id: object, device: torch.device | str = "cpu") -> None:
        self.min_length = whole_number("min_length", min_length, 0)
        self.eos_token_id = _ids("eos_token_id", eos_token_id).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[-1] >= self.min_length:
            return scores.clone()
        return sampling.forbid(scores, self.eos_token_id.to(scores.device))


class MinNewTokensLengthLogitsProcessor(MinLengthLogitsProcessor):
    """Rules the end out while there are fewer than `min_new_tokens` after the first `prompt_length_to_skip`."""

    def __init__(
        self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: object, device: torch.device | str = "cpu"
    ) -> None:
        self.prompt_length_to_skip = whole_number("prompt_length_to_skip", prompt_length_to_skip, 0)
        self.min_new_tokens = whole_number("min_new_tokens", min_new_tokens, 0)
        super().__init__(prompt_length_to_skip + min_new_tokens, eos_token_id, device)


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """Makes `bos_token_id` the first token that is chosen after one."""

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = whole_number("bos_token_id", bos_token_id, 0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[-1] != 1:
            return scores
        return sampling.force(scores, torch.tensor([self.bos_token_id], device=scores.device))


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """Makes an end token the last one of `max_length`."""

    def __init__(self, max_length: int, eos_token_id: object, device: torch.device | str = "cpu") -> None:
        self.max_length, self.eos_token_id = max_length, _ids("eos_token_id", eos_token_id).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[-1] != self.max_length - 1:
            return scores
        return sampling.force(scores, self.eos_token_id.to(scores.device))


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """NaN becomes 0, and infinities the largest numbers that there are."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return sampling.finite(scores)


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """Makes the end likelier with every step after `(start, factor)[0]` new tokens."""

    def __init__(
        self, exponential_decay_length_penalty: tuple[int, float], eos_token_id: object, input_ids_seq_length: int
    ) -> None:
        self.regulation_start = exponential_decay_length_penalty[0] + input_ids_seq_length
        self.regulation_factor = exponential_decay_length_penalty[1]
        self.eos_token_id = _ids("eos_token_id", eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        steps = input_ids.shape[-1] - self.regulation_start
        eos = self.eos_token_id.to(scores.device)
        return sampling.exponential_decay(scores, eos, steps, self.regulation_factor) if steps > 0 else scores


class LogitNormalization(LogitsProcessor):
    """Makes the scores log-probabilities."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.log_softmax(dim=-1)


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Rules tokens out."""

    def __init__(self, suppress_tokens: Iterable[int], device: torch.device | str = "cpu") -> None:
        self.suppress_tokens = torch.tensor(list(suppress_tokens), device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return sampling.forbid(scores, self.suppress_tokens.to(scores.device))


class SuppressTokensAtBeginLogitsProcessor(SuppressTokensLogitsProcessor):
    """Rules tokens out where the text has `begin_index` columns."""

    def __init__(
        self, begin_suppress_tokens: Iterable[int], begin_index: int, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(begin_suppress_tokens, device)
        self.begin_suppress_tokens, self.begin_index = self.suppress_tokens, begin_index

    def set_begin_index(self, begin_index: int) -> None:
        """Rules them out there instead."""
        self.begin_index = begin_index

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return super().__call__(input_ids, scores) if input_ids.shape[-1] == self.begin_index else scores


class ClassifierFreeGuidanceLogitsProcessor(LogitsProcessor):
    """Of 2 B rows of scores, the first half after the prompt, the second without: second + scale * (first - second)."""

    def __init__(self, guidance_scale: float) -> None:
        if not guidance_scale > 1:
            raise GenerationError(f"guidance_scale={guidance_scale!r}: pass a number above 1.")
        self.guidance_scale = guidance_scale

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.shape[0] != 2 * input_ids.shape[0]:
            raise GenerationError(
                f"scores has {scores.shape[0]} rows for {input_ids.shape[0]} texts: guidance needs two for each."
            )
        asked, free = scores.split(input_ids.shape[0], dim=0)
        guided: Tensor = free + (asked - free) * self.guidance_scale
        return guided

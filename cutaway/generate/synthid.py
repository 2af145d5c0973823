"""SynthID's mark in sampled texts, which changes no probability on average (Dathathri et al., 2024, Nature 634, 818).

The tokens before a place and a token itself, hashed with each of several keys, draw a bit g for the token and the key.
One key after the other, a token's probability p becomes p * (1 + g - the mean of g): the paper's tournament among
samples, as a distribution. Who knows the keys counts the bits of a text: they are 1 more often than not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import GenerationError, InputError
from cutaway.generate.logits_process import LogitsProcessor, whole_number

FACTOR = 6364136223846793005  # of the linear congruential generator that hashes, modulo 2^64
LARGEST_TABLE = 2**24
KEY_RANGE = (-(2**63), 2**63 - 1)  # int64, in which tokens are hashed
SEED_RANGE = (-(2**63), 2**64 - 1)  # what torch.Generator takes


@dataclass
class SynthIDTextWatermarkingConfig:
    """How texts are marked.

    Attributes:
        ngram_len: how many tokens draw a bit: a token, and those before it. keys: one for each bit of a token.
        context_history_size: of how many places the tokens before are remembered: where they come again, nothing is
            marked.
        sampling_table_seed, sampling_table_size: of the table of bits that a hash looks up.
        skip_first_ngram_calls: whether the first ngram_len - 1 tokens, which have fewer before them, are left unmarked.
        debug_mode: whether all tokens are taken for equally likely before they are marked.
    """

    ngram_len: int
    keys: Sequence[int]
    context_history_size: int = 1024
    sampling_table_seed: int = 0
    sampling_table_size: int = 2**16
    skip_first_ngram_calls: bool = False
    debug_mode: bool = False

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """GenerationError for a value that cannot be."""
        for name in ("ngram_len", "context_history_size", "sampling_table_size"):
            whole_number(name, getattr(self, name))
        if self.sampling_table_size > LARGEST_TABLE:
            raise GenerationError(f"sampling_table_size={self.sampling_table_size}: pass at most {LARGEST_TABLE}.")
        if self.ngram_len < 2:
            raise GenerationError(f"ngram_len={self.ngram_len}: pass at least 2: a token, and one before it.")
        listed = getattr(self.keys, "tolist", lambda: self.keys)()  # of an array
        keys = listed if isinstance(listed, list | tuple) else ()
        if not keys or any(isinstance(key, bool) or not isinstance(key, int) for key in keys):
            raise GenerationError(f"keys={self.keys!r:.80}: pass whole numbers, at least one.")
        for key in keys:
            _within("keys", key, KEY_RANGE)
        self.keys = list(keys)
        _within("sampling_table_seed", self.sampling_table_seed, SEED_RANGE)
        for name in ("skip_first_ngram_calls", "debug_mode"):
            if not isinstance(getattr(self, name), bool):
                raise GenerationError(f"{name}={getattr(self, name)!r:.80}: pass True or False.")

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **changes: object) -> SynthIDTextWatermarkingConfig:
        """From what a file holds; `changes` win over it."""
        given: dict[str, Any] = {**config_dict, **changes}
        if strange := sorted(given.keys() - {field.name for field in fields(cls)}):
            raise GenerationError(f"watermarking_config has no {strange[0]!r} beside ngram_len and keys.")
        if missing := sorted({"ngram_len", "keys"} - given.keys()):
            raise GenerationError(f"watermarking_config has no {missing[0]!r}: SynthID needs ngram_len and keys.")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """What a file holds."""
        return {**asdict(self), "keys": list(self.keys)}

    def construct_processor(
        self, vocab_size: int, device: torch.device | str = "cpu"
    ) -> SynthIDTextWatermarkLogitsProcessor:
        """What marks the scores of a model."""
        return SynthIDTextWatermarkLogitsProcessor(**self.to_dict(), device=device)


def _within(name: str, value: object, limits: tuple[int, int]) -> None:
    """GenerationError for what is no integer from the first limit to the last."""
    if isinstance(value, bool) or not isinstance(value, int) or not limits[0] <= value <= limits[1]:
        raise GenerationError(f"{name} has {value!r:.80}: pass integers from {limits[0]} to {limits[1]}.")


class SynthIDTextWatermarkLogitsProcessor(LogitsProcessor):
    """Marks the scores of one generation: what the first call is shown is the prompt, whose tokens draw no bits.

    The arguments are those of `SynthIDTextWatermarkingConfig`.
    """

    def __init__(
        self,
        ngram_len: int,
        keys: Sequence[int],
        sampling_table_size: int,
        sampling_table_seed: int,
        context_history_size: int,
        device: torch.device | str = "cpu",
        skip_first_ngram_calls: bool = False,
        debug_mode: bool = False,
    ) -> None:
        checked = SynthIDTextWatermarkingConfig(
            ngram_len,
            keys,
            context_history_size,
            sampling_table_seed,
            sampling_table_size,
            skip_first_ngram_calls,
            debug_mode,
        )
        self.ngram_len, self.context_history_size = ngram_len, context_history_size
        self.skip_first_ngram_calls, self.debug_mode = skip_first_ngram_calls, debug_mode
        self.device = torch.device(device)
        self.keys = torch.tensor(checked.keys, device=self.device)
        rng = torch.Generator(device=self.device).manual_seed(sampling_table_seed)
        self.sampling_table = torch.randint(0, 2, (sampling_table_size,), generator=rng, device=self.device)
        self.prompt_length: int | None = None

    # -- hashes and bits -----------------------------------------------------------------------------------------------

    def accumulate_hash(self, current_hash: Tensor, data: Tensor) -> Tensor:
        """Hashes [...] with each of the numbers in `data` [..., n] after them, modulo 2^64 -> [...]."""
        for number in data.unbind(-1):
            current_hash = (current_hash + number) * FACTOR + 1
        return current_hash

    def _context_hashes(self, tokens: Tensor) -> Tensor:
        """[B, L] -> [B, L - ngram_len + 2] of each ngram_len - 1 tokens in a row."""
        runs = tokens.unfold(1, self.ngram_len - 1, 1)
        return self.accumulate_hash(torch.ones_like(runs[..., 0]), runs)

    def compute_ngram_keys(self, ngrams: Tensor) -> Tensor:
        """What each run of ngram_len tokens hashes to with each key, [B, n, ngram_len] -> [B, n, keys].

        Raises:
            InputError: another shape.
        """
        if ngrams.dim() != 3 or ngrams.shape[2] != self.ngram_len:
            raise InputError(f"ngrams has shape {list(ngrams.shape)}, but it must be [texts, n, {self.ngram_len}].")
        hashes = self.accumulate_hash(torch.ones_like(ngrams[..., 0]), ngrams)
        return self.accumulate_hash(hashes[..., None], self.keys[:, None])

    def sample_g_values(self, ngram_keys: Tensor) -> Tensor:
        """The bits that hashes of any shape look up."""
        return self.sampling_table[ngram_keys % len(self.sampling_table)]

    def compute_g_values(self, input_ids: Tensor) -> Tensor:
        """The bits of a text, [B, L] -> [B, L - ngram_len + 1, keys]; for who looks for the mark."""
        return self.sample_g_values(self.compute_ngram_keys(_ids(input_ids).unfold(1, self.ngram_len, 1)))

    # -- marking -------------------------------------------------------------------------------------------------------

    def update_scores(self, scores: Tensor, g_values: Tensor) -> Tensor:
        """Log-probabilities after the rounds of each key; scores [B, V], g_values [B, V, keys]."""
        return self._tournament(scores, list(g_values.unbind(-1)))

    def _tournament(self, scores: Tensor, bits: Sequence[Tensor]) -> Tensor:
        chances = scores.softmax(-1)
        for g in bits:
            chances = chances * (1 + g - (g * chances).sum(-1, keepdim=True))
        marked = chances.log()
        return marked.masked_fill(~marked.isfinite(), torch.finfo(marked.dtype).min)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(ids [B, L], scores [B, V]) -> scores [B, V]; which rows there are may change from call to call."""
        ids = _ids(input_ids).to(self.device)
        if self.prompt_length is None:
            self.prompt_length = ids.shape[1]
        if self.debug_mode:
            scores = torch.ones_like(scores)
        written = ids[:, self.prompt_length :]
        first = self.ngram_len if self.skip_first_ngram_calls else 1  # the call, from 1, that marks first
        if written.shape[1] + 1 < first:
            return scores
        # zeros stand before what is written
        hashes = self._context_hashes(torch.nn.functional.pad(written, (self.ngram_len - 1, 0)))  # [B, calls]
        now, earlier = hashes[:, -1], hashes[:, first - 1 : -1]
        tokens = torch.arange(scores.shape[-1], device=self.device)
        after = (now[:, None] + tokens) * FACTOR + 1  # [B, V]
        bits = [self.sample_g_values((after + key) * FACTOR + 1).to(scores.device) for key in self.keys]
        again = _seen(now, earlier, self.context_history_size).to(scores.device)
        return torch.where(again[:, None], scores, self._tournament(scores, bits))

    # -- who looks for the mark ----------------------------------------------------------------------------------------

    def compute_context_repetition_mask(self, input_ids: Tensor) -> Tensor:
        """Which places are marked because the tokens before them are new, [B, L] -> bool [B, L - ngram_len + 1]."""
        hashes = self._context_hashes(_ids(input_ids)[:, :-1])
        size = self.context_history_size
        return torch.stack([~_seen(hashes[:, i], hashes[:, :i], size) for i in range(hashes.shape[1])], 1)

    def compute_eos_token_mask(self, input_ids: Tensor, eos_token_id: int) -> Tensor:
        """1 for each token before the first end of its text, [B, L] -> [B, L]."""
        return ((_ids(input_ids) == eos_token_id).cumsum(-1) == 0).long()

    def expected_mean_g_value(self, vocab_size: int, coinflip_prob: float = 0.5) -> float:
        """The mean bit of a marked text with one key, where all `vocab_size` tokens are equally likely."""
        spread = coinflip_prob * (1 - coinflip_prob)
        return coinflip_prob + spread * (1 - 1 / vocab_size)


def _ids(input_ids: Tensor) -> Tensor:
    if input_ids.dim() != 2:
        raise InputError(f"input_ids has shape {list(input_ids.shape)}, but it must be [texts, tokens].")
    return input_ids


def _seen(now: Tensor, earlier: Tensor, size: int) -> Tensor:
    """Whether a hash [B] is one of the last `size` of `earlier` [B, n]; before there are so many, 0 is one, too."""
    again = (earlier[:, -size:] == now[:, None]).any(-1)
    return again | (now == 0) if earlier.shape[1] < size else again

"""A mark in what is generated, and how it is found again (Kirchenbauer et al., 2023, arXiv:2301.10226).

The text before a token chooses a part of the vocabulary, the green list, by a key; green tokens get a bonus. Who knows
the key counts the green tokens of a text: more than their share is no chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cutaway.config.config import PretrainedConfig
from cutaway.errors import GenerationError, InputError
from cutaway.generate.logits_process import LogitsProcessor, above_zero, whole_number
from cutaway.generate.synthid import SynthIDTextWatermarkingConfig
from cutaway.outputs import ModelOutput

SCHEMES = ("lefthash", "selfhash")
TABLE = 1_000_003  # numbers of the table that "selfhash" reads
TRIED = 40  # likely tokens that "selfhash" asks about itself


@dataclass
class WatermarkingConfig:
    """How texts are marked.

    Attributes:
        greenlist_ratio: the green part of the vocabulary, between 0 and 1.
        bias: what is added to a green token's score.
        hashing_key: whoever has it can find the mark.
        seeding_scheme: what chooses the green list: "lefthash", the token before, or "selfhash", the token itself with
            `context_width` tokens that end with it.
        context_width: how many tokens of the text are looked at.
    """

    greenlist_ratio: float = 0.25
    bias: float = 2.0
    hashing_key: int = 15485863
    seeding_scheme: str = "lefthash"
    context_width: int = 1

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """GenerationError for a value that cannot be."""
        above_zero("greenlist_ratio", self.greenlist_ratio, 1.0, below=True)
        whole_number("hashing_key", self.hashing_key)
        whole_number("context_width", self.context_width)
        if isinstance(self.bias, bool) or not isinstance(self.bias, int | float) or not math.isfinite(self.bias):
            raise GenerationError(f"bias={self.bias!r}: pass a number.")
        if self.seeding_scheme not in SCHEMES:
            raise GenerationError(f"seeding_scheme={self.seeding_scheme!r}: pass one of {', '.join(SCHEMES)}.")

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **changes: object) -> WatermarkingConfig:
        """From what a file holds; `changes` win over it."""
        given = {**config_dict, **changes}
        if strange := sorted(given.keys() - {field.name for field in fields(cls)}):
            raise GenerationError(f"watermarking_config has no {strange[0]!r}; marks are made with green lists.")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """What a file holds."""
        return asdict(self)

    def construct_processor(self, vocab_size: int, device: torch.device | str = "cpu") -> WatermarkLogitsProcessor:
        """What marks the scores of a model."""
        return WatermarkLogitsProcessor(vocab_size, device, **self.to_dict())


Watermark: TypeAlias = WatermarkingConfig | SynthIDTextWatermarkingConfig


def read_watermark(value: object) -> Watermark | None:
    """The setting `watermarking_config`: one of either kind, a dict of its fields, or None."""
    if value is None or isinstance(value, WatermarkingConfig | SynthIDTextWatermarkingConfig):
        return value
    if not isinstance(value, Mapping):
        raise GenerationError(f"watermarking_config={value!r:.80}: pass a WatermarkingConfig, or a dict of its fields.")
    if "ngram_len" in value or "keys" in value:
        return SynthIDTextWatermarkingConfig.from_dict(value)
    return WatermarkingConfig.from_dict(value)


class WatermarkLogitsProcessor(LogitsProcessor):
    """Adds `bias` to the scores of the green tokens; the arguments are those of `WatermarkingConfig`."""

    def __init__(
        self,
        vocab_size: int,
        device: torch.device | str = "cpu",
        greenlist_ratio: float = 0.25,
        bias: float = 2.0,
        hashing_key: int = 15485863,
        seeding_scheme: str = "lefthash",
        context_width: int = 1,
    ) -> None:
        WatermarkingConfig(greenlist_ratio, bias, hashing_key, seeding_scheme, context_width)  # checks them
        self.vocab_size = whole_number("vocab_size", vocab_size)
        self.greenlist_size = int(self.vocab_size * greenlist_ratio)
        self.bias, self.hash_key = bias, hashing_key
        self.seeding_scheme, self.context_width = seeding_scheme, context_width
        self.rng = torch.Generator(device=device)
        self.table: Tensor | None = None
        if seeding_scheme == "selfhash":
            self.rng.manual_seed(hashing_key)
            self.table = torch.randperm(TABLE, generator=self.rng, device=device)

    def green(self, text: Tensor) -> Tensor:
        """The green tokens after a text [L]; of "selfhash", a text whose last token is asked about."""
        window = text[-self.context_width :]
        if self.table is None:
            seed = self.hash_key * int(window[-1])
        else:
            first, last = self.table[window % TABLE] + 1, self.table[window[-1] % TABLE] + 1
            seed = int((self.hash_key * first * last).min())
        self.rng.manual_seed(seed % (2**64 - 1))
        return torch.randperm(self.vocab_size, generator=self.rng, device=self.rng.device)[: self.greenlist_size]

    def _green_themselves(self, text: Tensor, scores: Tensor) -> Tensor:
        """Of the likeliest tokens, those that are green after the text and themselves."""
        likely = scores.argsort(-1, descending=True)[:TRIED]
        found = [token for token in likely if bool((self.green(torch.cat((text, token[None]))) == token).any())]
        return torch.stack(found) if found else likely[:0]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(ids [B, L], scores [B, V]) -> scores [B, V]; texts shorter than `context_width` are left as they are."""
        if input_ids.shape[-1] < self.context_width:
            return scores
        marked = scores.clone()
        for row, text in enumerate(input_ids):
            text = text.to(self.rng.device)
            green = self.green(text) if self.table is None else self._green_themselves(text, scores[row])
            marked[row, green.to(scores.device)] += self.bias
        return marked


Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class WatermarkDetectorOutput(ModelOutput):
    """What a detector says of texts, each field [B].

    Attributes:
        num_tokens_scored, num_green_tokens, green_fraction: what was counted.
        z_score: how many standard deviations there are more green tokens than by chance.
        p_value: how likely so many are by chance. confidence: 1 - p_value.
        prediction: whether z_score is above the bound.
    """

    num_tokens_scored: Numbers | None = None
    num_green_tokens: Numbers | None = None
    green_fraction: Numbers | None = None
    z_score: Numbers | None = None
    p_value: Numbers | None = None
    prediction: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    confidence: Numbers | None = None


class WatermarkDetector:
    """Finds the mark that `WatermarkingConfig` makes.

    Args:
        model_config: of the model that wrote the texts. watermarking_config: what they were marked with.
        ignore_repeated_ngrams: whether a sequence of tokens that comes again counts once.
        max_cache_size: taken for upstream's sake; nothing is kept between texts.
    """

    def __init__(
        self,
        model_config: PretrainedConfig,
        device: torch.device | str,
        watermarking_config: WatermarkingConfig | Mapping[str, Any],
        ignore_repeated_ngrams: bool = False,
        max_cache_size: int = 128,
    ) -> None:
        config = read_watermark(watermarking_config)
        if config is None:
            raise GenerationError("WatermarkDetector needs the watermarking_config that the texts were marked with.")
        if not isinstance(config, WatermarkingConfig):
            raise GenerationError("WatermarkDetector finds green lists; for SynthID's mark take the mean of "
                                  "compute_g_values of its processor.")  # fmt: skip
        text_config = model_config.get_text_config(decoder=True)
        starts = text_config.decoder_start_token_id if model_config.is_encoder_decoder else text_config.bos_token_id
        self.bos_token_id: int | None = starts
        self.greenlist_ratio, self.ignore_repeated_ngrams = config.greenlist_ratio, ignore_repeated_ngrams
        self.processor = config.construct_processor(text_config.vocab_size, device)

    def _counts(self, text: Tensor) -> tuple[int, int]:
        """(tokens that were asked about, green ones) of a text [L]."""
        itself = self.processor.table is not None
        n = self.processor.context_width + (not itself)
        runs = [tuple(run) for run in text.unfold(0, n, 1).tolist()]  # [L - n + 1, n]
        known: dict[tuple[int, ...], bool] = {}
        for run in runs:
            if run not in known:
                before = torch.tensor(run if itself else run[:-1], device=self.processor.rng.device)
                known[run] = bool((self.processor.green(before) == run[-1]).any())
        counted = list(known.values()) if self.ignore_repeated_ngrams else [known[run] for run in runs]
        return len(counted), sum(counted)

    def __call__(
        self, input_ids: Tensor, z_threshold: float = 3.0, return_dict: bool = False
    ) -> WatermarkDetectorOutput | np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether texts of ids [B, L] are marked: bool [B], or with `return_dict` all that was counted.

        Raises:
            InputError: the texts are too short to say anything.
        """
        if self.bos_token_id is not None and int(input_ids[0, 0]) == self.bos_token_id:
            input_ids = input_ids[:, 1:]
        if input_ids.shape[-1] - self.processor.context_width < 1:
            raise InputError(
                f"a text of {input_ids.shape[-1]} tokens says nothing of a mark with context_width="
                f"{self.processor.context_width}; pass a longer one."
            )
        counts = np.array([self._counts(text) for text in input_ids], dtype=np.float64)
        n, green = counts[:, 0], counts[:, 1]
        share = self.greenlist_ratio
        z = (green - share * n) / np.sqrt(n * share * (1 - share))
        prediction = z > z_threshold
        if not return_dict:
            return prediction
        chance = np.array([math.erfc(value / math.sqrt(2)) / 2 for value in z])
        return WatermarkDetectorOutput(
            num_tokens_scored=n,
            num_green_tokens=green,
            green_fraction=green / n,
            z_score=z,
            p_value=chance,
            prediction=prediction,
            confidence=1 - chance,
        )

"""The processors that sampling uses: what sharpens scores, and what rules the unlikely out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cutaway.generate import sampling
from cutaway.generate.logits_process import LogitsProcessor, above_zero, whole_number

_TOP_H = 100  # how many of the likeliest tokens top-h looks at


class _Narrowing(LogitsProcessor):
    """Rules out the unlikely: what is left out gets `filter_value`, and some tokens stay in any case."""

    def __init__(self, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        self.filter_value, self.min_tokens_to_keep = (
            filter_value,
            whole_number("min_tokens_to_keep", min_tokens_to_keep),
        )

    def warp(self, scores: Tensor) -> Tensor:
        """The scores, -inf where a token is ruled out."""
        raise NotImplementedError

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = sampling.at_least(self.warp(scores), scores, self.min_tokens_to_keep)
        if self.filter_value == -math.inf:
            return kept
        return scores.masked_fill(kept.isneginf() & ~scores.isneginf(), self.filter_value)


class TemperatureLogitsWarper(LogitsProcessor):
    """scores / temperature."""

    def __init__(self, temperature: float) -> None:
        self.temperature = above_zero("temperature", temperature)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return sampling.temperature(scores, self.temperature)


class TopKLogitsWarper(_Narrowing):
    """Keeps the k most likely tokens."""

    def __init__(self, top_k: int, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_k = max(whole_number("top_k", top_k), min_tokens_to_keep)

    def warp(self, scores: Tensor) -> Tensor:
        return sampling.top_k(scores, self.top_k)


class TopPLogitsWarper(_Narrowing):
    """Keeps the fewest most likely tokens that add up to a probability of p."""

    def __init__(self, top_p: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_p = 0.0 if top_p == 0 else above_zero("top_p", top_p, 1.0)

    def warp(self, scores: Tensor) -> Tensor:
        return sampling.top_p(scores, self.top_p)


class MinPLogitsWarper(_Narrowing):
    """Keeps the tokens that are at least p times as likely as the most likely one."""

    def __init__(self, min_p: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.min_p = 0.0 if min_p == 0 else above_zero("min_p", min_p, 1.0)

    def warp(self, scores: Tensor) -> Tensor:
        return sampling.min_p(scores, self.min_p)


class TypicalLogitsWarper(_Narrowing):
    """Keeps the tokens whose information is near to what is expected, up to a probability of `mass`."""

    def __init__(self, mass: float = 0.9, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, 1)
        self.mass = above_zero("mass", mass, 1.0, below=True)
        self.least = whole_number("min_tokens_to_keep", min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = sampling.typical_p(scores, self.mass)
        if self.least > 1:  # those nearest to what is expected, which need not be the likeliest
            information = -scores.log_softmax(dim=-1)
            entropy = (information.neg().exp() * information).nansum(dim=-1, keepdim=True)  # [B, 1]
            near = (information - entropy).abs().topk(min(self.least, scores.shape[-1]), largest=False).indices
            kept = kept.scatter(1, near, scores.gather(1, near))
        if self.filter_value == -math.inf:
            return kept
        return scores.masked_fill(kept.isneginf() & ~scores.isneginf(), self.filter_value)


class EpsilonLogitsWarper(_Narrowing):
    """Keeps the tokens of a probability of at least epsilon."""

    def __init__(self, epsilon: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = above_zero("epsilon", epsilon, 1.0, below=True)

    def warp(self, scores: Tensor) -> Tensor:
        return sampling.epsilon_cutoff(scores, self.epsilon)


class EtaLogitsWarper(_Narrowing):
    """`EpsilonLogitsWarper` at a threshold that is lower where many tokens are likely."""

    def __init__(
        self,
        epsilon: float,
        filter_value: float = -math.inf,
        min_tokens_to_keep: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = above_zero("epsilon", epsilon, 1.0, below=True)

    def warp(self, scores: Tensor) -> Tensor:
        return sampling.eta_cutoff(scores, self.epsilon)


class TopHLogitsWarper(LogitsProcessor):
    """Keeps the most likely tokens whose share of the entropy, added up, stays below `top_h` (arXiv:2509.02510)."""

    def __init__(self, top_h: float, filter_value: float = -math.inf) -> None:
        self.top_h, self.filter_value = above_zero("top_h", top_h, 1.0), filter_value

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        likely, order = scores.topk(min(_TOP_H, scores.shape[-1]), dim=-1)  # [B, n]
        information = -likely.log_softmax(dim=-1)
        share = torch.where(likely.isneginf(), 0.0, information.neg().exp() * information)
        kept = share.cumsum(dim=-1) <= share.sum(dim=-1, keepdim=True) * self.top_h
        kept[:, 0] = True
        return torch.full_like(scores, self.filter_value).scatter(
            1, order, likely.masked_fill(~kept, self.filter_value)
        )

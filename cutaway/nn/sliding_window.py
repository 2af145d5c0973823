"""Attention that reaches only so far: which keys a stretch of queries needs, and which of those each query sees."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Queries that one call of the kernel takes. A stretch looks at STRETCH + 2 window keys, of which a query sees 2 window.
STRETCH = 64


def band(length: int, window: int, causal: bool, device: torch.device, before: int = 0, after: int = 0) -> Tensor:
    """[length, before + length + after] bool: which keys each query sees; the first key is `before` places before."""
    queries = torch.arange(length, device=device)[:, None]
    ahead = torch.arange(-before, length + after, device=device) - queries
    return (ahead > -window) & (ahead < (1 if causal else window))


def stretches(length: int, window: int, causal: bool, device: torch.device) -> Iterator[tuple[slice, slice, Tensor]]:
    """Queries, the keys that they reach, and the mask [queries, keys], until all `length` queries have had their turn.

    Beltagy et al. (2020), section 3.1: the cost grows with length times window, not with the square of the length.
    """
    reach = window - 1
    ahead = 0 if causal else reach
    widest_mask = band(min(STRETCH, length), window, causal, device, min(reach, length), min(ahead, length))
    zero = min(reach, length)  # the column of the mask that stands for the stretch's own first place
    for start in range(0, length, STRETCH):
        end = min(start + STRETCH, length)
        first, last = max(0, start - reach), min(length, end + ahead)
        mask = widest_mask[: end - start, zero + first - start : zero + last - start]
        yield slice(start, end), slice(first, last), mask

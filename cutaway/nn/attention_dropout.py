"""Attention whose weights are dropped at random, on a processor.

torch's fast kernel has no dropout there: it computes step by step, with a slow dropout. So the steps are made here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.nn.attention_pattern import repeat_kv, weighted_values
from cutaway.nn.dropout import dropout


def attention_with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, rate: float
) -> Tensor | None:
    """dropout(softmax(q k^T * scale + mask)) v, [n * a, heads, d]; None where torch's kernel is the one to use.

    Args:
        q: [n, heads, a, d]. k, v: [n, kv heads, b, d].
        mask: True where a key is seen, or what is added to the scores; broadcasts to [n, heads, a, b].
        causal: each query sees the keys up to its own place; goes with no mask.
    """
    if q.device.type != "cpu":
        return None
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = q.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
        if bool((mask == -torch.inf).all(-1).any()):
            return None  # a query that sees nothing: the kernel gives zeros
    s = (q * scale) @ repeat_kv(k, q.shape[1]).transpose(-1, -2)  # [n, heads, a, b]
    return weighted_values(dropout(torch.softmax(s if mask is None else s + mask, -1), rate), v)

"""Attention whose scores are bounded, which torch's kernel does not know: plain products, some queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.nn.attention_pattern import repeat_kv, scores, softmax_seen, weighted_values
from cutaway.nn.dropout import dropout as drop

STRETCH = 256  # queries whose scores are held at once


def capped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    softcap: float,
    rate: float,
) -> Tensor:
    """softmax(softcap tanh(scale q k^T / softcap) + mask) v, a bound as in Gemma 2 (2024, section 2).

    q [n, heads, a, size], k and v [n, kv heads, b, size] -> [n * a, heads, size]. mask: [..., a or 1, b],
    of bool or added to the scores. causal: the i-th query sees the keys up to the i-th. rate: of dropout.
    """
    length = q.shape[2]
    k, v = repeat_kv(k, q.shape[1]), repeat_kv(v, q.shape[1])
    outputs = []
    for start in range(0, length, STRETCH):
        end = min(start + STRETCH, length)
        seen = slice(0, end) if causal else slice(None)
        own_mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:end, :]
        s = scores(q[:, :, start:end], k[:, :, seen], own_mask, scale, softcap)  # [n, heads, stretch, keys]
        if causal and end > 1:
            hidden = torch.ones(s.shape[2:], dtype=torch.bool, device=s.device).triu(start + 1)
            s = s.masked_fill(hidden, -torch.inf)
        pattern = drop(softmax_seen(s) if mask is not None else torch.softmax(s, -1), rate)
        outputs.append(weighted_values(pattern, v[:, :, seen]).unflatten(0, (q.shape[0], -1)))
    return torch.cat(outputs, 1).flatten(0, 1)  # [n * a, heads, size]

"""Dropout (Srivastava et al., 2014) that is quick on a processor too: 16 random bits a number decide what stays.

`torch.nn.functional.dropout` draws each number of a tensor on a processor by itself, which there costs more than the
layers around it. Elsewhere it is used as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL = 8192  # numbers; up to here torch's own is as quick
_STEPS = 2**16


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """x with each number made 0 with the probability `rate`, the others scaled so that the mean stays.

    On a processor the rate is taken to the next 1/65,536, and the scale fits that rate. Draws from torch's generator of
    the device, so a seed or a restored state gives the same numbers again.
    """
    if not training or not rate:
        return x
    dropped = round(rate * _STEPS)
    plain = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu"
    if not plain or x.numel() < _SMALL or not 0 < dropped < _STEPS:
        return F.dropout(x, rate)
    # A comparison in place leaves 0 and 1 as int16; times these, x keeps its type and goes through its memory once.
    keep = _sixteen_bits(x.numel()).view(x.shape).ge_(dropped - _STEPS // 2)
    return (x * keep).mul_(_STEPS / (_STEPS - dropped))


def _sixteen_bits(n: int) -> Tensor:
    """n random numbers, each of the 65,536 of int16 as likely as the others."""
    drawn = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    return drawn.view(torch.int16)[:n]

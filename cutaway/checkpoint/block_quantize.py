"""A matrix to 4 bits, in ggml's format Q4_1: groups of 32 with a scale and a least number of 16 bits each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.checkpoint.gguf_blocks import StoredBlocks
from cutaway.errors import CheckpointError

if TYPE_CHECKING:
    import torch

GROUP, LEVELS, LARGEST = 32, 15, 65504.0
_Q4_1 = 3


def four_bits(weight: torch.Tensor) -> StoredBlocks:
    """Weight [n, k], k a multiple of 32, as least + scale * q with q from 0 to 15 in each group of 32.

    The error of a number is at most half a scale, (largest - least) / 30, beside the rounding of both to 16 bits.
    CheckpointError where a number is NaN or not below 65,504.
    """
    import torch

    n, k = weight.shape
    groups = weight.detach().to(torch.float32).reshape(n, k // GROUP, GROUP)  # [n, groups, 32]
    least, most = groups.aminmax(dim=2)  # [n, groups]
    if not bool((least > -LARGEST).all() and (most < LARGEST).all()):
        raise CheckpointError("A matrix with NaN, infinity or numbers of 65,504 and more cannot be stored in 4 bits.")
    scale, least = ((most - least) / LEVELS).half(), least.half()
    inverse = torch.where(scale > 0, 1 / scale.float(), 0.0)
    q = ((groups - least.float()[..., None]) * inverse[..., None]).round_().clamp_(0, LEVELS).to(torch.uint8)
    low, high = q.split(GROUP // 2, 2)  # [n, groups, 16] each
    heads = torch.stack((scale, least), 2).view(torch.uint8)  # [n, groups, 4]
    data = torch.cat((heads, low | (high << 4)), 2).flatten(1)  # [n, groups * 20]
    return StoredBlocks(data.contiguous(), _Q4_1, "Q4_1", k)

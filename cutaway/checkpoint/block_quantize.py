"""Matrices to ggml's block formats: groups of numbers that share a scale, and in some formats a least number.

Layouts are those of ggml (ggml-org/ggml, src/ggml-common.h). The scales are found here: of a few candidates for each
group, the one whose numbers, put back, lie nearest to the given ones (least squares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.checkpoint.gguf_blocks import BLOCKS, StoredBlocks
from cutaway.errors import CheckpointError

if TYPE_CHECKING:
    import torch

GROUP, LEVELS, LARGEST = 32, 15, 65504.0
SUPERBLOCK = 256
ROWS = 1 << 20  # numbers that are worked on at once: the candidates need some ten times their memory
# ggml's numbers of the types that can be written
TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
    "BF16": 30,
}  # fmt: skip
_Q4_1, _Q8_0 = TYPES["Q4_1"], TYPES["Q8_0"]


def four_bits(weight: torch.Tensor) -> StoredBlocks:
    """Weight [n, k], k a multiple of 32, as least + scale * q with q from 0 to 15 in each group of 32 (Q4_1).

    The error of a number is at most half of a fifteenth of its group's span, beside the rounding of both to 16 bits. Of
    a few scales that keep this, the one with the least squared error is taken: numbers that were of such blocks come
    back as they were. CheckpointError where a number is NaN or not below 65,504.
    """
    import torch

    n, k = weight.shape
    data = torch.empty(n, k // GROUP, 4 + GROUP // 2, dtype=torch.uint8)  # [n, groups, 20]
    step = max(1, ROWS // k)
    for start in range(0, n, step):
        groups = weight.detach()[start : start + step].to(torch.float32).reshape(-1, k // GROUP, GROUP)
        least, most = groups.aminmax(dim=2)  # [rows, groups]
        if not bool((least > -LARGEST).all() and (most < LARGEST).all()):
            raise CheckpointError(
                "A matrix with NaN, infinity or numbers of 65,504 and more cannot be stored in 4 bits."
            )
        scale, offset = (x.half() for x in _least_squares(groups, least, most - least))
        q = _whole(groups, scale.float(), offset.float()).to(torch.uint8)
        low, high = q.split(GROUP // 2, 2)  # [rows, groups, 16] each
        data[start : start + step, :, :4] = torch.stack((scale, offset), 2).view(torch.uint8)
        data[start : start + step, :, 4:] = low | (high << 4)
    return StoredBlocks(data.flatten(1), _Q4_1, "Q4_1", k)


def _least_squares(groups: torch.Tensor, least: torch.Tensor, span: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and least number of groups [..., 32], both [...]: the best of a few."""
    import torch

    best_scale, best_least = span / LEVELS, least
    difference = _difference(groups, best_scale, best_least)
    best_error, largest = difference.square().sum(-1), span / (2 * LEVELS)
    mean = groups.mean(-1)
    for levels in (15, 14, 13):  # the last two: of a group that used no more steps
        q = _whole(groups, span / levels, least)
        q_mean = q.mean(-1)
        variance = q.square().mean(-1) - q_mean * q_mean
        scale = ((q * groups).mean(-1) - q_mean * mean) * _inverse(variance)  # of the line through these q
        offset = mean - scale * q_mean
        difference = _difference(groups, scale, offset)
        error = difference.square().sum(-1)
        better = (error < best_error) & (scale > 0) & (difference.abs().amax(-1) <= largest)
        best_error = torch.where(better, error, best_error)
        best_scale, best_least = torch.where(better, scale, best_scale), torch.where(better, offset, best_least)
    return best_scale, best_least


def _difference(groups: torch.Tensor, scale: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """What the numbers [..., 32] are off by in these steps."""
    return _whole(groups, scale, least) * scale[..., None] + (least[..., None] - groups)


def _whole(groups: torch.Tensor, scale: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """The numbers [..., 32] in whole steps from the least one, from 0 to 15."""
    return ((groups - least[..., None]) * _inverse(scale)[..., None]).round_().clamp_(0, LEVELS)


def eight_bits(weight: torch.Tensor) -> StoredBlocks:
    """Weight [n, k], k a multiple of 32, as scale * q with q from -127 to 127 in each group of 32 (Q8_0).

    The error of a number is at most half a scale, the group's largest / 254, beside the scale's rounding to 16 bits.
    CheckpointError where a number is NaN or not below 65,504.
    """
    import torch

    n, k = weight.shape
    data = torch.empty(n, k // GROUP, 2 + GROUP, dtype=torch.uint8)  # [n, groups, 34]
    step = max(1, ROWS // k)
    for start in range(0, n, step):
        groups = weight.detach()[start : start + step].to(torch.float32).reshape(-1, k // GROUP, GROUP)
        most = groups.abs().amax(2)  # [rows, groups]
        if not bool((most < LARGEST).all()):
            raise CheckpointError("A matrix with NaN, infinity or numbers of 65,504 and more cannot be stored in Q8_0.")
        scale = (most / 127).half()
        q = (groups * _inverse(scale.float())[..., None]).round_().clamp_(-127, 127).to(torch.int8)
        data[start : start + step, :, :2] = scale[..., None].view(torch.uint8)
        data[start : start + step, :, 2:] = q.view(torch.uint8)
    return StoredBlocks(data.flatten(1), _Q8_0, "Q8_0", k)


def quantize(weight: torch.Tensor, name: str) -> StoredBlocks:
    """A matrix [n, k] in one of the formats of `TYPES`; k must be a multiple of the format's block.

    Q4_K, Q5_K and Q6_K are found by least squares; the others are those of the package `gguf`.

    Raises:
        CheckpointError: k is no whole number of blocks, or a number is NaN, infinite or too large for the format.
    """
    import torch

    n, k = weight.shape
    kind = TYPES[name]
    per_block, size = BLOCKS[kind]
    if k % per_block:
        raise CheckpointError(f"Rows of {k} numbers are no whole blocks of {per_block}, which {name} has.")
    numbers = weight.detach().to(torch.float32)
    most = float(numbers.abs().max()) if numbers.numel() else 0.0
    if not most < LARGEST and name not in ("F32", "BF16"):
        raise CheckpointError(f"A matrix with NaN, infinity or numbers of 65,504 and more cannot be stored as {name}.")
    data = torch.empty(n, k // per_block * size, dtype=torch.uint8)
    step = max(1, ROWS // max(k, 1))
    for start in range(0, n, step):
        rows = numbers[start : start + step].contiguous()
        data[start : start + step] = _rows(rows, name)
    return StoredBlocks(data, kind, name, k)


def _rows(rows: torch.Tensor, name: str) -> torch.Tensor:
    """Rows [m, k] float32 -> [m, bytes of a row]."""
    import torch

    if name in ("Q4_K", "Q5_K"):
        return _with_least(rows, 4 if name == "Q4_K" else 5)
    if name == "Q6_K":
        return _six_bits(rows)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize as by_gguf

    stored = by_gguf(rows.numpy(), GGMLQuantizationType[name])
    return torch.from_numpy(stored).view(torch.uint8).reshape(len(rows), -1)  # [m, bytes]


def _with_least(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """Q4_K, Q5_K: superblocks of 256 as 8 groups; a number is d * s * q - dmin * m, with s and m of 6 bits."""
    import torch

    m, _k = rows.shape
    levels = (1 << bits) - 1
    x = rows.reshape(-1, 8, GROUP)  # [superblocks, 8, 32]
    scale, least = _fitted(x, levels)
    d, d_least = (scale.amax(1) / 63).half(), (least.amax(1) / 63).half()  # [superblocks]
    s, low = _codes(scale, d, 63), _codes(least, d_least, 63)
    unit, floor = d.float()[:, None] * s, d_least.float()[:, None] * low  # [superblocks, 8]
    q = ((x + floor[..., None]) * _inverse(unit)[..., None]).round_().clamp_(0, levels).to(torch.uint8)
    pairs = q.reshape(-1, 4, 2, GROUP)  # [superblocks, 4, 2, 32]: two groups share 32 bytes, the first in the low half
    halves = ((pairs[:, :, 0] & 15) | ((pairs[:, :, 1] & 15) << 4)).reshape(-1, 128)  # [superblocks, 128]
    heads = torch.stack((d, d_least), 1).view(torch.uint8)  # [superblocks, 4]
    parts = [heads, _packed_scales(s.to(torch.uint8), low.to(torch.uint8))]
    if bits == 5:  # the fifth bit of group g is bit g of 32 bytes
        shifts = torch.arange(8, dtype=torch.uint8)[None, :, None]
        parts.append(((q >> 4) << shifts).sum(1, dtype=torch.int32).to(torch.uint8))  # [superblocks, 32]
    return torch.cat([*parts, halves], 1).reshape(m, -1)  # [m, bytes of a row]


def _fitted(x: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale s and least number -m (m >= 0) of groups [..., g] so that s * q - m lies near x: two [...] each."""
    import torch

    least = (-x.amin(-1)).clamp_min(0)  # [...]
    span = (x.amax(-1) + least).clamp_min(0)
    best_error = torch.full_like(span, torch.inf)
    best_scale, best_least = span / levels, least
    mean, size = x.mean(-1), x.shape[-1]
    for shrink in (1.0, 0.97, 0.94, 0.91, 0.88, 0.84, 0.8):
        scale = span * shrink / levels
        low = least * shrink
        q = ((x + low[..., None]) * _inverse(scale)[..., None]).round_().clamp_(0, levels)
        # the line x = s q - m of least squares through these q: s = cov(x, q) / var(q), m = s mean(q) - mean(x)
        q_mean = q.mean(-1)
        variance = (q * q).mean(-1) - q_mean * q_mean
        slope = ((q * x).mean(-1) - q_mean * mean) * _inverse(variance)
        offset = slope * q_mean - mean
        through_zero = (q * x).sum(-1) * _inverse((q * q).sum(-1))  # where the best m is below 0, it is 0
        fits = (offset >= 0) & (slope > 0)
        slope = torch.where(fits, slope, through_zero.clamp_min(0))
        offset = torch.where(fits, offset, torch.zeros_like(offset))
        error = (q * slope[..., None] - offset[..., None] - x).square_().sum(-1) / size
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale, best_least = torch.where(better, slope, best_scale), torch.where(better, offset, best_least)
    return best_scale, best_least


def _packed_scales(s: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Eight numbers of 6 bits each, scales and least ones [superblocks, 8], in 12 bytes."""
    import torch

    first = (s[:, :4] & 63) | ((s[:, 4:] >> 4) << 6)  # [superblocks, 4]: the upper bits hold those of scales 4 to 7
    second = (low[:, :4] & 63) | ((low[:, 4:] >> 4) << 6)
    third = (s[:, 4:] & 15) | ((low[:, 4:] & 15) << 4)
    return torch.cat((first, second, third), 1)  # [superblocks, 12]


def _six_bits(rows: torch.Tensor) -> torch.Tensor:
    """Q6_K: superblocks of 256 as 16 groups; a number is d * s * (q - 32), with s of 8 bits with a sign."""
    import torch

    m = len(rows)
    x = rows.reshape(-1, 16, 16)  # [superblocks, 16, 16]
    largest = x.gather(2, x.abs().argmax(2, keepdim=True)).squeeze(2)  # [superblocks, 16], with its sign
    best_error, best = torch.full_like(largest, torch.inf), torch.zeros_like(largest)
    for levels in (-32.0, -31.5, -31.0, -30.0, -29.0, 31.0, 30.0):
        q = (x * (levels * _inverse(largest))[..., None]).round_().clamp_(-32, 31)
        scale = (q * x).sum(2) * _inverse((q * q).sum(2))  # of least squares
        error = (q * scale[..., None] - x).square_().sum(2)
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    strongest = best.gather(1, best.abs().argmax(1, keepdim=True)).squeeze(1)  # [superblocks]
    d = (strongest / -128).half()
    s = (best * _inverse(d.float())[:, None]).round_().clamp_(-128, 127)  # [superblocks, 16]
    q = (x * _inverse(d.float()[:, None] * s)[..., None]).round_().clamp_(-32, 31).add_(32).to(torch.uint8)
    quarters = q.reshape(-1, 2, 4, 32)  # [superblocks, 2, 4, 32]: each half of 128 as four runs of 32
    low, high = quarters & 15, quarters >> 4
    lows = torch.cat((low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)), 2)  # [.., 2, 64]
    highs = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)  # [.., 2, 32]
    parts = (lows.flatten(1), highs.flatten(1), s.to(torch.int8).view(torch.uint8), d[:, None].view(torch.uint8))
    return torch.cat(parts, 1).reshape(m, -1)  # [m, bytes of a row]


def _codes(values: torch.Tensor, unit: torch.Tensor, most: int) -> torch.Tensor:
    """Values [n, g] in whole units [n], from 0 to `most`."""
    return (values * _inverse(unit.float())[:, None]).round_().clamp_(0, most)


def _inverse(values: torch.Tensor) -> torch.Tensor:
    """1 / values, and 0 where they are 0."""
    import torch

    return torch.where(values == 0, torch.zeros_like(values), 1 / values)

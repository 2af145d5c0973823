"""Weights of bytes with a scale for each 32 numbers, in the order in which the compiled kernels multiply by them.

The numbers are those of ggml's Q8_0. A file's blocks must be brought into another order in each call with many rows;
what is quantized here lies in that order from the start, at no more memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.checkpoint.block_quantize import GROUP, eight_bits
from cutaway.nn.cpu.memory import weight_memory

UNIT = 16  # rows that lie together, as in native/tiles8.c
STEP = 4  # numbers of a row that lie together
PAIR = 2 * (UNIT * 2 + UNIT * GROUP)  # bytes of two groups of such rows: their scales, their numbers
ROWS = 1 << 20  # numbers that are worked on at once
ZERO = 128  # the byte that is 0


class Int8Tiles:
    """A weight [n, k], k a multiple of 32, as scale * q with q from -127 to 127 in each group of 32.

    The error of a number is at most half a scale, the group's largest / 254, beside the scale's rounding to 16 bits.

    Attributes:
        n, k: its shape. name: what is said of it.
        data: [ceil(n / 16), bytes of 16 rows] uint8. Of each two groups the scales as float16 [2, 16], then q + 128 as
            [2, 8, 16, 4]; where the last group is alone, its second numbers are left out.

    Raises:
        CheckpointError: a number is NaN or not below 65,504.
    """

    name = "Q8_0"

    def __init__(self, weight: Tensor) -> None:
        self.n, self.k = n, k = weight.shape
        pairs = -(-k // (2 * GROUP))
        width = pairs * 2 * UNIT * 2 + k * UNIT  # bytes of 16 rows
        self.data = weight_memory(-(-n // UNIT) * width).view(-1, width)  # [units, width]
        step = max(1, ROWS // (k * UNIT)) * UNIT
        for start in range(0, n, step):
            blocks = eight_bits(weight[start : start + step]).data  # [m, groups * 34]
            rows = F.pad(blocks, (0, (2 * pairs - k // GROUP) * (2 + GROUP), 0, -len(blocks) % UNIT))
            each = rows.view(-1, UNIT, pairs, 2, 2 + GROUP)  # [units, 16, pairs, 2, 34]
            scales = each[..., :2].permute(0, 2, 3, 1, 4).flatten(2)  # [units, pairs, 2 * 16 * 2]
            q = each[..., 2:].unflatten(4, (-1, STEP)).permute(0, 2, 3, 4, 1, 5)  # [units, pairs, 2, 8, 16, 4]
            units = torch.cat((scales, q.flatten(2) ^ ZERO), 2).flatten(1)  # [units, pairs * bytes of a pair]
            self.data[start // UNIT :][: len(units)] = units[:, :width]

    @property
    def nbytes(self) -> int:
        """How many bytes it is."""
        return self.data.nbytes

    def dequantized(self, rows: Tensor) -> Tensor:
        """Rows by their numbers [m] -> [m, k] float32, by torch."""
        units = self.data[rows // UNIT]  # [m, bytes of 16 rows]
        pairs = F.pad(units, (0, -units.shape[1] % PAIR)).view(len(rows), -1, PAIR)  # [m, pairs, bytes of a pair]
        scales = pairs[..., : 4 * UNIT].contiguous().view(torch.float16).unflatten(2, (2, UNIT))  # [m, pairs, 2, 16]
        q = pairs[..., 4 * UNIT :].unflatten(2, (2, -1, UNIT, STEP))  # [m, pairs, 2, 8, 16, 4]
        each, place = torch.arange(len(rows)), rows % UNIT
        numbers = q[each, :, :, :, place].flatten(3).float().sub_(ZERO)  # [m, pairs, 2, 8, 4] -> [m, pairs, 2, 32]
        values: Tensor = numbers * scales[each, :, :, place].float()[..., None]
        return values.flatten(1)[:, : self.k]  # [m, pairs, 2, 32] -> [m, k]

"""What one head adds to the output of its attention: its mixed values times its columns of the output matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cutaway.nn.linear import Linear, columns, matrix_of
from cutaway.nn.packed_batch import PackedBatch


def head_output(layer: Linear, z: Tensor, head: int, part: slice, rows: PackedBatch) -> Callable[[], Tensor]:
    """A function that gives [batch, length, hidden], of `layer` as it is now.

    All heads' outputs together are as many times the hidden states as there are heads. So until the function is called
    it holds the smaller of two: the output, or the mixed values with a copy of the head's columns.

    Args:
        z: the mixed values [rows, heads, head_size], which nothing else writes to. part: the head's inputs of `layer`.
    """
    z_head = z[:, head]  # [rows, head_size]
    adapted = getattr(layer, "site", None) is not None
    if z_head.shape[0] <= z_head.shape[1] or adapted or torch.is_autocast_enabled(z.device.type):
        return partial(rows.pad, columns(layer, z_head, part))
    return partial(_laid, z_head, matrix_of(layer).detach()[:, part].clone(), rows)


def _laid(own: Tensor, weight: Tensor, rows: PackedBatch) -> Tensor:
    return rows.pad(own @ weight.T)

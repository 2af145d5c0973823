"""A text as the vector of its first token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.nn.linear import Linear
from cutaway.nn.packed_batch import PackedBatch


class Pooler(nn.Module):
    """tanh(dense(first token)) (Devlin et al., 2019): the text as one vector."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, rows: PackedBatch | None = None) -> Tensor:
        """hidden [batch, length, hidden] -> [batch, hidden]."""
        return torch.tanh(self.dense(first_token(hidden, rows)))

    # ALBERT publishes the one layer under the pooler's own name
    @property
    def weight(self) -> Tensor:
        return self.dense.weight

    @property
    def bias(self) -> Tensor:
        return self.dense.bias


def first_token(hidden: Tensor, rows: PackedBatch | None) -> Tensor:
    """The first real token of each text; [batch, length, hidden] -> [batch, hidden]."""
    if rows is None or rows.mask is None:
        return hidden[:, 0]
    return hidden[torch.arange(rows.batch, device=hidden.device), rows.mask.int().argmax(1)]

"""A sum over neighbouring words, which DeBERTa-v2's larger models add to their first block."""

from __future__ import annotations

from torch import Tensor, nn

from cutaway.config.architecture import Convolution, Norm
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.activations.taps import Tap
from cutaway.nn.call_context import evaluating
from cutaway.nn.dropout import dropout
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.norm_mlp import make_norm
from cutaway.nn.packed_batch import PackedBatch
from cutaway.nn.padded_hooks import PaddedHooks


class Conv1d(nn.Conv1d):
    """torch's convolution without its first weights, which the loader draws."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


class NeighbourSum(PaddedHooks, NamedModule):
    """norm(block(x) + activation(convolution(x)))."""

    def __init__(self, spec: Convolution, norm: Norm, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.conv = Conv1d(hidden_size, hidden_size, spec.size, padding=spec.size // 2, groups=spec.groups)
        self.norm = make_norm(norm, hidden_size)

    def forward(self, entered: Tensor, x: Tensor, rows: PackedBatch, tap: Tap | None = None) -> Tensor:
        """entered: what the block read, x: what it made of it; [batch, length, hidden] or packed [rows, hidden].

        Beyond a text's ends, and where the mask hides a word, neighbours are zeros.
        """
        padded = rows.pad_hidden(entered).transpose(1, 2)  # [batch, hidden, length]
        summed = rows.pack(self.conv(padded).transpose(1, 2))
        summed = dropout(summed, self.spec.dropout, self.training and not evaluating())
        added = ACTIVATION[self.spec.activation](summed)
        if tap is not None:
            added = tap.expose("conv", added)
        return self.norm(x + added)  # type: ignore[no-any-return]

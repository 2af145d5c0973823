"""Sparse autoencoders and transcoders at an address: a vector as a sum of few of many directions.

A sparse autoencoder (Bricken et al., 2023; Cunningham et al., 2023, 2309.08600) reads a vector x, gives features f(x)
and makes a reconstruction of them; what it misses, the error, is x less the reconstruction. An edit of features changes
x by what the decoder makes of the difference, so that the error stays, and where nothing is edited x is x, bit for bit.
A transcoder (Dunefsky et al., 2024, 2406.11944) reads one place and reconstructs another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.nn.activations.edits import Edit, Places

Activation = Literal["relu", "jumprelu", "gated", "topk"]
EPS = 1e-5  # beside the deviation, as in SAELens' own norm


@dataclass
class SparseAutoencoder:
    """The numbers of one sparse autoencoder, of `n` features of vectors of size `d_in`, reconstructing `d_out`.

    Attributes:
        activation: what makes features of sums: "relu", "jumprelu" (Rajamanoharan et al., 2024, 2407.14435: those above
            `threshold`), "gated" (2404.16014) or "topk" (Gao et al., 2024, 2406.04093: the `k` largest).
        encoder: [d_in, n]. decoder: [n, d_out]. encoder_bias: [n], of a gated one the gate's. decoder_bias: [d_out].
        threshold: [n], of "jumprelu". magnitude, magnitude_bias: [n], of "gated": the scale's logarithm, and the bias.
        k: of "topk". by_norm: whether sums are compared and given times the length of the feature's direction.
        centred: whether the decoder's bias is taken off before the encoder.
        norm: what is done to each vector first, and undone to its reconstruction.
        skip_weight: [d_out, d_in], of a transcoder with a linear way around its features.
        trained_at: the place that the file says it is of, in its author's words.
    """

    activation: Activation
    encoder: Tensor
    decoder: Tensor
    encoder_bias: Tensor
    decoder_bias: Tensor
    threshold: Tensor | None = None
    magnitude: Tensor | None = None
    magnitude_bias: Tensor | None = None
    k: int = 0
    by_norm: bool = False
    centred: bool = False
    norm: Literal["none", "layer_norm", "constant_norm_rescale"] = "none"
    skip_weight: Tensor | None = None
    transcodes: bool = False
    trained_at: str = ""
    _moved: dict[torch.device, SparseAutoencoder] = field(default_factory=dict, repr=False)

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return self.encoder.shape[1]

    def on(self, device: torch.device) -> SparseAutoencoder:
        """The same numbers on a device; copied there once."""
        if device == self.encoder.device:
            return self
        if device not in self._moved:
            there = copy.copy(self)
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(there, name, value.to(device))
            self._moved[device] = there
        return self._moved[device]

    def encode(self, x: Tensor) -> Tensor:
        """Features of vectors: [..., d_in] -> [..., n], in the autoencoder's own dtype, none negative."""
        x = x.to(self.encoder.dtype)
        scale, shift = self._norm_of(x)
        if scale is not None:
            x = (x - shift) / (scale + EPS) if shift is not None else x / scale
        if self.centred:
            x = x - self.decoder_bias
        if self.activation == "gated":
            assert self.magnitude is not None and self.magnitude_bias is not None
            open_ = (x @ self.encoder + self.encoder_bias > 0).to(x.dtype)
            return open_ * torch.relu(x @ (self.encoder * self.magnitude.exp()) + self.magnitude_bias)
        sums = x @ self.encoder + self.encoder_bias
        if self.activation == "jumprelu":
            assert self.threshold is not None
            return torch.relu(sums) * (sums > self.threshold).to(sums.dtype)
        if self.activation == "topk":
            sums = sums * self.lengths if self.by_norm else sums
            best = sums.topk(self.k, dim=-1, sorted=False)
            return torch.zeros_like(sums).scatter(-1, best.indices, best.values.relu())
        return torch.relu(sums)

    @property
    def lengths(self) -> Tensor:
        """[n] the length of each feature's direction."""
        lengths: Tensor = self.decoder.norm(dim=-1)
        return lengths

    @property
    def directions(self) -> Tensor:
        """[n, d_out] what a feature of 1 adds to the reconstruction, before the norm is undone."""
        return self.decoder / self.lengths[:, None] if self.by_norm else self.decoder

    def decode(self, features: Tensor, x: Tensor) -> Tensor:
        """The reconstruction [..., d_out] from features [..., n] of the vectors x [..., d_in]."""
        out = features @ self.directions + self.decoder_bias
        scale, shift = self._out_norm(x)
        out = out if scale is None else out * scale + (0 if shift is None else shift)
        return out if self.skip_weight is None else out + x.to(self.skip_weight.dtype) @ self.skip_weight.T

    def change(self, difference: Tensor, x: Tensor) -> Tensor:
        """What a difference of features [..., n] makes of the reconstruction of x: [..., d_out]; of none, 0 exactly."""
        out = difference @ self.directions
        scale, _ = self._out_norm(x)
        return out if scale is None else out * scale

    def _out_norm(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if self.transcodes else self._norm_of(x.to(self.encoder.dtype))

    def _norm_of(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """[..., 1] what a vector is divided by, and what is taken off before; None for nothing."""
        if self.norm == "layer_norm":
            return x.std(-1, keepdim=True), x.mean(-1, keepdim=True)
        if self.norm == "constant_norm_rescale":
            return x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5, None
        return None, None


@dataclass
class AttachedSae:
    """A sparse autoencoder at an address of a model (`model.attach_sae`).

    Attributes:
        name: what its addresses are called by. reads: the address whose vectors it reads. writes: the address that an
            edit of its features changes; the same, but for a transcoder. file: where its numbers were read from.
    """

    name: str
    reads: str
    writes: str
    sae: SparseAutoencoder
    file: str = ""

    @property
    def features(self) -> str:
        """The address of its features: [B, L, n]."""
        return f"sae.{self.name}.features"

    @property
    def error(self) -> str:
        """The address of what its reconstruction misses: [B, L, H]."""
        return f"sae.{self.name}.error"

    @property
    def addresses(self) -> tuple[str, str]:
        """Both."""
        return self.features, self.error

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return self.sae.n_features

    def scaled(self, features: int | Sequence[int], factor: float = 0.0, positions: Places = None) -> dict[str, Edit]:
        """The edit that multiplies features, 0 switches them off: `with model.edit(sae.scaled(7)): ...`.

        Raises:
            InputError: a number that is no feature.
        """
        at = self._checked(features)
        return self._edit(lambda value: value[..., at] * factor, at, positions)

    def steered(self, features: int | Sequence[int], amount: float, positions: Places = None) -> dict[str, Edit]:
        """The edit that adds `amount` to features, whether they are on or not: `with model.edit(sae.steered(7, 3.0))`.

        Raises:
            InputError: a number that is no feature.
        """
        at = self._checked(features)
        return self._edit(lambda value: value[..., at] + amount, at, positions)

    def _edit(self, new: Callable[[Tensor], Tensor], at: Tensor, positions: Places) -> dict[str, Edit]:
        def change(value: Tensor) -> Tensor:
            return value.index_copy(-1, at.to(value.device), new(value))

        return {self.features: Edit(change, positions=positions)}

    def _checked(self, features: int | Sequence[int]) -> Tensor:
        at = [features] if isinstance(features, int) else list(features)
        for number in at:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < self.n_features:
                raise InputError(f"feature={number!r:.40} of sae {self.name!r} must lie in 0..{self.n_features - 1}.")
        return torch.tensor(sorted(set(at)), dtype=torch.int64)  # [chosen]

    def flat(self, value: Tensor) -> Tensor:
        """[B, L, ...] -> [B, L, d]: heads stand side by side."""
        return value.flatten(2)

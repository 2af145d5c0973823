"""Activations by the names that config.json gives them: `ACT2FN["gelu"]`, `get_activation("silu")`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import ConfigError, nearest


class _Activation(nn.Module):
    """A function as a module."""

    function: Callable[[Tensor], Tensor]

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input)


class GELUActivation(_Activation):
    """x * P(X <= x) for a standard normal X (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

    function = staticmethod(F.gelu)

    def __init__(self, use_gelu_python: bool = False) -> None:
        super().__init__()  # both ways of upstream's give the same numbers up to rounding


class NewGELUActivation(_Activation):
    """GELU by a hyperbolic tangent, as in GPT-2."""

    function = staticmethod(lambda x: F.gelu(x, approximate="tanh"))


class PytorchGELUTanh(NewGELUActivation):
    """The same, under its other name."""


GELUTanh = PytorchGELUTanh


class FastGELUActivation(NewGELUActivation):
    """The same, under its other name."""


class QuickGELUActivation(_Activation):
    """x * sigmoid(1.702 x), a rougher GELU (the same paper)."""

    function = staticmethod(lambda x: x * torch.sigmoid(1.702 * x))


class ClippedGELUActivation(nn.Module):
    """GELU cut to a range, for models that compute with bytes."""

    def __init__(self, min: float, max: float) -> None:
        super().__init__()
        if min > max:
            raise ConfigError(f"min is {min} and max is {max}; min must not be above max.")
        self.min, self.max = min, max

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x).clip(self.min, self.max)


class AccurateGELUActivation(NewGELUActivation):
    """The same as `NewGELUActivation`, under its other name."""


class MishActivation(_Activation):
    """x * tanh(softplus(x)) (Misra 2019, arXiv:1908.08681)."""

    function = staticmethod(F.mish)


class LinearActivation(_Activation):
    """x itself."""

    function = staticmethod(lambda x: x)


class LaplaceActivation(nn.Module):
    """The error function of (x - mu) / sigma, from 0 to 1 (Ma et al. 2022, arXiv:2209.10655)."""

    def forward(self, input: Tensor, mu: float = 0.707107, sigma: float = 0.282095) -> Tensor:
        return 0.5 * (1.0 + torch.erf((input - mu).div(sigma * math.sqrt(2.0))))


class ReLUSquaredActivation(_Activation):
    """relu(x) squared (So et al. 2021, arXiv:2109.08668)."""

    function = staticmethod(lambda x: F.relu(x).square())


class SiLUActivation(_Activation):
    """x * sigmoid(x)."""

    function = staticmethod(F.silu)


class _Activations(Mapping[str, Any]):
    """name -> a new module; the class itself by `classes`."""

    def __init__(self, classes: dict[str, Any]) -> None:
        self.classes = classes

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self.classes:
            raise KeyError(f"{name!r} is no activation.{nearest(str(name), self.classes)}")
        kind, options = self.classes[name] if isinstance(self.classes[name], tuple) else (self.classes[name], {})
        made: nn.Module = kind(**options)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)


ACT2CLS: dict[str, Any] = {
    "gelu": GELUActivation,
    "gelu_10": (ClippedGELUActivation, {"min": -10, "max": 10}),
    "gelu_fast": FastGELUActivation,
    "gelu_new": NewGELUActivation,
    "gelu_python": (GELUActivation, {"use_gelu_python": True}),
    "gelu_pytorch_tanh": PytorchGELUTanh,
    "gelu_python_tanh": PytorchGELUTanh,
    "gelu_accurate": AccurateGELUActivation,
    "hardswish": nn.Hardswish,
    "laplace": LaplaceActivation,
    "leaky_relu": nn.LeakyReLU,
    "linear": LinearActivation,
    "mish": MishActivation,
    "prelu": nn.PReLU,
    "quick_gelu": QuickGELUActivation,
    "relu": nn.ReLU,
    "relu2": ReLUSquaredActivation,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
ACT2FN = _Activations(ACT2CLS)


def get_activation(activation_string: str) -> nn.Module:
    """The activation of this name; KeyError lists the nearest."""
    return ACT2FN[activation_string]


gelu_python = ACT2FN["gelu_python"]
gelu_new = ACT2FN["gelu_new"]
gelu = ACT2FN["gelu"]
gelu_fast = ACT2FN["gelu_fast"]
quick_gelu = ACT2FN["quick_gelu"]
silu = ACT2FN["silu"]
mish = ACT2FN["mish"]
linear_act = ACT2FN["linear"]

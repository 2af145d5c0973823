"""The dense layer of a sentence-transformers folder, which follows the pooling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cutaway.checkpoint.checkpoint import open_checkpoint
from cutaway.checkpoint.field_table import FieldTable
from cutaway.errors import InputError
from cutaway.hub.files import resolve
from cutaway.jsonfile import read_json

# By the last part of the class's name: a name from a file is only looked up here.
_ACTIVATIONS = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": functional.relu,
    "GELU": functional.gelu,
    "SiLU": functional.silu,
    "Sigmoid": torch.sigmoid,
}

TABLE = FieldTable(
    "config.json of Dense",
    used=frozenset({
        "in_features", "out_features", "bias", "activation_function", "module_input_name", "module_output_name",
        "use_residual",
    }),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Dense:
    """activation(weight @ x + bias), with x added (through `residual` where the widths differ) if the folder says so.

    Attributes:
        weight: [out, in]. bias: [out] or None. activation: a name of `_ACTIVATIONS`.
        residual: whether x is added. projection: [out, in] or None.
    """

    weight: Tensor
    bias: Tensor | None
    activation: str
    residual: bool = False
    projection: Tensor | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        weight = self.weight.to(vector.device)
        bias = None if self.bias is None else self.bias.to(vector.device)
        out: Tensor = _ACTIVATIONS[self.activation](functional.linear(vector, weight, bias))
        if not self.residual:
            return out
        return out + (vector if self.projection is None else vector @ self.projection.to(vector.device).T)


def read_dense(name: str, path: str) -> Dense:
    """The layer in the folder `path` of the checkpoint `name`.

    Raises:
        InputError: an activation, a place in the computation or a shape that cutaway does not have.
    """
    files = resolve(name, subfolder=path)
    config = read_json(files.require("config.json"), InputError)
    TABLE.check(config, InputError, f"{name}: {path}/config.json")
    wanted = "sentence_embedding"
    if {config.get("module_input_name") or wanted, config.get("module_output_name") or wanted} != {wanted}:
        raise InputError(f"{name}: the Dense module {path} does not read the vector of a text, which cutaway's does.")
    activation = str(config.get("activation_function") or "torch.nn.modules.linear.Identity")
    module, _, kind = activation.rpartition(".")
    if kind not in _ACTIVATIONS or not module.startswith("torch.nn"):
        raise InputError(
            f"{name}: the Dense module {path} has activation_function {activation!r}; cutaway has "
            f"{', '.join(_ACTIVATIONS)}."
        )
    shape = [config.get("out_features"), config.get("in_features")]
    residual = bool(config.get("use_residual"))
    with open_checkpoint(files) as checkpoint:
        shapes = {"linear.weight": shape}
        if config.get("bias", True):
            shapes["linear.bias"] = shape[:1]
        if residual and shape[0] != shape[1]:
            shapes["residual.weight"] = shape
        for tensor, own in shapes.items():
            if tensor not in checkpoint.names() or list(checkpoint.shape(tensor)) != own:
                raise InputError(f"{name}: the Dense module {path} holds no {tensor!r} of shape {own}.")
        read = {tensor: checkpoint.read(tensor).float() for tensor in shapes}
    bias, projection = read.get("linear.bias"), read.get("residual.weight")
    return Dense(read["linear.weight"], bias, kind, residual, projection)

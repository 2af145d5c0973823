"""What a model whose weights cannot learn says where a loop of somebody's own asks for their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.nn.cpu.block_weight import in_blocks
from cutaway.nn.engine_modules import EngineTree
from cutaway.outputs import ModelOutput

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx

ANSWERS = ("loss", "logits", "start_logits", "end_logits")
UNTRAINABLE = (
    "the model's weights lie as bytes or in blocks of few bits, which are not trained, and nothing else of it is. "
    'Train an adapter on them (model.add_adapter), or load the model with dtype="float32" to train all of it.'
)


class _Untrainable(torch.autograd.Function):
    """A tensor that nothing leads to, whose gradient is an error that says why."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, wanted: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> NoReturn:
        raise ConfigError(UNTRAINABLE)


def refuse_gradients(model: nn.Module, output: ModelOutput) -> None:
    """Let `backward` on the answers of a model in training mode say what is wrong, where all its weights are such.

    Torch's own error ("does not require grad") names no cause. Numbers and modes stay as they are.
    """
    if not (model.training and torch.is_grad_enabled()) or torch.is_inference_mode_enabled():
        return
    answers: dict[str, object] = {name: output.get(name) for name in ANSWERS}
    bare = {name: one for name, one in answers.items() if isinstance(one, Tensor) and not one.requires_grad}
    if not bare:
        return
    parameters = list(EngineTree(model).parameters())
    if any(p.requires_grad for p in parameters) or not any(in_blocks(p) for p in parameters):
        return
    wanted = torch.empty(0, requires_grad=True)
    for name, value in bare.items():
        setattr(output, name, _Untrainable.apply(value, wanted))  # type: ignore[no-untyped-call]

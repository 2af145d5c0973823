"""The optimizer and the schedule that the arguments name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cutaway.errors import ConfigError
from cutaway.train.arguments import TrainingArguments
from cutaway.train.schedule import (
    get_constant_schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)


def make_optimizer(model: nn.Module, args: TrainingArguments) -> Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) or SGD over the weights that train; biases and norms do not decay.

    Raises:
        ConfigError: every weight of the model is frozen.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError("every weight of the model has requires_grad=False, so there is nothing to train.")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if args.optim == "sgd":
        return torch.optim.SGD(groups, lr=args.learning_rate)
    return torch.optim.AdamW(
        groups,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=args.optim == "adamw_torch_fused" or None,
    )


def make_schedule(optimizer: Optimizer, args: TrainingArguments, total: int) -> LambdaLR:
    """The schedule over `total` steps."""
    warm = args.warmup(total)
    if args.lr_scheduler_type == "linear":
        return get_linear_schedule_with_warmup(optimizer, warm, total)
    if args.lr_scheduler_type == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, warm, total)
    if args.lr_scheduler_type == "constant":
        return get_constant_schedule(optimizer)
    return get_constant_schedule_with_warmup(optimizer, warm)

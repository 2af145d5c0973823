"""The optimizer and the schedule that the arguments name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cutaway.errors import ConfigError
from cutaway.nn.cpu.block_weight import BlockWeight
from cutaway.train.arguments import TrainingArguments
from cutaway.train.parameter_groups import ParameterAddresses
from cutaway.train.schedule import get_scheduler


def make_optimizer(model: nn.Module, args: TrainingArguments) -> Optimizer:
    """The optimizer that `args.optim` names, over the weights that train; biases and norms do not decay.

    AdamW is by Loshchilov and Hutter (2019), Adafactor by Shazeer and Stern (2018). Each distinct rate is a group of
    its own; the first group has `args.learning_rate`, if any weight has.

    Raises:
        ConfigError: every weight of the model is frozen, or a pattern names none.
    """
    places = ParameterAddresses(model)
    rates = places.rates(args.learning_rate, args.layer_lr_decay, args.learning_rates or {})
    trained = {name: p for name, p in places.names.items() if p.requires_grad}
    if not trained:
        if any(isinstance(p, BlockWeight) for p in places.names.values()):
            raise ConfigError(
                "the model's weights lie in the blocks of a GGUF file, which are not trained. Train an adapter on them "
                '(add_adapter), or load the model with dtype="float32".'
            )
        raise ConfigError("every weight of the model has requires_grad=False, so there is nothing to train.")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in trained.items():
        groups.setdefault((rates[name], args.weight_decay if p.dim() > 1 else 0.0), []).append(p)
    order = sorted(groups, key=lambda key: (key[0] != args.learning_rate, -key[0], -key[1]))
    found: list[dict[str, Any]] = [{"params": groups[k], "lr": k[0], "weight_decay": k[1]} for k in order]
    if args.optim.startswith("adamw"):
        return torch.optim.AdamW(
            found,
            lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            fused=args.optim == "adamw_torch_fused" or None,
        )
    other: type[Optimizer] = _OTHERS[args.optim]
    return other(found, lr=args.learning_rate)  # type: ignore[call-arg]


_OTHERS: dict[str, Any] = {
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def make_schedule(optimizer: Optimizer, args: TrainingArguments, total: int) -> Any:
    """The schedule over `total` steps."""
    more = args.lr_scheduler_kwargs
    return get_scheduler(args.lr_scheduler_type, optimizer, args.warmup(total), total, more)  # type: ignore[arg-type]

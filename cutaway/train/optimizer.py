"""The optimizer and the schedule that the arguments name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cutaway.errors import ConfigError
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.cpu.block_weight import BlockWeight
from cutaway.train.adafactor import Adafactor
from cutaway.train.arguments import TrainingArguments
from cutaway.train.parameter_groups import ParameterAddresses
from cutaway.train.schedule import get_scheduler


def is_optimizer_factory(kind: type) -> bool:
    """Whether a class is no optimizer, but makes one of a model, as upstream has it for groups of their own."""
    return not issubclass(kind, Optimizer)


def make_optimizer(
    model: nn.Module,
    args: TrainingArguments,
    decaying: Collection[str] | None = None,
    kind: type[Optimizer] | None = None,
    settings: dict[str, Any] | None = None,
) -> Optimizer:
    """An optimizer over the weights that train. Each distinct rate is a group of its own.

    The first group has `args.learning_rate`, if any weight has.

    Args:
        decaying: the names (of named_parameters) of the weights that decay; `decaying_names` by default.
        kind, settings: the optimizer's class, and what it is given; those that `args.optim` names by default.

    Raises:
        ConfigError: every weight of the model is frozen, or a pattern names none.
    """
    places = ParameterAddresses(model)
    rates = places.rates(args.learning_rate, args.layer_lr_decay, args.learning_rates or {})
    names = {id(p): name for name, p in model.named_parameters()}
    wanted = set(decaying_names(model) if decaying is None else decaying)
    if kind is None:
        kind, settings = optimizer_of(args)
    # what is published as one matrix stands at the address of each of its parts, and is trained once
    trained = {name: p for name, p in places.first_names.items() if p.requires_grad}
    if not trained:
        if any(isinstance(p, BlockWeight) for p in places.names.values()):
            raise ConfigError(
                "the model's weights lie in blocks of few bits, which are not trained. Train an adapter on them "
                '(add_adapter), or load the model with dtype="float32".'
            )
        raise ConfigError("every weight of the model has requires_grad=False, so there is nothing to train.")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    once: dict[int, str] = {}
    for name, p in trained.items():  # several addresses may be one published layer, which is trained once
        once.setdefault(id(p), name)
    for name in once.values():
        p = trained[name]
        groups.setdefault((rates[name], names[id(p)] in wanted), []).append(p)
    if len({rate for rate, _ in groups}) == 1:  # both are there, as upstream's scripts expect
        rate = next(iter(groups))[0]
        groups = {(rate, decays): groups.get((rate, decays), []) for decays in (True, False)}
    order = sorted(groups, key=lambda key: (key[0] != args.learning_rate, -key[0], not key[1]))
    own = len({rate for rate, _ in groups}) > 1 or next(iter(groups))[0] != args.learning_rate
    found: list[dict[str, Any]] = []
    for key in order:
        group: dict[str, Any] = {"params": groups[key], "weight_decay": args.weight_decay if key[1] else 0.0}
        found.append({**group, "lr": key[0]} if own else group)
    made: Optimizer = kind(found, **(settings or {}))
    return made


def decaying_names(model: nn.Module) -> list[str]:
    """The names of the weights that decay: neither biases nor norms.

    In the library's own models all weights of one dimension are such; T5's table of distances is a bias by its name. In
    any other module torch's LayerNorm is a norm, and what has the name of one.
    """
    own = isinstance(model, PreTrainedModel)
    norms = {
        f"{name}.{inner}" if name else inner
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for inner, _ in module.named_parameters()
    }
    return [
        name
        for name, p in model.named_parameters()
        if not (own and p.dim() < 2) and name not in norms and _NO_DECAY.search(name.lower()) is None
    ]


# "relative" is the engine's name of the table that is published as relative_attention_bias
_NO_DECAY = re.compile(r"bias|(?:^|\.)relative\.|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def optimizer_of(args: TrainingArguments) -> tuple[Any, dict[str, Any]]:
    """(the class of the optimizer that `args.optim` names, what it is given).

    AdamW is by Loshchilov and Hutter (2019), Adafactor by Shazeer and Stern (2018), here with the rate of the schedule.
    """
    more = optimizer_settings(args.optim_args)
    if args.optim.startswith("adamw"):
        fused = args.optim == "adamw_torch_fused" or None
        betas, eps = (args.adam_beta1, args.adam_beta2), args.adam_epsilon
        return torch.optim.AdamW, {"lr": args.learning_rate, "betas": betas, "eps": eps, "fused": fused, **more}
    if args.optim == "adafactor":
        return Adafactor, {"lr": args.learning_rate, "scale_parameter": False, "relative_step": False, **more}
    return _OTHERS[args.optim], {"lr": args.learning_rate, **more}


def optimizer_settings(text: str | None) -> dict[str, Any]:
    """`optim_args="momentum=0.9,nesterov=true"` as a dict.

    Raises:
        ConfigError: a part is not name=value.
    """
    found: dict[str, Any] = {}
    for part in (text or "").replace(" ", "").split(","):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"optim_args is {text!r}; write name=value, with commas between them.")
        try:
            found[name] = json.loads(value.lower())
        except ValueError:
            found[name] = value
    return found


_OTHERS: dict[str, Any] = {
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def make_schedule(optimizer: Optimizer, args: TrainingArguments, total: int) -> LRScheduler:
    """The schedule over `total` steps."""
    more = args.lr_scheduler_kwargs
    return get_scheduler(args.lr_scheduler_type, optimizer, args.warmup(total), total, more)  # type: ignore[arg-type]

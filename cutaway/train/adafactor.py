"""Adafactor as upstream's scripts call it, with steps relative to the size of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import ParamsT

from cutaway.errors import ConfigError


def _rms(x: Tensor) -> Tensor:
    size: Tensor = x.norm(2)
    return size / math.sqrt(x.numel())


class Adafactor(Optimizer):
    """Adaptive rates with the memory of a row and a column for each matrix (Shazeer and Stern, 2018, arXiv:1804.04235).

    Args:
        params: the weights, or groups of them.
        lr: the rate; None with relative_step.
        eps: what is added to squared gradients, and the least size of weights that scales a step.
        clip_threshold: the largest root mean square of an update.
        decay_rate: the memory of squared gradients after t steps is 1 - t ** decay_rate.
        beta1: the memory of the update itself; None for none.
        weight_decay: how much of a weight goes with each step, times the rate.
        scale_parameter: whether the rate is multiplied by the root mean square of the weight.
        relative_step: whether the rate follows from the number of the step.
        warmup_init: whether that rate rises from 1e-6, one millionth a step.

    Raises:
        ConfigError: arguments that exclude each other.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        if lr is not None and relative_step:
            raise ConfigError(f"lr is {lr} and relative_step is True, which makes its own rate; give one of them.")
        if lr is None and not relative_step:
            raise ConfigError("relative_step is False, so lr must be given.")
        if warmup_init and not relative_step:
            raise ConfigError("warmup_init is about relative_step; set relative_step=True too.")
        super().__init__(
            params,
            {
                "lr": lr,
                "eps": eps,
                "clip_threshold": clip_threshold,
                "decay_rate": decay_rate,
                "beta1": beta1,
                "weight_decay": weight_decay,
                "scale_parameter": scale_parameter,
                "relative_step": relative_step,
                "warmup_init": warmup_init,
            },
        )

    @staticmethod
    def _get_lr(group: dict[str, Any], state: dict[str, Any]) -> object:
        """The rate of a weight at this step."""
        rate = group["lr"]
        if group["relative_step"]:
            most = 1e-6 * state["step"] if group["warmup_init"] else 1e-2
            rate = min(most, 1.0 / math.sqrt(state["step"]))
        return rate * (max(group["eps"][1], float(state["RMS"])) if group["scale_parameter"] else 1.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all weights; what `closure`, which computes the loss anew, gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(group, p)
        return loss

    def _update(self, group: dict[str, Any], p: Tensor) -> None:
        grad = p.grad.float()  # type: ignore[union-attr]
        state = self.state[p]
        matrix = grad.dim() >= 2
        if not state:
            state["step"] = 0
            if group["beta1"] is not None:
                state["exp_avg"] = torch.zeros_like(grad)
            if matrix:
                state["exp_avg_sq_row"] = grad.new_zeros(grad.shape[:-1])
                state["exp_avg_sq_col"] = grad.new_zeros(grad.shape[:-2] + grad.shape[-1:])
            else:
                state["exp_avg_sq"] = torch.zeros_like(grad)
        state["step"] += 1
        weight = p.float()
        state["RMS"] = _rms(weight)
        rate = self._get_lr(group, state)
        memory = 1.0 - state["step"] ** group["decay_rate"]
        square = grad.square() + group["eps"][0]
        if matrix:
            rows, columns = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
            rows.mul_(memory).add_(square.mean(-1), alpha=1.0 - memory)
            columns.mul_(memory).add_(square.mean(-2), alpha=1.0 - memory)
            by_row = (rows / rows.mean(-1, keepdim=True)).rsqrt()[..., None]  # [..., rows, 1]
            update = by_row * columns[..., None, :].rsqrt() * grad
        else:
            average = state["exp_avg_sq"]
            average.mul_(memory).add_(square, alpha=1.0 - memory)
            update = average.rsqrt() * grad
        update /= (_rms(update) / group["clip_threshold"]).clamp(min=1.0)
        update *= rate
        if group["beta1"] is not None:
            update = state["exp_avg"].mul_(group["beta1"]).add_(update, alpha=1.0 - group["beta1"])
        if group["weight_decay"]:
            weight = weight - weight * (group["weight_decay"] * rate)
        p.copy_(weight - update)


class AdafactorSchedule(LambdaLR):
    """Tells the rate that an `Adafactor` with relative steps makes itself, where a trainer wants a schedule."""

    def __init__(self, optimizer: Optimizer, initial_lr: float = 0.0) -> None:
        for group in optimizer.param_groups:
            group["initial_lr"] = initial_lr
        super().__init__(optimizer, lambda _: initial_lr)
        for group in optimizer.param_groups:
            del group["initial_lr"]

    def get_lr(self) -> list[Any]:
        """The rate of each group's first weight at its last step; the initial one before there was a step."""
        optimizer: Any = self.optimizer
        found = [
            optimizer._get_lr(group, optimizer.state[group["params"][0]])
            for group in optimizer.param_groups
            if group["params"][0].grad is not None and optimizer.state[group["params"][0]]
        ]
        return found or list(self.base_lrs)


def get_adafactor_schedule(optimizer: Adafactor, initial_lr: float = 0.0) -> AdafactorSchedule:
    """The rates of an Adafactor, for who asks a schedule."""
    return AdafactorSchedule(optimizer, initial_lr)

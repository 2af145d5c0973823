"""Learning-rate schedules, as multiples of the optimizer's own rate; each can be pickled."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from cutaway.errors import ConfigError, nearest
from cutaway.train.strategy import SchedulerType

Curve = Literal["linear", "cosine", "1-sqrt"]


def _after_warmup(step: int, warm: int, total: int) -> float:
    """Which part of the steps after the warm-up is done."""
    return (step - warm) / max(1, total - warm)


def _linear(step: int, warm: int, total: int) -> float:
    if step < warm:
        return step / max(1, warm)
    return max(0.0, (total - step) / max(1, total - warm))


def get_linear_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """The rate rises linearly from 0 over the warm-up, then falls linearly to 0 at `num_training_steps`."""
    return LambdaLR(optimizer, partial(_linear, warm=num_warmup_steps, total=num_training_steps), last_epoch)


def _wave(done: float, cycles: float) -> float:
    """A cosine from 1, `cycles` waves until everything is done."""
    return 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * done))


def _cosine(step: int, warm: int, total: int, cycles: float, least: float = 0.0) -> float:
    if step < warm:
        return step / max(1, warm)
    return max(0.0, _wave(_after_warmup(step, warm, total), cycles) * (1.0 - least) + least)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """The rate rises linearly from 0, then follows a cosine from 1 (Loshchilov and Hutter, 2017).

    `num_cycles` are the waves until `num_training_steps`; half a wave ends at 0.
    """
    factor = partial(_cosine, warm=num_warmup_steps, total=num_training_steps, cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def _restarts(step: int, warm: int, total: int, cycles: int) -> float:
    if step < warm:
        return step / max(1, warm)
    done = _after_warmup(step, warm, total)
    return 0.0 if done >= 1.0 else max(0.0, _wave(cycles * done % 1.0, 0.5))


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1, last_epoch: int = -1
) -> LambdaLR:
    """The rate falls by half a cosine to 0 and jumps back, `num_cycles` times (Loshchilov and Hutter, 2017)."""
    factor = partial(_restarts, warm=num_warmup_steps, total=num_training_steps, cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def _polynomial(step: int, warm: int, total: int, first: float, last: float, power: float) -> float:
    if step < warm:
        return step / max(1, warm)
    if step > total:
        return last / first
    left = 1.0 - (step - warm) / (total - warm)
    return float(((first - last) * left**power + last) / first)


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """The rate falls to `lr_end` as a power of the part that is left; power 1 is a line.

    Raises:
        ConfigError: the optimizer's rate is not above lr_end.
    """
    first = float(optimizer.defaults["lr"])
    if not first > lr_end:
        raise ConfigError(f"lr_end is {lr_end}; it must be below the optimizer's rate, {first}.")
    factor = partial(
        _polynomial, warm=num_warmup_steps, total=num_training_steps, first=first, last=lr_end, power=power
    )
    return LambdaLR(optimizer, factor, last_epoch)


def _inverse_sqrt(step: int, warm: int, timescale: int) -> float:
    if step < warm:
        return step / max(1, warm)
    return 1.0 / math.sqrt((step + timescale - warm) / timescale)


def get_inverse_sqrt_schedule(
    optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> LambdaLR:
    """After the warm-up the rate falls as 1 / sqrt(steps / timescale); by default timescale is the warm-up's length."""
    scale = timescale or num_warmup_steps or 10_000
    return LambdaLR(optimizer, partial(_inverse_sqrt, warm=num_warmup_steps, timescale=scale), last_epoch)


def _least(optimizer: Optimizer, min_lr: float | None, min_lr_rate: float | None) -> float:
    if (min_lr is None) == (min_lr_rate is None):
        raise ConfigError(
            f"min_lr is {min_lr!r} and min_lr_rate is {min_lr_rate!r}; give one of them (lr_scheduler_kwargs)."
        )
    return float(min_lr_rate) if min_lr is None else min_lr / float(optimizer.defaults["lr"])  # type: ignore[arg-type]


def get_cosine_with_min_lr_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> LambdaLR:
    """A cosine that ends at `min_lr`, or at `min_lr_rate` times the rate; ConfigError unless one of them is given."""
    least = _least(optimizer, min_lr, min_lr_rate)
    factor = partial(_cosine, warm=num_warmup_steps, total=num_training_steps, cycles=num_cycles, least=least)
    return LambdaLR(optimizer, factor, last_epoch)


def _cosine_from(step: int, warm: int, total: int, cycles: float, least: float, begins: float | None) -> float:
    if step < warm:
        if begins is None:
            return (step + 1.0) / max(1, warm)
        return begins + (1.0 - begins) * step / max(1, warm - 1)
    done = (step - warm + 1.0) / max(1, total - warm)
    return max(0.0, _wave(done, cycles) * (1.0 - least) + least)


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> LambdaLR:
    """The same, each step one ahead; the warm-up begins at `warmup_lr_rate` times the rate, or at its first step's."""
    factor = partial(
        _cosine_from,
        warm=num_warmup_steps,
        total=num_training_steps,
        cycles=num_cycles,
        least=_least(optimizer, min_lr, min_lr_rate),
        begins=warmup_lr_rate,
    )
    return LambdaLR(optimizer, factor, last_epoch)


def _falling(curve: Curve, done: float, cycles: float) -> float:
    if curve == "linear":
        return 1.0 - done
    return _wave(done, cycles) if curve == "cosine" else 1.0 - math.sqrt(done)


def _rising(curve: Curve, done: float) -> float:
    if curve == "linear":
        return done
    return 0.5 * (1.0 - math.cos(math.pi * done)) if curve == "cosine" else 1.0 - math.sqrt(1.0 - done)


def _stable(
    step: int, warm: int, stable: int, decay: int, rises: Curve, falls: Curve, least: float, cycles: float
) -> float:
    if step < warm:
        return max(0.0, _rising(rises, step / max(1, warm)) * (1.0 - least) + least)
    if step < warm + stable:
        return 1.0
    if step < warm + stable + decay:
        done = (step - warm - stable) / max(1, decay)
        return max(0.0, _falling(falls, done, cycles) * (1.0 - least) + least)
    return least


def get_wsd_schedule(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: Curve = "linear",
    decay_type: Curve = "cosine",
    min_lr_ratio: float = 0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """Warm-up, then the full rate, then a decay to `min_lr_ratio` (Hu et al., 2024, arXiv:2404.06395).

    `num_stable_steps` goes before `num_training_steps`, of which the stable steps are what the others leave.

    Raises:
        ConfigError: neither of the two is given, or an unknown curve.
    """
    for name, curve in (("warmup_type", warmup_type), ("decay_type", decay_type)):
        if curve not in get_args(Curve):
            raise ConfigError(f"{name} is {curve!r}; it may be {', '.join(get_args(Curve))}.")
    if num_stable_steps is None:
        if num_training_steps is None:
            raise ConfigError("the schedule needs num_training_steps, or num_stable_steps.")
        num_stable_steps = num_training_steps - num_warmup_steps - num_decay_steps
    factor = partial(
        _stable,
        warm=num_warmup_steps,
        stable=num_stable_steps,
        decay=num_decay_steps,
        rises=warmup_type,
        falls=decay_type,
        least=min_lr_ratio,
        cycles=num_cycles,
    )
    return LambdaLR(optimizer, factor, last_epoch)


def _warm(step: int, warm: int) -> float:
    return 1.0 if step >= warm else step / max(1, warm)


def get_constant_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """The rate rises linearly from 0 over the warm-up, then stays."""
    return LambdaLR(optimizer, partial(_warm, warm=num_warmup_steps), last_epoch)


def _same(step: int) -> float:
    return 1.0


def get_constant_schedule(optimizer: Optimizer, last_epoch: int = -1) -> LambdaLR:
    """The rate stays."""
    return LambdaLR(optimizer, _same, last_epoch)


def get_reduce_on_plateau_schedule(optimizer: Optimizer, **kwargs: Any) -> ReduceLROnPlateau:
    """The rate falls when a metric no longer improves; `kwargs` as for torch's ReduceLROnPlateau.

    Its `step` takes the metric. Trainer gives it the one of `metric_for_best_model` after each evaluation.
    """
    return ReduceLROnPlateau(optimizer, **kwargs)


_MAKERS: dict[SchedulerType, Callable[..., LRScheduler]] = {
    SchedulerType.LINEAR: get_linear_schedule_with_warmup,
    SchedulerType.COSINE: get_cosine_schedule_with_warmup,
    SchedulerType.COSINE_WITH_RESTARTS: get_cosine_with_hard_restarts_schedule_with_warmup,
    SchedulerType.POLYNOMIAL: get_polynomial_decay_schedule_with_warmup,
    SchedulerType.CONSTANT: get_constant_schedule,
    SchedulerType.CONSTANT_WITH_WARMUP: get_constant_schedule_with_warmup,
    SchedulerType.INVERSE_SQRT: get_inverse_sqrt_schedule,
    SchedulerType.REDUCE_ON_PLATEAU: get_reduce_on_plateau_schedule,
    SchedulerType.COSINE_WITH_MIN_LR: get_cosine_with_min_lr_schedule_with_warmup,
    SchedulerType.COSINE_WARMUP_WITH_MIN_LR: get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
    SchedulerType.WARMUP_STABLE_DECAY: get_wsd_schedule,
}
_WITHOUT_TOTAL = (SchedulerType.CONSTANT_WITH_WARMUP, SchedulerType.INVERSE_SQRT)


def get_scheduler(
    name: str | SchedulerType,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> LRScheduler:
    """A schedule by its name.

    Args:
        name: a `SchedulerType` or its value, such as "cosine".
        optimizer: whose rate it is.
        num_warmup_steps, num_training_steps: those that need them must be given them.
        scheduler_specific_kwargs: what else the schedule's own function takes, such as {"num_cycles": 2}.

    Raises:
        ConfigError: an unknown name or argument, or a number of steps that is needed and not given.
    """
    known = [kind.value for kind in _MAKERS]
    plain = getattr(name, "value", name)
    if plain not in known:
        raise ConfigError(f"there is no schedule {plain!r}; there are {', '.join(known)}.{nearest(str(plain), known)}")
    kind, more = SchedulerType(plain), dict(scheduler_specific_kwargs or {})
    maker = _MAKERS[kind]
    if kind == SchedulerType.CONSTANT:
        return maker(optimizer)
    steps: dict[str, int] = {}
    if kind != SchedulerType.REDUCE_ON_PLATEAU:
        if num_warmup_steps is None:
            raise ConfigError(f"the schedule {plain!r} needs num_warmup_steps.")
        steps["num_warmup_steps"] = num_warmup_steps
        if kind not in _WITHOUT_TOTAL:
            if num_training_steps is None and kind != SchedulerType.WARMUP_STABLE_DECAY:
                raise ConfigError(f"the schedule {plain!r} needs num_training_steps.")
            steps["num_training_steps"] = num_training_steps  # type: ignore[assignment]
    try:
        return maker(optimizer, **steps, **more)
    except TypeError as error:
        raise ConfigError(f"the schedule {plain!r} does not take {more!r}: {error}") from error

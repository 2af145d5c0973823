"""Every source of random numbers: kept, put back, and lent for a moment."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture(devices: bool = True) -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, in plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if devices and torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: dict[str, Any]) -> None:
    """Put back what `capture` gave."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_of(*key: int) -> int:
    """A seed in 63 bits from whole numbers: equal for equal ones, unrelated for others."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 1


def seed_all(seed: int) -> None:
    """Seed the generators on the processor; those of devices go on, for dropout."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def drawn_from(*key: int) -> Iterator[None]:
    """Inside, random numbers are a function of `key`; outside, nobody notices."""
    before = capture(devices=False)
    seed_all(seed_of(*key))
    try:
        yield
    finally:
        restore(before)


class OwnNumbers:
    """Random numbers of one's own, begun from `key`: each `with` goes on where the last one ended; outside, nobody
    notices.
    """

    def __init__(self, *key: int) -> None:
        self._key = key
        self._state: dict[str, Any] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside, they are drawn."""
        outside = capture(devices=False)
        try:
            if self._state is None:
                seed_all(seed_of(*self._key))
            else:
                restore(self._state)
            yield
            self._state = capture(devices=False)
        finally:
            restore(outside)


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch (all devices); `deterministic` also lets torch use only exact algorithms."""
    if deterministic:
        torch.use_deterministic_algorithms(True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

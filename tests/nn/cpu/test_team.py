"""The kernels' threads on a processor that others hold: they wait asleep, and the numbers stay the same."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import Tensor

from cutaway import native

pytestmark = pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine")
ROWS, WIDTH = 600, 512  # of a norm that is large enough for a second thread


def chain(threads: int, n: int = 300) -> tuple[Tensor, float]:
    """[ROWS, WIDTH] after n norms, each of what the one before wrote, in one call; and the processor time it took."""
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    weight, other = torch.linspace(0.5, 2, WIDTH), torch.empty_like(x)
    turns = [(x, other), (other, x)]
    ops = [
        native.Norm(ROWS, a.data_ptr(), weight.data_ptr(), None, b.data_ptr(), WIDTH, 1, WIDTH, 1e-6, 0.0, 0, 0)
        for a, b in (turns[i % 2] for i in range(n))
    ]
    addresses = (ctypes.c_void_p * n)(*map(ctypes.addressof, ops))
    start = time.process_time()
    assert native.LIBRARY is not None and native.LIBRARY.cw_replay(addresses, n, threads) == 0
    return x, time.process_time() - start


def on_one_core() -> None:
    """Two threads that share one core, which OpenMP does not know of: whoever waits keeps the other from working."""
    alone = min(chain(1)[1] for _ in range(5))
    # the second thread, and with it where it may run, is made by the first call
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    together = [chain(2)[1] for _ in range(5)]
    equal = all(torch.equal(chain(2)[0], chain(1)[0]) for _ in range(3))
    print(json.dumps({"alone": alone, "together": sorted(together), "equal": equal}))


def test_waiting_leaves_the_core_to_others() -> None:
    """A norm is some 50 us of work; spinning until the other thread gets its turn takes milliseconds."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("OpenMP itself waits asleep where it knows of one core only")
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment.pop(name, None)
    run = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, timeout=300, check=True
    )
    result = json.loads(run.stdout)
    assert result["equal"]
    assert result["together"][2] < 10 * result["alone"] + 0.05


@pytest.mark.parametrize("threads", [2, 5])
def test_any_team_gives_the_same(threads: int) -> None:
    """More threads than cores, and several teams at once."""
    wanted = chain(1, 40)[0]
    given: list[Tensor] = []
    callers = [threading.Thread(target=lambda: given.extend(chain(threads, 40)[0] for _ in range(4))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(given) == 12 and all(torch.equal(one, wanted) for one in given)


if __name__ == "__main__":
    on_one_core()

"""Memory that layers free stays with the process for the next, unless the user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cutaway.nn.cpu.memory import _function

SCRIPT = """
import resource, torch
from cutaway.nn.linear import Linear
layer, x = Linear(256, 1024).eval(), torch.randn(2048, 256)
with torch.no_grad():
    for _ in range(10):
        layer(x), layer(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        layer(x), layer(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    """Pages that the system had to find for twenty results of 8 MB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(_function("mallopt") is None, reason="another C library than glibc")
def test_pages_are_found_once() -> None:
    each = 20 * (8 << 20) // os.sysconf("SC_PAGESIZE")
    assert faults() < each / 2  # a heap with holes still grows now and then
    assert faults(MALLOC_MMAP_THRESHOLD_="131072") > each * 0.9

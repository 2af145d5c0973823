from __future__ import annotations

import base64
import zlib

import inspect_samples as samples
import numpy as np
import pytest

from cutaway.inspect.packing import LEVELS, pack


def unpack(packed):
    planes = [np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8) for text in packed["bytes"]]
    codes = sum(plane.astype(np.float64) * 256**i for i, plane in enumerate(planes))
    return codes.reshape(packed["shape"]) * packed["step"]


@pytest.mark.parametrize("budget", [1e9, 40_000, 1])
def test_values_come_back_within_the_stated_error(budget):
    pattern = samples.pattern_of(3, 4, 50, 60)
    packed = pack(pattern, budget)
    error = np.abs(unpack(packed) - pattern).max()
    assert error <= packed["error"] + 1e-7
    assert packed["error"] <= 0.51 * packed["step"] + 1e-7
    steps = pattern.max() / packed["step"]
    assert min(abs(steps - level) for level in LEVELS) < 0.01
    if budget > 1:
        assert sum(map(len, packed["bytes"])) <= budget


def test_values_above_one_and_broken_ones():
    packed = pack(np.array([[0.0, 3.5], [np.nan, 7.0]], np.float32), 1e6)
    np.testing.assert_allclose(unpack(packed), [[0, 3.5], [0, 7]], atol=1e-4)
    assert unpack(pack(np.zeros((2, 3), np.float32), 1e6)).tolist() == [[0.0] * 3] * 2

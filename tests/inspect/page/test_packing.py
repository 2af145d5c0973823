from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import inspect_samples as samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.inspect.page.packing import Packed, block_codes, pack


def unpack(entry):
    """The values of a packed array of the page's JSON."""
    tile = 2
    blocks = [base64.b64decode(text) for text in entry["blocks"]]
    steps = np.array(entry["steps"], np.float32)
    return Packed(tuple(entry["shape"]), tile, steps, False, entry["error"], blocks, entry["broken"]).unpacked()


@pytest.mark.parametrize("room", [1e9, 30_000, 1])
def test_values_come_back_within_the_stated_error(room):
    pattern = samples.pattern_of(3, 4, 50, 60)
    packed = pack(pattern, room)
    assert np.abs(packed.unpacked() - pattern).max() <= packed.error
    assert packed.error <= packed.steps.max() / 2 + 1e-6
    if room > 1:
        assert sum(map(len, packed.blocks)) <= room


numbers = st.one_of(st.floats(-1e4, 1e4, width=32), st.floats(-0.0078125, 0.0078125, width=32), st.just(0.0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(numbers, min_size=24, max_size=24),
    st.floats(1, 500),
    st.sampled_from([1, 2]),
    st.sampled_from([(4, 2, 3), (2, 2, 2, 3), (1, 24), (24, 1)]),
)
def test_the_error_is_never_more_than_stated(values, room, tile, shape):
    array = np.array(values, np.float32).reshape(shape)
    packed = pack(array, room, tile=tile)
    found = packed.unpacked()
    assert found.shape == shape
    assert np.abs(found - array).max() <= packed.error
    wider = packed.steps.astype(np.float64) * 1.0  # a reader in double precision
    again = replace(packed, steps=wider).unpacked()
    assert np.abs(again - array).max() <= packed.error


def test_one_large_number_does_not_coarsen_the_other_vectors():
    states = np.random.default_rng(0).normal(0, 1, (2, 40, 64)).astype(np.float32)
    states[:, 0] *= 1000
    packed = pack(states, 0.8 * states.size, tile=1)
    assert np.abs(packed.unpacked() - states)[:, 1:].max() < 0.05


@pytest.mark.parametrize("tile", [1, 2])
def test_what_is_not_finite_stays_so(tile):
    values = np.random.default_rng(0).uniform(0, 1, (3, 20, 30)).astype(np.float32)
    values[0] *= -1
    whole = pack(values, 1e6, tile=tile)
    values[1, 2:5], values[2, 7, 7], values[0, 1, 1] = np.nan, np.inf, -np.inf
    values[2, 0, 0] = 1e4  # its code is the largest that there is
    packed = pack(values, 1e6, tile=tile)
    assert packed.broken and not whole.broken
    found, lost = packed.unpacked(), ~np.isfinite(values)
    np.testing.assert_array_equal(np.isnan(found), lost)
    assert np.abs(found - values)[~lost].max() <= packed.error < 1
    everything = pack(np.full((1, 2, 3), np.nan, np.float32), 1e6)
    assert np.isnan(everything.unpacked()).all() and everything.error < 1e-6


def test_absent_numbers():
    assert pack(np.zeros((2, 3), np.float32), 1e6).unpacked().tolist() == [[0.0] * 3] * 2
    assert pack(np.zeros((2, 0, 3), np.float32), 1e6).unpacked().shape == (2, 0, 3)


@pytest.mark.parametrize("block", [b"", b"nonsense", zlib.compress(b"123"), zlib.compress(bytes(1 << 20)),
                                   zlib.compress(bytes(8))[:-2]])  # fmt: skip
def test_a_block_that_does_not_hold_its_numbers(block):
    with pytest.raises(ValueError, match="a block"):
        block_codes(block, 8)

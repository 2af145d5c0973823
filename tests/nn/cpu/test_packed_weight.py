"""The compiled product is the plain one for every size, and a row never feels its neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from instructions import instructions as instructions

from cutaway import native
from cutaway.native import ACTIVATION_NUMBERS
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.cpu.packed_weight import PackedWeight, served

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
DTYPES = [torch.float32] + ([torch.bfloat16] if native.BF16 else [])


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to the rounding of the found dtype."""
    size = wanted.abs().max().clamp(min=0.1)  # an activation of a small number may be what rounding left of it
    assert (found.double() - wanted).abs().max() <= size * (1e-5 if found.dtype == torch.float32 else 2**-8)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    k=st.integers(1, 90),
    n=st.integers(1, 90),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
    residual=st.booleans(),
    activation=st.sampled_from(list(ACTIVATION_NUMBERS)),
    seed=st.integers(0, 1000),
)
def test_the_product(rows, k, n, dtype, bias, residual, activation, seed):  # type: ignore[no-untyped-def]
    k += k % 2
    torch.manual_seed(seed)
    wide = torch.randn(rows, k + 3).to(dtype)
    x, w = wide[:, 1 : k + 1], torch.randn(n, k).to(dtype)
    b = torch.randn(n).to(dtype) if bias else None
    r = torch.randn(rows, n).to(dtype) if residual else None
    y = F.linear(x.double(), w.double(), None if b is None else b.double())
    y = y if activation is None else ACTIVATION[activation](y)
    close(PackedWeight(w, b).product(x, activation, r), y if r is None else y + r.double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_does_not_feel_its_neighbours(dtype: torch.dtype) -> None:
    x, weight = torch.randn(61, 130).to(dtype), PackedWeight(torch.randn(70, 130).to(dtype), torch.randn(70))
    together = weight.product(x, "gelu")
    for i in (0, 11, 12, 59, 60):
        assert torch.equal(weight.product(x[i : i + 1], "gelu")[0], together[i])


@pytest.mark.parametrize("activation", [a for a in ACTIVATION_NUMBERS if a is not None])
def test_activations_to_the_ends(activation) -> None:  # type: ignore[no-untyped-def]
    x = torch.cat((torch.linspace(-12, 12, 2001), torch.tensor([-1e30, 1e30, 0.0])))[:, None]
    found = PackedWeight(torch.ones(1, 1), None).product(x, activation)
    torch.testing.assert_close(found.double(), ACTIVATION[activation](x.double()), atol=5e-7, rtol=1e-6)
    assert PackedWeight(torch.ones(1, 1), None).product(torch.tensor([[torch.nan]]), activation).isnan().all()


def test_what_is_served() -> None:
    assert served(torch.float32, 3) and not served(torch.float64, 4) and not served(torch.bfloat16, 3)


def test_a_library_that_knows_fewer_activations_is_not_loaded(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of one that it does not know would leave the product as it is, in silence."""
    path = Path(native.__file__).with_name(native.INSTRUCTIONS[instructions].file)
    assert sorted(ACTIVATION_NUMBERS.values()) == list(range(len(ACTIVATION_NUMBERS)))
    assert native.load(path)[0] is not None
    monkeypatch.setitem(ACTIVATION_NUMBERS, "new", len(ACTIVATION_NUMBERS))
    library, reason = native.load(path)
    assert library is None and path.name in reason and "setup.py build_ext --inplace" in reason

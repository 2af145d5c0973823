"""Products of bytes: the same numbers whichever way they are computed, from weights that stay what they are."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from instructions import RUNNABLE, use
from torch import Tensor, nn

import cutaway
from cutaway import native
from cutaway.nn import linear
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.cpu import int8
from cutaway.nn.linear import Linear, PackedCache
from cutaway.nn.residual import ResidualAdd

WAYS = ["torch's int8", "float32", *RUNNABLE]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to compute the sums."""
    if request.param in RUNNABLE:
        use(request.param, monkeypatch)
    else:
        monkeypatch.setattr(native, "LIBRARY", None)
    if request.param == "float32":
        monkeypatch.setattr(int8, "INT_PRODUCT", None)
        monkeypatch.setattr(linear, "OPERATORS", None)
    return str(request.param)


def layer(n_in: int = 24, n_out: int = 40, bias: bool = True) -> Linear:
    made = Linear(n_in, n_out, bias=bias).eval()
    made.int8 = True
    return made


def rows_as_bytes(x: Tensor) -> Tensor:
    """What is left of x [..., k] after each row went through bytes, in float64."""
    x = x.float()
    low = x.amin(-1, keepdim=True).clamp(max=0)
    span = x.amax(-1, keepdim=True).clamp(min=0) - low
    q = ((x - low) * torch.where(span > 0, 255 / span, 0.0)).round()
    return q.double() * (span / 255).double() + low.double()


def product(of: nn.Linear, x: Tensor) -> Tensor:
    """The product of the bytes, in float64."""
    scale = of.weight.detach().abs().amax(1, keepdim=True) / 127
    w = (of.weight.detach() / scale).round().double() * scale.double()
    y = rows_as_bytes(x) @ w.T
    return y if of.bias is None else y + of.bias.double()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 24), (9, 24), (2, 7, 24), (61, 24), (0, 24)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_of_the_bytes(way: str, shape: tuple[int, ...], bias: bool) -> None:
    made, x = layer(bias=bias), torch.randn(shape) * 3
    torch.testing.assert_close(made(x).double(), product(made, x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (3, 33), (17, 31), (65, 100), (2100, 34)])
def test_any_size(way: str, n_in: int, n_out: int) -> None:
    made, x = layer(n_in, n_out), torch.randn(13, n_in)
    torch.testing.assert_close(made(x).double(), product(made, x), atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("activation", sorted(ACTIVATION))
def test_activations(way: str, activation: str) -> None:
    made, x = layer(), torch.randn(14, 24) * 4
    wanted = ACTIVATION[activation](product(made, x))  # type: ignore[index]
    torch.testing.assert_close(made.activated(x, activation).double(), wanted, atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]


@torch.no_grad()
def test_residual_and_side_by_side(way: str) -> None:
    made, x, residual = layer(), torch.randn(5, 24), torch.randn(5, 40)
    torch.testing.assert_close(
        made.add_residual(x, ResidualAdd(residual)).double(), residual + product(made, x), atol=1e-5, rtol=0
    )
    three = [layer(24, n) for n in (8, 16, 24)]
    for found, each in zip(PackedCache().products(three, x), three, strict=True):
        torch.testing.assert_close(found.double(), product(each, x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_bfloat16(way: str) -> None:
    made, x = layer().bfloat16(), torch.randn(30, 24).bfloat16()
    wanted = product(copy.deepcopy(made).float(), x)
    assert made(x).dtype == torch.bfloat16
    torch.testing.assert_close(made(x).double(), wanted, atol=0.02, rtol=0.01)
    residual = torch.randn(30, 40).bfloat16()
    torch.testing.assert_close(
        made.add_residual(x, ResidualAdd(residual)).double(), residual.double() + wanted, atol=0.03, rtol=0.01
    )


@torch.no_grad()
def test_a_row_is_the_same_in_any_batch(way: str) -> None:
    made, x = layer(65, 100), torch.randn(40, 65)
    assert torch.equal(made(x)[7], made(x[7:8])[0])
    assert torch.equal(made(x[:, ::1].T.contiguous().T), made(x))  # whatever the strides


@torch.no_grad()
def test_numbers_that_are_none_stay_in_their_row(way: str) -> None:
    made, x = layer(), torch.randn(6, 24)
    x[2, 3], x[3, 5], x[4] = torch.nan, torch.inf, 0.0
    found = made(x)
    assert bool(torch.isnan(found[2:4]).all())
    assert torch.equal(found[4], made.bias)
    torch.testing.assert_close(found[5].double(), product(made, x[5]), atol=1e-5, rtol=0)


def test_the_weight_stays_what_it_is(way: str) -> None:
    made, x = layer(), torch.randn(9, 24)
    with torch.no_grad():
        before = made(x)
        twin = pickle.loads(pickle.dumps(copy.deepcopy(made)))
        assert torch.equal(twin(x), before)
        made.weight.mul_(2)
        torch.testing.assert_close(made(x).double(), product(made, x), atol=1e-5, rtol=1e-5)
        made.int8 = False
        torch.testing.assert_close(made(x), nn.functional.linear(x, made.weight, made.bias))
    assert set(made.state_dict()) == {"weight", "bias"}


def test_training_and_gradients_use_the_weights_themselves(way: str) -> None:
    made, x = layer(), torch.randn(9, 24, requires_grad=True)
    plain = nn.functional.linear(x, made.weight, made.bias)
    wanted = torch.autograd.grad(plain.sum(), [x, made.weight, made.bias])
    torch.testing.assert_close(made.train()(x), plain)
    found = made.eval()(x)
    torch.testing.assert_close(found.double(), product(made, x.detach()), atol=1e-5, rtol=0)
    for a, b in zip(torch.autograd.grad(found.sum(), [x, made.weight, made.bias]), wanted, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_many_threads(way: str) -> None:
    made, x = layer(300, 500), torch.randn(200, 300)
    threads = torch.get_num_threads()
    one = made(x)
    torch.set_num_threads(3)
    try:
        assert torch.equal(made(x), one)
    finally:
        torch.set_num_threads(threads)


def test_the_kernels_were_built() -> None:
    """Where the package was installed with a compiler on a chip that can, they are there."""
    folder = Path(native.__file__).parent
    if not any(folder.glob("kernels*.so")):
        return
    flags = Path("/proc/cpuinfo").read_text().split()
    wanted = {name for name, flag in (("avx512", "avx512_vnni"), ("avx2", "avx2")) if flag in flags}
    assert RUNNABLE.keys() == wanted & native.INSTRUCTIONS.keys()


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_a_pickled_model_keeps_its_bytes(tmp_path, bits):
    made = cutaway.LlamaForCausalLM(
        cutaway.LlamaConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=100
        )
    )
    made.save_pretrained(tmp_path)
    model = cutaway.LlamaForCausalLM.from_pretrained(tmp_path, dtype=bits)
    twin = pickle.loads(pickle.dumps(model))
    ids = torch.randint(0, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(twin(ids).logits, model(ids).logits)
    assert twin.get_memory_footprint() == model.get_memory_footprint() < made.get_memory_footprint() / 2
    torch.save(model.state_dict(), tmp_path / "state.pt")  # what is saved for others holds numbers
    assert all(type(value) is torch.Tensor for value in torch.load(tmp_path / "state.pt").values())

"""The packed product is the plain one, and stays so whatever happens to the weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway import native
from cutaway.nn import linear
from cutaway.nn.linear import ACTIVATION, Linear, PackedCache, activated, together
from cutaway.nn.residual import ResidualAdd, add_residual

needs_operators = linear.OPERATORS is not None


def layer_and_rows(rows: int = 9) -> tuple[Linear, Tensor]:
    return Linear(24, 40).eval(), torch.randn(rows, 24)


def plain(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


@pytest.fixture(params=["kernels", "oneDNN", "plain"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the product is packed; every test also runs without our kernels, and without torch's operators."""
    if request.param == "kernels":
        return native.LIBRARY is not None or needs_operators
    monkeypatch.setattr(native, "LIBRARY", None)
    if request.param == "plain":
        monkeypatch.setattr(linear, "OPERATORS", None)
    return request.param == "oneDNN" and needs_operators


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 24), (9, 24), (2, 7, 24), (0, 24)])
def test_same_product(both_ways: bool, shape: tuple[int, ...]) -> None:
    layer, _ = layer_and_rows()
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), plain(layer, x))
    assert (layer.packed.weight is not None) == (both_ways and x.numel() > 0)


@torch.no_grad()
@pytest.mark.parametrize("activation", sorted(ACTIVATION))
def test_fused_activation(both_ways: bool, activation: str) -> None:
    layer, x = layer_and_rows()
    wanted = ACTIVATION[activation](plain(layer, x))  # type: ignore[index]
    torch.testing.assert_close(activated(layer, x, activation), wanted)  # type: ignore[arg-type]


@torch.no_grad()
def test_fused_residual_and_side_by_side(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    residual = torch.randn(9, 40)
    torch.testing.assert_close(add_residual(layer, x, ResidualAdd(residual)), residual + plain(layer, x))
    layers = [Linear(24, n).eval() for n in (8, 16, 24)]
    for found, each in zip(together(PackedCache(), layers, x), layers, strict=True):
        torch.testing.assert_close(found, plain(each, x))


CHANGES: dict[str, Callable[[Linear], object]] = {
    "in place": lambda m: m.weight.mul_(2),
    "through .data": lambda m: m.weight.data.mul_(2),
    "one number through .data": lambda m: m.weight.data[3].__setitem__(5, 9.0),
    "the bias through .data": lambda m: m.bias.data.add_(1),
    "another parameter": lambda m: setattr(m, "weight", nn.Parameter(torch.randn(40, 24))),
    "another tensor behind .data": lambda m: setattr(m.weight, "data", torch.randn(40, 24)),
    "a state that is loaded": lambda m: m.load_state_dict(Linear(24, 40).state_dict()),
    "double and back": lambda m: m.double().float(),
}


@torch.no_grad()
@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_weight_is_noticed(both_ways: bool, how: str) -> None:
    layer, x = layer_and_rows()
    layer(x)
    CHANGES[how](layer)
    torch.testing.assert_close(layer(x), plain(layer, x))


@pytest.mark.parametrize("fused", [False, True])
def test_training_steps_are_noticed(both_ways: bool, fused: bool) -> None:
    layer, x = layer_and_rows()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused)
    for _ in range(3):
        layer.train()
        layer(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        layer.eval()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), plain(layer, x))


def test_gradients_are_those_of_the_plain_product(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    x.requires_grad_()
    wanted = torch.autograd.grad(plain(layer, x).square().sum(), [x, layer.weight, layer.bias])
    found = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight, layer.bias])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_copies_and_pickles_leave_the_packed_form_behind(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    before = layer(x)
    twin = copy.deepcopy(layer)
    twin.weight.zero_()
    torch.testing.assert_close(twin(x), layer.bias.expand(9, 40))
    torch.testing.assert_close(layer(x), before)
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(x), before)
    assert set(layer.state_dict()) == {"weight", "bias"}


@torch.no_grad()
def test_a_hook_sees_every_call(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out))
    activated(layer, x, "gelu")
    add_residual(layer, x, ResidualAdd(torch.zeros(9, 40)))
    together(PackedCache(), [layer], x)
    handle.remove()
    activated(layer, x, "gelu")
    assert len(seen) == 3
    torch.testing.assert_close(seen[0], plain(layer, x))


@torch.no_grad()
def test_other_kinds_of_layers_are_called_as_they_are(both_ways: bool) -> None:
    other, x = nn.Linear(24, 40), torch.randn(9, 24)
    torch.testing.assert_close(activated(other, x, "relu"), plain(other, x).relu())
    mixed = [Linear(24, 40).eval(), other]
    for found, each in zip(together(PackedCache(), mixed, x), mixed, strict=True):
        torch.testing.assert_close(found, plain(each, x))


@torch.no_grad()
def test_bfloat16(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    wanted = plain(layer, x)
    torch.testing.assert_close(layer.bfloat16()(x.bfloat16()).float(), wanted, atol=0.05, rtol=0.05)


def test_gradients_of_gradients(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    x.requires_grad_()

    def second(y: Tensor) -> Tensor:
        first = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), layer.weight)[0]

    torch.testing.assert_close(second(layer(x)), second(plain(layer, x)), rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, in the first use of torch.func
def test_function_transforms(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    parameters = dict(layer.named_parameters())

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(layer, weights, (row[None],)).square().sum()  # type: ignore[no-any-return]

    per_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    whole = torch.autograd.grad(plain(layer, x).square().sum(), layer.weight)[0]
    torch.testing.assert_close(per_row["weight"].sum(0), whole)
    _, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, torch.ones_like(x) @ layer.weight.T)


def test_inside_inference_mode(both_ways: bool) -> None:
    with torch.inference_mode():
        layer, x = layer_and_rows()
        torch.testing.assert_close(layer(x), plain(layer, x))
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), plain(layer, x))

"""The packed product is the plain one, and stays so whatever happens to the weights."""

from __future__ import annotations

import ast
import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from parity.pairs import gap, pair
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from cutaway import BertConfig, BertModel, native
from cutaway.config.architecture import FeedForward
from cutaway.nn import linear
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.frozen_linear import freeze_linear
from cutaway.nn.linear import Linear, PackedCache, linear_op
from cutaway.nn.norm_mlp import MLP
from cutaway.nn.residual import ResidualAdd

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
    torch.testing.assert_close(layer.activated(x, activation), wanted)  # type: ignore[arg-type]


@torch.no_grad()
def test_fused_residual_and_side_by_side(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    residual = torch.randn(9, 40)
    torch.testing.assert_close(layer.add_residual(x, ResidualAdd(residual)), residual + plain(layer, x))
    layers = [Linear(24, n).eval() for n in (8, 16, 24)]
    for found, each in zip(PackedCache().products(layers, x), layers, strict=True):
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


def _as_views_of_one_buffer(layer: Linear) -> Tensor:
    """The layer's parameters as parts of one flat tensor, as some optimizers and launchers keep them."""
    parts = [p.detach().flatten() for p in layer.parameters()]
    flat = torch.cat(parts)
    for p, part in zip(layer.parameters(), flat.split([len(part) for part in parts]), strict=True):
        p.data = part.view(p.shape)
    return flat


def _fused_step(held: Tensor) -> None:
    zeros = [torch.zeros_like(held) for _ in range(2)]
    torch._fused_adamw_(
        [held], [torch.ones_like(held)], [zeros[0]], [zeros[1]], [], [torch.tensor(1.0)],
        lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip


# what is taken hold of before anything is packed, and the write, which torch does not count
UNCOUNTED: dict[str, tuple[Callable[[Linear], object], Callable[[object], object]]] = {
    "a numpy array": (lambda m: m.weight.detach().numpy(), lambda held: held.__imul__(2)),
    "a numpy array of the bias": (lambda m: m.bias.detach().numpy(), lambda held: held.__iadd__(1)),
    "a .data from before": (lambda m: m.weight.data, lambda held: held.mul_(2)),
    "a buffer of all parameters": (_as_views_of_one_buffer, lambda held: held.mul_(2)),
    "a copy of storages": (
        lambda m: m.weight.untyped_storage(),
        lambda held: held.copy_(torch.randn(held.nbytes() // 4).untyped_storage()),
    ),
    "_foreach_ on held data": (lambda m: [m.weight.data], lambda held: torch._foreach_add_(held, 1.0)),
    "a fused optimizer, called directly": (lambda m: m.weight.data, _fused_step),
    "shared memory": (lambda m: _shared(m), lambda held: held.mul_(2)),
}


def _shared(layer: Linear) -> Tensor:
    """The weight as another process sees it: another mapping's tensor of the same memory, without a common count."""
    layer.weight.data = layer.weight.data.share_memory_()
    return torch.empty(0, dtype=layer.weight.dtype).set_(layer.weight.untyped_storage(), 0, (40, 24))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", UNCOUNTED)
def test_writes_that_nobody_counts_are_found(both_ways: bool, how: str, dtype: torch.dtype) -> None:
    hold, write = UNCOUNTED[how]
    layer, x = layer_and_rows()
    if "numpy" not in how:  # it has no bfloat16
        layer, x = layer.to(dtype), x.to(dtype)
    held = hold(layer)
    before = layer(x)
    count = layer.weight._version
    write(held)
    assert layer.weight._version == count
    few = 1e-5 if x.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(layer(x), plain(layer, x), atol=few, rtol=few, equal_nan=True)
    assert not torch.equal(layer(x), before)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (16, 16), (1, 9), (7, 1), (48, 32)])
def test_a_whole_row_or_column_is_found_within_a_few_passes(both_ways: bool, shape: tuple[int, int]) -> None:
    n, k = shape
    x = torch.randn(3, k)
    for transposed in (False, True):  # as a part of a published matrix may lie
        for row in (True, False):
            for i in range(n if row else k):
                layer = Linear(k, n).eval()
                if transposed:
                    layer.weight = nn.Parameter(torch.randn(k, 3 * n)[:, n : 2 * n].T)
                held = layer.weight.detach().numpy()
                layer(x)
                held[i if row else slice(None), slice(None) if row else i] += 3.0
                if transposed and n != k:
                    continue  # only rows and columns on its slant
                for _ in range(-(-max(shape) * 2 // 4)):
                    found = layer(x)
                torch.testing.assert_close(found, plain(layer, x))


@torch.no_grad()
def test_a_new_parameter_is_never_taken_for_the_one_before(both_ways: bool) -> None:
    layer, x = layer_and_rows()
    for seed in range(60):  # sooner or later, one lies where another lay, under its id
        torch.manual_seed(seed)
        layer.weight = nn.Parameter(torch.randn(40, 24))
        layer.weight = nn.Parameter(torch.randn(40, 24))
        torch.testing.assert_close(layer(x), plain(layer, x))


MADE_OF_ANOTHER: dict[str, Callable[[Linear], object]] = {
    "a parameter of the parameter": lambda m: setattr(m, "weight", nn.Parameter(m.weight)),
    "a parameter of its bias": lambda m: setattr(m, "bias", nn.Parameter(m.bias)),
    "its own detached tensor": lambda m: setattr(m, "weight", nn.Parameter(m.weight.detach())),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight_norm, the older": nn.utils.weight_norm,
    "spectral_norm, the older": nn.utils.spectral_norm,
    "pruned": lambda m: prune.l1_unstructured(m, "weight", 0.5),
    "a pruned bias": lambda m: prune.random_unstructured(m, "bias", 0.5),
    "pruned for good": lambda m: prune.remove(prune.l1_unstructured(m, "weight", 0.5), "weight"),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("runs", [0, 2])
@pytest.mark.parametrize("how", MADE_OF_ANOTHER)
def test_weights_that_are_made_of_others(both_ways: bool, how: str, runs: int) -> None:
    layer, x = layer_and_rows()
    with torch.no_grad():
        for _ in range(runs):
            layer(x)
        MADE_OF_ANOTHER[how](layer)
        torch.testing.assert_close(layer(x), plain(layer, x))
    layer.train()(x).square().sum().backward()
    step = torch.optim.SGD(layer.parameters(), lr=0.1)
    step.step()
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(layer, x))
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
            torch.testing.assert_close(layer(x), plain(layer, x))
    assert type(layer.state_dict().popitem()[1]) is Tensor


@torch.no_grad()
def test_what_cannot_be_read_is_refused_and_what_is_stretched_is_stretched() -> None:
    layer, x = layer_and_rows()
    layer.bias = nn.Parameter(torch.ones(1))
    torch.testing.assert_close(layer(x), plain(layer, x))
    layer.bias = nn.Parameter(torch.ones(3))
    with pytest.raises(RuntimeError):
        layer(x)
    for change in (
        lambda m: setattr(m, "weight", nn.Parameter(torch.empty(40, 24, device="meta"))),
        lambda m: m.weight.untyped_storage().resize_(64),
        lambda m: m.bias.untyped_storage().resize_(0),
    ):
        layer, x = layer_and_rows()
        layer(x)
        change(layer)
        if linear.OPERATORS is not None or native.LIBRARY is not None:
            with pytest.raises(RuntimeError):
                layer(x)


def test_single_numbers_are_found_after_repack() -> None:
    model = BertModel(BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=48)).eval()  # fmt: skip
    ids = torch.arange(4)[None]
    with torch.no_grad():
        before = model(ids).last_hidden_state
        for name, p in model.named_parameters():
            if name.endswith("weight") and p.dim() == 2:
                p.detach().numpy()[:2, :3] += 5.0
        model.repack()
        found = model(ids).last_hidden_state
        twin = copy.deepcopy(model)
        assert torch.equal(found, twin(ids).last_hidden_state) and not torch.equal(found, before)


def test_optimizers_are_watched_from_the_first_packed_weight_on() -> None:
    code = (
        "import torch; from torch.optim import optimizer as o; from cutaway.nn.linear import Linear\n"
        "print(len(o._global_optimizer_post_hooks)); Linear(4, 4).eval()(torch.ones(1, 4))\n"
        "print(len(o._global_optimizer_post_hooks))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == ["0", "1" if native.LIBRARY is not None or needs_operators else "0"]


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
    layer.activated(x, "gelu")
    layer.add_residual(x, ResidualAdd(torch.zeros(9, 40)))
    PackedCache().products([layer], x)
    handle.remove()
    layer.activated(x, "gelu")
    assert len(seen) == 3
    torch.testing.assert_close(seen[0], plain(layer, x))


@torch.no_grad()
def test_other_kinds_of_layers_are_called_as_they_are(both_ways: bool) -> None:
    other, x, residual = nn.Linear(24, 40), torch.randn(9, 24), torch.randn(9, 40)
    op = linear_op(other)
    torch.testing.assert_close(op.activated(x, "relu"), plain(other, x).relu())
    torch.testing.assert_close(op.add_residual(x, ResidualAdd(residual)), residual + plain(other, x))
    assert not op.fuses(x) and linear_op(layer_and_rows()[0]) is not op
    mixed = [Linear(24, 40).eval(), other]
    for found, each in zip(PackedCache().products(mixed, x), mixed, strict=True):
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


class Scaled(nn.Module):
    """Somebody's layer in the place of one of ours: no weight, no bias, only a call."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 0.5  # type: ignore[no-any-return]


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("replaced", ["gate", "up", "down"])
@pytest.mark.parametrize("rows", [3, 200])
def test_a_layer_without_weights_can_stand_in_any_place(both_ways: bool, gated: bool, replaced: str, rows: int) -> None:
    """However many rows: the fused pass asks no weight of a layer that is not ours."""
    if replaced == "gate" and not gated:
        return
    mlp = MLP(FeedForward(40, "silu", gated=gated), 24).eval()
    x, join = torch.randn(rows, 24), ResidualAdd(torch.randn(rows, 24))
    setattr(mlp, replaced, Scaled(getattr(mlp, replaced)))
    up = F.silu(mlp.gate(x)) * mlp.up(x) if gated else F.silu(mlp.up(x))
    torch.testing.assert_close(mlp(x, join=join), join.residual + mlp.down(up))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 100])
def test_every_kind_of_op_gives_the_same(both_ways: bool, rows: int) -> None:
    """A layer, the frozen one and one that is only called agree in every operation of the interface."""
    if not both_ways:
        return
    layer, norm = Linear(24, 40).eval(), nn.LayerNorm(40)
    x, residual = torch.randn(rows, 24), torch.randn(rows, 40)
    frozen = freeze_linear(layer.packed, [layer])
    assert frozen is not None and linear_op(frozen) is frozen and linear_op(layer) is layer
    assert torch.equal(frozen(x), layer(x)) and frozen.fuses(x) and layer.fuses(x)
    for activation in ACTIVATION:
        assert torch.equal(frozen.activated(x, activation), layer.activated(x, activation))
    for join in (ResidualAdd(residual), ResidualAdd(residual, norm=norm)):
        assert torch.equal(frozen.add_residual(x, join), layer.add_residual(x, join))
    other = linear_op(nn.Linear(24, 40).requires_grad_(False))
    for op in (layer, frozen, other):
        for activation in ACTIVATION:
            torch.testing.assert_close(op.activated(x, activation), ACTIVATION[activation](op(x)))
        torch.testing.assert_close(op.add_residual(x, ResidualAdd(residual, norm=norm)), norm(residual + op(x)))


def test_kinds_of_linear_layers_are_told_apart_in_one_place() -> None:
    """Who uses a linear layer knows the interface: no module asks for a class of it, but its own (`linear_op`, ...)."""
    asked = set()
    for path in sorted(Path(linear.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                if names & {"FrozenLinear", "PackedCache", "PackedGate", "OtherLinear"}:
                    asked.add(path.name)
    assert asked == {"linear.py"}


@pytest.fixture
def through_torch(both_ways: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """silu and gelu_tanh as activations that neither the kernels nor oneDNN have."""
    for name in ("silu", "gelu_tanh"):
        monkeypatch.delitem(native.ACTIVATION_NUMBERS, name)
        monkeypatch.delitem(linear._FUSED, name)


@pytest.mark.usefixtures("through_torch")
@pytest.mark.parametrize(("family", "ending"), [("llama", "ForCausalLM"), ("gpt2", "LMHeadModel")])
@torch.no_grad()
def test_an_activation_that_no_kernel_has_goes_through_torch(family: str, ending: str) -> None:
    """A gated model and one without a gate: few rows and many, a decode step, and what is generated."""
    theirs, ours = pair(family, ending)
    for shape in ((1, 3), (9, 11)):  # below the rows from which on layers are fused, and above
        ids = torch.randint(5, 99, shape)
        assert gap(ours(ids).logits, theirs(ids).logits) < 1e-5
    ids = torch.randint(5, 99, (2, 6))
    cache = ours(ids[:, :5], use_cache=True).past_key_values
    stepper = ours.decode_stepper()
    assert stepper is not None
    assert gap(stepper(ids[:, 5:], cache), theirs(ids).logits[:, 5:]) < 1e-5
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(ids, **settings), theirs.generate(ids, **settings))


@pytest.mark.usefixtures("through_torch")
@pytest.mark.parametrize("int8", [False, True])
@torch.no_grad()
def test_a_gate_whose_activation_no_kernel_has(int8: bool) -> None:
    mlp = MLP(FeedForward(size=32, activation="silu", gated=True, bias=False), 24).eval()
    gate, up, down = layers = mlp.gate, mlp.up, mlp.down
    for layer in layers:
        layer.int8 = int8
    x, join = torch.randn(80, 24), ResidualAdd(torch.randn(80, 24))
    wanted = F.silu(gate(x)) * up(x)
    torch.testing.assert_close(mlp.packed.gated((gate, up), x, "silu"), wanted)
    assert mlp.packed.fused_mlp((gate, up), down, x, "silu", join) is None
    torch.testing.assert_close(mlp(x, join=join), join.residual + down(wanted))
    frozen = freeze_linear(mlp.packed, (gate, up))
    if frozen is not None:
        torch.testing.assert_close(frozen.gated((gate, up), x, "silu"), wanted)

"""The learning linear layer gives what torch's gives, once and twice differentiated."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import cutaway
from cutaway.nn.cpu import onednn_linear
from cutaway.nn.linear import OPERATORS, Linear


def gradients(x: torch.Tensor, layer: Linear, fast: bool) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    out = layer(x) if fast else F.linear(x, layer.weight, layer.bias)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    learned = [layer.weight.grad] + ([layer.bias.grad] if layer.bias is not None else [])
    return [out.detach(), x.grad, *[g.clone() for g in learned]]  # type: ignore[list-item,union-attr]


@pytest.mark.parametrize("shape", [(70, 256), (5, 14, 256)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_torchs(shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = Linear(256, 320, bias=bias).train(), torch.randn(shape)
    calls = []
    product = onednn_linear._Learning.apply
    monkeypatch.setattr(onednn_linear._Learning, "apply", lambda *a: calls.append(1) or product(*a))
    for ours, theirs in zip(gradients(x, layer, True), gradients(x, layer, False), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(calls) == (OPERATORS is not None)
    layer.weight.requires_grad_(False)  # a frozen layer still passes the gradient on
    one = x.clone().requires_grad_()
    layer(one).sum().backward()
    assert torch.allclose(one.grad, layer.weight.sum(0).expand_as(one), atol=1e-4)  # type: ignore[arg-type]
    assert layer(x).grad_fn is None or bias


@pytest.mark.parametrize(
    ("rows", "inner", "outer"), [(1, 2048, 2048), (2048, 2048, 1), (4096, 1, 1024), (33, 511, 257)]
)
@pytest.mark.parametrize("strides", ["plain", "turned", "repeated"])
def test_gradients_through_any_strides(rows: int, inner: int, outer: int, strides: str) -> None:
    """What is read where it lies may have rows or columns of one, lie across, or be one row again and again."""
    torch.manual_seed(0)
    draw = {"plain": torch.randn(rows, inner), "turned": torch.randn(inner, rows).T,
            "repeated": torch.randn(1, inner).expand(rows, inner)}[strides]  # fmt: skip
    weight = torch.randn(inner, outer).T if strides == "turned" else torch.randn(outer, inner)
    found = []
    for times in (lambda x, w: onednn_linear.product(x, w, None), lambda x, w: F.linear(x, w)):
        x, w = draw.detach().requires_grad_(), weight.detach().requires_grad_()
        out = times(x, w) if OPERATORS is not None else F.linear(x, w)
        found.append([*torch.autograd.grad(out.sum(), [x, w], retain_graph=True),  # one number, expanded
                      *torch.autograd.grad((out * out.detach()).sum(), [x, w])])  # fmt: skip
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_gradients_of_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    layer, x = Linear(256, 320).train(), torch.randn(70, 256, requires_grad=True)
    found = []
    for call in (layer, lambda y: F.linear(y, layer.weight, layer.bias)):
        (first,) = torch.autograd.grad(call(x).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.pow(2).sum(), [x, layer.weight]))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-2 * float(theirs.abs().max()))


def test_a_step_of_a_padded_batch_is_that_of_the_texts() -> None:
    torch.manual_seed(0)
    config = cutaway.BertConfig(
        vocab_size=99, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
    )  # fmt: skip
    model = cutaway.BertForSequenceClassification(config).train()
    lengths = [90, 40, 40, 7]
    mask = torch.arange(90) < torch.tensor(lengths)[:, None]
    ids, labels = torch.randint(5, 99, (4, 90)), torch.tensor([0, 1, 1, 0])
    model(ids, attention_mask=mask.long(), labels=labels).loss.backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for i, n in enumerate(lengths):
        (model(ids[i : i + 1, :n], labels=labels[i : i + 1]).loss / 4).backward()
    assert max(float((p.grad - together[n]).abs().max()) for n, p in model.named_parameters() if n in together) < 1e-5

"""A recording between a product and what follows it changes no bit of the result, and costs no second product."""

from __future__ import annotations

import pytest
import torch

import cutaway
from cutaway.nn import exact_fusion, linear
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.exact_fusion import is_bitwise_splittable
from cutaway.nn.linear import Linear
from cutaway.nn.residual import ResidualAdd


@pytest.mark.parametrize("activation", [None, *ACTIVATION])
def test_inference_mode_is_answered_like_any_other(activation):
    exact_fusion._alike.cache_clear()
    with torch.inference_mode():
        first = exact_fusion._alike(activation)
    exact_fusion._alike.cache_clear()
    assert exact_fusion._alike(activation) == first


FIELDS = {"vocab_size": 61, "num_hidden_layers": 2, "max_position_embeddings": 40}
SIZES = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("activation", [None, *ACTIVATION])
@torch.no_grad()
def test_what_is_called_separable_is(activation, dtype):
    for width, rows in ((48, 1), (192, 33), (384, 100)):
        layer = Linear(width, 64).eval().to(dtype)
        x, residual = torch.randn(rows, width, dtype=dtype), torch.randn(rows, 64, dtype=dtype)
        if is_bitwise_splittable(layer, x, activation):
            if activation is None:
                one, two = layer.add_residual(x, ResidualAdd(residual)), residual + layer(x)
            else:
                one, two = layer.activated(x, activation), ACTIVATION[activation](layer(x))
            assert torch.equal(one, two)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recording_everything_changes_no_bit(act, dtype):
    model = cutaway.BertModel(cutaway.BertConfig(**FIELDS, **SIZES, hidden_act=act)).eval().to(dtype)
    ids = torch.randint(5, 61, (9, 30))
    mask = (torch.arange(30) < torch.randint(3, 31, (9, 1))).long()
    with torch.inference_mode():
        plain = model(input_ids=ids, attention_mask=mask).last_hidden_state
        with model.record("*") as r:
            open_ = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(plain, open_)
    assert not r["blocks.1.mlp.act"][mask == 0].any()
    heads = sum(r[f"blocks.1.attn.head.{h}.out"] for h in range(4)) + model.blocks[1].attn.o.bias.detach()
    wanted = r["blocks.1.attn.out"]
    close = 1e-5 if dtype == torch.float32 else 0.05
    assert (heads - wanted)[mask == 1].abs().max() <= close * wanted.abs().max()


def test_everything_takes_one_product_for_each_layer_and_one_for_each_head(monkeypatch):
    if linear.OPERATORS is None or not is_bitwise_splittable(Linear(8, 8).eval(), torch.zeros(1, 8)):
        return  # then the result is computed beside what is shown
    model = cutaway.BertModel(cutaway.BertConfig(**FIELDS, **SIZES, hidden_act="relu")).eval()
    made = []
    product = linear.PackedCache.product
    monkeypatch.setattr(linear.PackedCache, "product", lambda *args, **more: made.append(1) or product(*args, **more))
    with torch.inference_mode():
        for record in ((), ("blocks.*",)):
            made.clear()
            with model.record(*record or ("embed",)):
                model(input_ids=torch.randint(5, 61, (2, 30)))
            assert len(made) == 2 * 4 + 1  # q, k and v as one; o; up; down; the pooler

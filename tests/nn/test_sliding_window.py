"""Attention that reaches only so far: stretches against one whole mask, a prompt against its tokens one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from cutaway import native
from cutaway.config.architecture import Attention as Spec
from cutaway.families.llama import WEIGHTS, LlamaConfig, to_architecture
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.nn import sliding_window as windows
from cutaway.nn.attention import Attention
from cutaway.nn.sliding_window import band, stretches

WINDOW = 5
LENGTHS = (23, 4, 17)


def windowed(config: Any) -> Any:
    """Llama in whose first two of three layers a token sees `WINDOW` tokens."""
    whole = to_architecture(config)
    return replace(whole, stack=replace(whole.stack, windows=(WINDOW, WINDOW, None)))


class Near(Backbone, family=Family(windowed, WEIGHTS, "model"), config=LlamaConfig, prefix="model"):
    """Llama with windows."""


def reference() -> Any:
    torch.manual_seed(0)
    fields = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48, "head_dim": 8}
    config = transformers.Qwen2Config(
        **fields, num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=WINDOW,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"], initializer_range=0.5,
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.Qwen2Model(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.zero_()
    return model


def pair() -> tuple[Any, Any]:
    theirs = reference()
    keep = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    config = LlamaConfig(num_key_value_heads=2, head_dim=8, **{name: getattr(theirs.config, name) for name in keep})
    ours = Near(config).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.endswith("_proj.bias")})
    return theirs, ours


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 7, 40, 100])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 50])
def test_stretches_see_what_a_whole_band_sees(
    length: int, window: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "STRETCH", 16)
    seen = torch.zeros(length, length, dtype=torch.bool)
    for own, keys, mask in stretches(length, window, causal, torch.device("cpu")):
        assert mask.shape == (own.stop - own.start, keys.stop - keys.start)
        seen[own, keys] = mask
    assert torch.equal(seen, band(length, window, causal, torch.device("cpu")))
    steps = torch.arange(length)
    distance = steps[:, None] - steps
    wanted = (distance < window) & (distance >= 0) if causal else distance.abs() < window
    assert torch.equal(seen, wanted)


@pytest.mark.parametrize("causal", [True, False])
def test_near_equals_a_masked_whole(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "STRETCH", 8)
    torch.manual_seed(0)
    layer = Attention(Spec(4, 2, 8, 8**-0.5), 32)
    q, k, v = (torch.randn(3, heads, 30, 8, requires_grad=True) for heads in (4, 2, 2))
    found = layer._near(q, k, v, WINDOW, causal)
    wanted = layer._fast(q, k, v, band(30, WINDOW, causal, q.device), False)
    assert torch.allclose(found, wanted, atol=1e-6)
    probe = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * probe).sum(), (q, k, v)),
        torch.autograd.grad((wanted * probe).sum(), (q, k, v)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5)


def batch(side: str) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 99, (len(LENGTHS), max(LENGTHS)), generator=draw)
    mask = torch.zeros_like(ids)
    for b, n in enumerate(LENGTHS):
        mask[b, :n] = 1
    return ids, mask if side == "right" else mask.flip(1)


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_layer_equals_transformers(side: str) -> None:
    theirs, ours = pair()
    ids, mask = batch(side)
    with torch.no_grad():
        mine = ours(ids, mask, output_hidden_states=True, output_attentions=True)
        for b in range(len(LENGTHS)):
            real = mask[b].bool()
            yours = theirs(ids[b, real][None], output_hidden_states=True, output_attentions=True)
            for x, y in zip(mine.hidden_states, yours.hidden_states, strict=True):
                assert torch.allclose(x[b, real], y[0], atol=1e-5 * float(y.abs().max()))
            for x, y in zip(mine.attentions, yours.attentions, strict=True):
                assert torch.allclose(x[b][:, real][:, :, real], y[0], atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("looking", [False, True])
def test_one_token_after_another_says_what_the_whole_text_says(side: str, looking: bool) -> None:
    """Texts that are longer than the window and shorter, and at last all equally long."""
    _, ours = pair()
    ids, mask = batch(side)
    more = torch.randint(3, 99, (3, 4), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        cache = ours(ids, mask, use_cache=True).past_key_values
        steps = [ours(more[:, i : i + 1], past_key_values=cache, output_attentions=looking) for i in range(2)]
        steps.append(ours(more[:, 2:], past_key_values=cache, output_attentions=looking))
        found = torch.cat([s.last_hidden_state for s in steps], 1)
        for b, n in enumerate(LENGTHS):
            text = torch.cat((ids[b, mask[b].bool()], more[b]))
            whole = ours(text[None], output_attentions=True)
            assert torch.allclose(found[b], whole.last_hidden_state[0, n:], atol=1e-4)
            if looking:
                columns = torch.cat((mask[b].bool(), torch.ones(4, dtype=torch.bool)))
                for x, y in zip(steps[-1].attentions, whole.attentions, strict=True):
                    assert torch.allclose(x[b][:, :, columns], y[0][:, -2:], atol=1e-5)


def test_decoding_texts_of_one_length_reads_only_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair()
    ids, _ = batch("right")
    read: list[int] = []
    monkeypatch.setattr(native, "LIBRARY", None)
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        read.append(k.shape[2])
        return kernel(q, k, v, **kwargs)

    with torch.no_grad():
        whole = ours(torch.cat((ids, ids[:, :1]), 1)).last_hidden_state[:, -1]
        cache = ours(ids, use_cache=True).past_key_values
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        step = ours(ids[:, :1], past_key_values=cache).last_hidden_state[:, 0]
    assert read == [WINDOW, WINDOW, 24]
    assert torch.allclose(step, whole, atol=1e-4)

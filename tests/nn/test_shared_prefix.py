"""Texts that begin alike: their first rows are computed once, with the numbers of texts that are run apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import transformers
from torch import Tensor, nn

import cutaway
from cutaway.nn import stack as stacks
from cutaway.nn.packed_batch import PackedBatch, SharedRows

PREFIX = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64,
}  # fmt: skip


@contextmanager
def rows_seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SharedRows | None]]:
    """What each pass inside has found to share."""
    seen: list[SharedRows | None] = []
    whole = stacks.shared_rows

    def noted(*given: object) -> SharedRows | None:
        seen.append(whole(*given))  # type: ignore[arg-type]
        return seen[-1]

    with monkeypatch.context() as patched:
        patched.setattr(stacks, "shared_rows", noted)
        yield seen


def batch(side: str = "right") -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels of texts with the same ten first tokens, two of them with two more."""
    texts = [[*PREFIX, 7, 8, 9], [*PREFIX, 7, 8, 1, 2, 3], [*PREFIX, 11], PREFIX, [*PREFIX, 12, 13, 14, 15]]
    longest = max(map(len, texts))
    rows = []
    for text in texts:
        fill = longest - len(text)
        ids, mask, labels = [*text, *[0] * fill], [1] * len(text) + [0] * fill, [-100, *text[1:], *[-100] * fill]
        if side == "left":
            ids, mask, labels = (x[len(text) :] + x[: len(text)] for x in (ids, mask, labels))
        rows.append((ids, mask, labels))
    return tuple(torch.tensor(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def decoder(**more: object) -> cutaway.PreTrainedModel:
    """A small Llama that learns."""
    torch.manual_seed(0)
    return cutaway.AutoModelForCausalLM.from_config(cutaway.LlamaConfig(**SIZES, **more)).train()


def gradients(model: nn.Module, **given: object) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the gradient of each weight."""
    model.zero_grad()
    loss = model(**given).loss
    loss.backward()
    return loss.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def assert_as_apart(monkeypatch: pytest.MonkeyPatch, model: nn.Module, **given: object) -> None:
    """Rows are shared, and loss and gradients are those of a pass that shares none."""
    with rows_seen(monkeypatch) as seen:
        loss, found = gradients(model, **given)
    assert seen[0] is not None
    monkeypatch.setattr(stacks, "shared_rows", lambda *_: None)
    apart, expected = gradients(model, **given)
    torch.testing.assert_close(loss, apart, atol=1e-5, rtol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("side", ["right", "left"])
def test_gradients_are_upstreams(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = decoder()
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, attn_implementation="eager")).train()
    theirs.load_state_dict(ours.state_dict())
    ids, mask, labels = batch(side)
    with rows_seen(monkeypatch) as seen:
        loss, found = gradients(ours, input_ids=ids, attention_mask=mask, labels=labels)
    assert seen[0] is not None and len(seen[0].computed) == len(PREFIX) + 3 + 4 + 1 + 4 - 1
    places = (mask.cumsum(1) - 1).clamp(min=0)
    wanted, expected = gradients(theirs, input_ids=ids, attention_mask=mask, labels=labels, position_ids=places)
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    "config",
    [
        cutaway.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=64, hidden_dropout=0, attention_dropout=0),
        cutaway.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, n_positions=64
        ),
        cutaway.Gemma2Config(**SIZES, head_dim=8, sliding_window=4, layer_types=["sliding_attention"] * 2),
        cutaway.GPTNeoXConfig(
            **{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}, hidden_dropout=0, attention_dropout=0
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_every_kind_of_position(config: cutaway.PretrainedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = cutaway.AutoModelForCausalLM.from_config(config).train()
    ids, mask, labels = batch()
    assert_as_apart(monkeypatch, model, input_ids=ids, attention_mask=mask, labels=labels)


def test_texts_packed_in_one_row_share_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    ids, mask, _ = batch()
    real = mask.bool()
    packed, places = ids[real][None], (mask.cumsum(1) - 1)[real][None]
    labels = packed.masked_fill(places == 0, -100)
    assert_as_apart(monkeypatch, model, input_ids=packed, position_ids=places, labels=labels)


def test_equal_tokens_at_other_positions_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    ids = torch.tensor([PREFIX, PREFIX])
    places = torch.stack((torch.arange(10), torch.arange(10) + 5))
    with rows_seen(monkeypatch) as seen:
        model(ids, position_ids=places, labels=ids)
        model(ids, position_ids=places[:1].expand(2, 10), labels=ids)
    assert seen[0] is None and seen[1] is not None


def test_an_adapter_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    model.add_adapter(cutaway.LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"]), "some")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    ids, mask, labels = batch()
    with rows_seen(monkeypatch) as seen:
        _, found = gradients(model, input_ids=ids, attention_mask=mask, labels=labels)
    assert seen[0] is not None and all("lora" in name for name in found)
    monkeypatch.setattr(stacks, "shared_rows", lambda *_: None)
    _, expected = gradients(model, input_ids=ids, attention_mask=mask, labels=labels)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_rows_that_differ_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws for each row; a hook is shown all; a cache and an evaluation have passes of their own."""
    ids, mask, labels = batch()
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    dropping, hooked, recorded, adapted = decoder(attention_dropout=0.1), decoder(), decoder(), decoder()
    widths = []
    hooked.model.layers[0].mlp.register_forward_hook(lambda *call: widths.append(call[2].shape))
    adapted.add_adapter(cutaway.LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj"]), "some")
    with rows_seen(monkeypatch) as seen:
        dropping(**given)
        hooked(**given)
        adapted(**given)
        decoder().eval()(**given)
        with torch.no_grad():
            decoder()(**given)
        with recorded.record("blocks.0.mlp.out") as run:
            recorded(**given)
        decoder()(**given, use_cache=True)
    assert seen and not any(seen)
    assert run["blocks.0.mlp.out"].shape == (*ids.shape, 32) and widths[0][:2] == ids.shape


def test_texts_with_little_in_common_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.arange(40).view(2, 20)
    with rows_seen(monkeypatch) as seen:
        decoder()(ids, labels=ids)
    assert seen == [None]


def test_checkpointed_blocks_share_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask, labels = batch()
    _, expected = gradients(decoder(), input_ids=ids, attention_mask=mask, labels=labels)
    model = decoder()
    model.gradient_checkpointing_enable()
    with rows_seen(monkeypatch) as seen:
        _, found = gradients(model, input_ids=ids, attention_mask=mask, labels=labels)
    assert seen[0] is not None
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_rows_are_shared_as_long_as_all_tokens_before_are_equal() -> None:
    """A tree of texts: each row stands for those with the same tokens up to it, and for no other."""
    from cutaway.nn.shared_prefix import shared_rows

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 2, (12, 9), generator=generator)
    lengths = torch.randint(1, 10, (12,), generator=generator)
    mask = (torch.arange(9) < lengths[:, None]).long()
    rows = PackedBatch(12, 9, mask)
    shared = shared_rows(decoder().model, rows, ids, None)
    assert shared is not None and rows.index is not None

    def path(row: int) -> tuple[int, ...]:
        text, place = divmod(int(rows.index[row]), 9)  # type: ignore[index]
        return tuple(ids[text, : place + 1].tolist())

    paths = [path(row) for row in range(rows.used)]
    assert len(shared.computed) == len(set(paths))
    assert [path(int(shared.computed[place])) for place in shared.of[: rows.used]] == paths

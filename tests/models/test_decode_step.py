"""A settled step says bit for bit what the open path says, and gives way to it wherever somebody looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from instructions import instructions as instructions
from parity.pairs import pair, texts
from parity.tiny_models import decoder_fields
from torch import Tensor, nn

from cutaway.generate import stream
from cutaway.models.decode_step import DecodeStepper, freeze_for_decoding
from cutaway.nn.frozen_linear import FrozenLinear
from cutaway.nn.linear import OPERATORS

pytestmark = pytest.mark.usefixtures("instructions")
ENDINGS = {
    "gpt2": "LMHeadModel",
    "llama": "ForCausalLM",
    "roberta": "ForCausalLM",
    "t5": "ForConditionalGeneration",
    "bart": "ForConditionalGeneration",
}


def model(family: str) -> Any:
    extra = {"pad_token_id": 0} if family == "roberta" else {}
    return pair(family, ENDINGS[family], **decoder_fields(family, ENDINGS[family]), **extra)[1]


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def test_the_first_token_does_not_wait_for_a_stepper(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, made = model("llama"), []
    make = ours.decode_stepper
    monkeypatch.setattr(ours, "decode_stepper", lambda: made.append(1) or make())
    ours.generate(torch.stack(texts((4, 4))), max_new_tokens=1)
    assert not made
    ours.generate(torch.stack(texts((4, 4))), max_new_tokens=3, min_new_tokens=3)
    assert len(made) == 1


@pytest.mark.parametrize("family", ENDINGS)
@pytest.mark.parametrize("n", [1, 3])
def test_a_settled_step_is_the_open_step(family: str, n: int) -> None:
    ours = model(family)
    ids, mask = torch.stack(texts((6, 6))), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    new = torch.stack(texts((n, n), seed=5))
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    memory: tuple[Any, ...] = ()
    if ours.is_encoder_decoder:
        encoded = ours.encode(ids, mask)
        memory = (encoded.last_hidden_state, mask)
        given = {"encoder_outputs": encoded, "attention_mask": mask, "decoder_input_ids": ids[:, :2]}
    caches = [ours(**given, use_cache=True).past_key_values for _ in range(2)]
    if ours.is_encoder_decoder:
        given["decoder_input_ids"] = new
    else:
        given = {"input_ids": new}
    wanted = ours(**given, past_key_values=caches[0]).logits
    stepper = ours.decode_stepper()
    assert stepper is not None
    assert torch.equal(stepper(new, caches[1], *memory), wanted)
    assert torch.equal(caches[0].lengths, caches[1].lengths)
    again = torch.stack(texts((1, 1), seed=6))
    given["decoder_input_ids" if ours.is_encoder_decoder else "input_ids"] = again
    assert torch.equal(stepper(again, caches[1], *memory), ours(**given, past_key_values=caches[0]).logits)


@pytest.mark.skipif(OPERATORS is None, reason="torch without oneDNN")
def test_layers_are_bound_and_packed_once() -> None:
    ours = model("llama")
    block = freeze_for_decoding(ours.base).blocks[0]
    assert isinstance(block.attn.packed, FrozenLinear) and isinstance(block.attn.o, FrozenLinear)
    assert block.attn.packed.packed is ours.base.blocks[0].attn.packed
    ours.generate(texts((4,))[0][None], max_new_tokens=3)
    for layer in (ours.base.blocks[0].attn.q, ours.base.blocks[0].attn.k):
        assert layer.packed.weight is None  # side by side, and not once more alone


def test_hooks_and_recorders_see_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = model("gpt2")
    ids = texts((4,))[0][None]
    plain = ours.generate(ids, max_new_tokens=4, eos_token_id=[])
    seen: list[Any] = []
    handle = ours.base.blocks[1].mlp.up.register_forward_hook(lambda *given: seen.append(given))
    assert torch.equal(ours.generate(ids, max_new_tokens=4, eos_token_id=[]), plain)
    assert len(seen) == 4
    handle.remove()
    with ours.record("blocks.0.attn.pattern", "logits") as r:
        ours.generate(ids, max_new_tokens=4, eos_token_id=[])
    assert len(r.runs) == 4
    tokens = stream(ours, ids, max_new_tokens=4, eos_token_id=[])
    next(tokens), next(tokens)
    with ours.record("logits") as late:
        next(tokens)
    assert len(late.runs) == 1

    calls = []
    forward = ours.base.blocks[1].mlp.forward
    ours.base.blocks[1].mlp.forward = lambda *a, **k: calls.append(1) or forward(*a, **k)
    ours.generate(ids, max_new_tokens=4, eos_token_id=[])
    assert len(calls) == 4
    del ours.base.blocks[1].mlp.forward
    monkeypatch.setattr(torch.nn.modules.module, "_global_forward_hooks", {0: print})
    assert ours.decode_stepper() is None


def test_what_is_not_the_engines_own_is_called_as_it_is() -> None:
    ours = model("llama")
    mlp = ours.base.blocks[0].mlp

    class Adapter(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(x) * 0.5

    inner, adapter = mlp.down, Adapter(mlp.down)
    ids = texts((4,))[0][None]
    before = ours.generate(ids, max_new_tokens=6, eos_token_id=[])
    mlp.down = adapter
    ours.generate(ids, max_new_tokens=6, eos_token_id=[])
    assert adapter.calls == 6
    mlp.down = inner
    assert torch.equal(ours.generate(ids, max_new_tokens=6, eos_token_id=[]), before)


def test_a_forward_of_ones_own_is_called() -> None:
    ours = model("llama")

    class Own(type(ours)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits[..., 5] = 1e4
            return out

    ours.__class__ = Own
    try:
        answer = ours.generate(texts((4,))[0][None], max_new_tokens=5, eos_token_id=[])
    finally:
        ours.__class__ = Own.__bases__[0]
    assert answer[0, 4:].tolist() == [5] * 5


def test_gradients_autocast_and_training_need_the_open_path() -> None:
    ours = model("gpt2")
    with torch.enable_grad():
        assert ours.decode_stepper() is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours.decode_stepper() is None
    try:
        assert ours.train().decode_stepper() is None
    finally:
        ours.eval()


@pytest.mark.parametrize("family", ENDINGS)
def test_what_is_peeked_at_is_what_would_be_recorded(family: str) -> None:
    """After every step, captured or not, and the step says what it says without."""
    ours = model(family)
    ids, new = torch.stack(texts((6,))), torch.stack(texts((5,), seed=5))
    memory: tuple[Any, ...] = ()
    given: dict[str, Any] = {"input_ids": ids}
    if ours.is_encoder_decoder:
        encoded = ours.encode(ids)
        memory, given = (encoded.last_hidden_state,), {"encoder_outputs": encoded, "decoder_input_ids": ids[:, :2]}
    caches = [ours(**given, use_cache=True).past_key_values for _ in range(3)]
    plain, peeking = ours.decode_stepper(), ours.decode_stepper()
    assert plain is not None and peeking is not None
    front = "decoder." if ours.is_encoder_decoder else ""
    cross = [(1, "cross.q")] if ours.is_encoder_decoder else []
    places = [(0, "resid"), (1, "resid"), (1, "attn.q"), *cross]
    seen = peeking.peek(places)
    for token in new[0]:
        step = token[None, None]
        assert torch.equal(peeking(step, caches[0], *memory), plain(step, caches[1], *memory))
        asked = {"decoder_input_ids": step, "encoder_outputs": encoded} if memory else {"input_ids": step}
        names = {place: f"{front}blocks.{place[0]}.{place[1]}" for place in places}
        with ours.record(*names.values()) as recorded:
            ours(**asked, past_key_values=caches[2])
        for place, name in names.items():
            torch.testing.assert_close(seen[place].flatten(), recorded[name].flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ENDINGS)
def test_what_is_recorded_of_steps_is_what_the_model_itself_would_show(family: str, monkeypatch: Any) -> None:
    """Prompts of two lengths, one of which ends before the other; with and without steps that are captured."""
    ours = model(family)
    front = "decoder." if ours.is_encoder_decoder else ""
    places = [f"{front}blocks.{i}.{part}" for i in (0, 1) for part in ("resid", "resid_mid", "attn.q", "attn.z")]
    if ours.is_encoder_decoder:
        places += ["encoder.blocks.1.resid", "decoder.blocks.0.resid_cross", "decoder.blocks.1.cross.q"]
    ids, mask = torch.stack(texts((6, 6))), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    steps = []
    called = DecodeStepper.__call__

    def counted(stepper: DecodeStepper, *given: Any) -> Tensor:
        steps.append(1)
        return called(stepper, *given)

    monkeypatch.setattr(DecodeStepper, "__call__", counted)
    first = ours.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False)[0, -1]
    asked = {
        "input_ids": ids, "attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 3, "eos_token_id": int(first),
        "do_sample": False, "pad_token_id": 0,
    }  # fmt: skip
    found = []
    for shows in (True, False):
        if not shows:
            monkeypatch.setattr(DecodeStepper, "shows_all", property(lambda self: False))
        steps.clear()
        with ours.record(*places) as recorded:
            out = ours.generate(**asked)
        found.append((out, recorded.runs, recorded.certificates))
        assert bool(steps) == shows
    assert torch.equal(found[0][0], found[1][0])
    assert len(found[0][1]) == len(found[1][1])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert list(one) == list(other) or {*one} == {*other}
        for place in other:
            torch.testing.assert_close(one[place], other[place], atol=1e-5, rtol=1e-5)
    with ours.record(places[0], f"{front}blocks.0.attn.pattern"):
        stepper = ours.decode_stepper()
        assert stepper is not None and not stepper.shows_all
    with ours.edit({places[0]: lambda x: x}):
        assert not stepper.shows_all

"""A step played from the tape says bit for bit what the blocks' own forward says, and only then is it played."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from instructions import instructions as instructions
from parity.pairs import padded, pair, texts
from parity.tiny_models import HEADS, decoder_fields
from torch import Tensor

from cutaway import native
from cutaway.config.architecture import Alibi, Stack
from cutaway.models import decode_step
from cutaway.nn import kv_cache
from cutaway.nn.kernel_graph import KeptSteps, KernelGraph

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
ENDINGS = ("LMHeadModel", "ForCausalLM")


def has_kernels(stack: Stack) -> bool:
    """Whether all that a step of this architecture computes is a kernel, so that it can be replayed as one call."""
    attention = stack.attention
    plain = attention.softcap is None and attention.norm_over in ("head", "all") and not stack.interleaved
    return (
        plain
        and not isinstance(stack.positions, Alibi)
        and stack.feed_forward.experts is None
        and stack.norm_place not in ("both", "result")
        and stack.residual_scale == 1.0
        and stack.causal  # where words see what comes after them, each new one changes all: there is no step
    )


DECODERS = [(family, e) for family, ends in HEADS.items() for e in ends if e in ENDINGS]


def model(family: str, ending: str, **options: Any) -> Any:
    extra = {"pad_token_id": 0} if family == "roberta" else {}
    return pair(family, ending, **decoder_fields(family, ending), **extra)[1].to(**options)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of each step that is played."""
    found: list[int] = []
    play = KernelGraph.replay

    def noting(self: KernelGraph, x: Tensor, *given: Any) -> Tensor:
        found.append(len(x))
        return play(self, x, *given)

    monkeypatch.setattr(KernelGraph, "replay", noting)
    return found


def answer(ours: Any, ids: Tensor, mask: Tensor, tape: bool = True, **more: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if not tape:
            patch.setattr(decode_step, "RECORDED", 0)
            patch.setattr(KeptSteps, "acquire", lambda self: None)
        asked = {"max_new_tokens": 14, "output_logits": True, "return_dict_in_generate": True, "eos_token_id": []}
        return ours.generate(ids, mask, **(asked | more))


def assert_same(found: Any, wanted: Any) -> None:
    assert torch.equal(found.sequences, wanted.sequences)
    assert len(found.logits) == len(wanted.logits)
    for a, b in zip(found.logits, wanted.logits, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "ending"), DECODERS)
def test_every_decoder_is_played(
    family: str, ending: str, dtype: torch.dtype, played: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.bfloat16 and not native.BF16:
        dtype = torch.float32
    monkeypatch.setattr(kv_cache, "_GROW", 2)  # the cache moves several times
    ours = model(family, ending, dtype=dtype)
    for side in ("left", "right"):
        ids, mask = padded(texts((7, 3, 5)), side, 0)
        wanted = answer(ours, ids, mask, tape=False)
        assert not played
        assert_same(answer(ours, ids, mask), wanted)
        stack = ours.base.architecture.decoder or ours.base.architecture.stack
        # of 14 tokens: the prompt's, and in the first call two steps that went their own way
        assert played == ([3] * (11 if side == "left" else 13) if has_kernels(stack) else [])
        played.clear()


def test_bytes_are_played(played: list[int]) -> None:
    ours = model("llama", "ForCausalLM")
    for module in ours.modules():
        if isinstance(module, decode_step.Linear):
            module.int8 = True
    ids, mask = padded(texts((7, 3, 5)), "left", 0)
    assert_same(answer(ours, ids, mask), answer(ours, ids, mask, tape=False))
    assert len(played) == 11


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    ends=st.lists(st.integers(5, 98), max_size=30),
    seed=st.integers(0, 99),
)
def test_texts_leave(lengths: list[int], ends: list[int], seed: int) -> None:
    ours = test_texts_leave.model  # type: ignore[attr-defined]
    ids, mask = padded(texts(tuple(lengths), seed), "left", 0)
    more = {"eos_token_id": ends, "do_sample": True, "seed": seed, "output_logits": False, "output_scores": True}
    found, wanted = (answer(ours, ids, mask, tape, **more) for tape in (True, False))
    assert torch.equal(found.sequences, wanted.sequences)
    for a, b in zip(found.scores, wanted.scores, strict=True):
        assert torch.equal(a, b)


test_texts_leave.model = model("llama", "ForCausalLM")  # type: ignore[attr-defined]


@torch.no_grad()
def test_more_texts_than_were_recorded(played: list[int]) -> None:
    ours = model("llama", "ForCausalLM")
    stepper = ours.decode_stepper()
    assert stepper is not None
    for batch in (2, 4):
        ids = torch.stack(texts((4,) * batch))
        kept, other = (ours(ids, use_cache=True).past_key_values for _ in range(2))
        for i in range(4):
            new = torch.stack(texts((1,) * batch, seed=i))
            assert torch.equal(stepper(new, kept), ours(new, past_key_values=other).logits)
    assert played == [2, 2, 4, 4, 4]


WRITERS = [
    ("gpt2", "LMHeadModel"),
    ("llama", "ForCausalLM"),
    ("t5", "ForConditionalGeneration"),
    ("bart", "ForConditionalGeneration"),
    ("marian", "MTModel"),
]


@pytest.mark.parametrize(("family", "ending"), WRITERS)
def test_a_later_call_goes_on_with_the_step_of_an_earlier_one(family: str, ending: str, played: list[int]) -> None:
    ours = model(family, ending)
    asked = [
        ((7, 3), 1),
        ((4, 9), 1),
        ((5,), 1),
        ((6, 2), 2),
        ((3, 3), 2),
        ((8,), 1),
    ]
    for i, (lengths, beams) in enumerate(asked):
        ids, mask = padded(texts(lengths, seed=i), "left", 0)
        more: dict[str, Any] = {}
        if beams > 1:
            more = {"num_beams": beams, "output_logits": False, "return_dict_in_generate": False}
        wanted = answer(ours, ids, mask, tape=False, **more)
        assert not played
        found = answer(ours, ids, mask, **more)
        if beams > 1:
            assert torch.equal(found, wanted)
        else:
            assert_same(found, wanted)
        # the first call captures a step, and that of more texts than there were captures anew
        assert len(played) == (11 if i == 0 else 12 if i == 3 else 13)
        played.clear()


def _change(ours: Any, what: str) -> None:
    """A change that a later call must see."""
    stack = ours.base if ours.base.architecture.decoder is None else ours.base.decoder
    block = stack.blocks[1]
    if what == "a product":
        block.mlp.down.weight.data.mul_(1.5)
    elif what == "a product, unseen by torch":
        block.mlp.down.weight.detach().numpy()[:] *= 1.5
    elif what == "a norm, unseen by torch":
        next(p for name, p in block.named_parameters() if "norm" in name).detach().numpy()[:] *= 1.5
    elif what == "another table of tokens":
        stack.embed.tokens.weight = torch.nn.Parameter(stack.embed.tokens.weight.detach() * 1.5)
    elif what == "distances":
        stack.relative.weight.detach().numpy()[:] += torch.randn(stack.relative.weight.shape).numpy()
    elif what == "another layer":
        block.mlp.down = torch.nn.Linear(block.mlp.down.in_features, block.mlp.down.out_features, bias=False)
    elif what == "fewer blocks":
        stack.blocks = stack.blocks[:1]
    elif what == "a dtype":
        ours.double()


CHANGES = ("a product", "a product, unseen by torch", "a norm, unseen by torch", "another table of tokens")


@pytest.mark.parametrize(
    ("family", "what"),
    [
        *((family, what) for family in ("llama", "t5") for what in (*CHANGES, "another layer", "a dtype")),
        ("t5", "distances"),
        ("llama", "fewer blocks"),
    ],
)
def test_what_changed_between_two_calls_is_seen(family: str, what: str) -> None:
    ours = model(family, dict(WRITERS)[family])
    ids, mask = padded(texts((7, 3)), "left", 0)
    before = answer(ours, ids, mask)
    _change(ours, what)
    found = answer(ours, ids, mask)
    assert not torch.equal(found.logits[-1].float(), before.logits[-1].float())
    assert_same(found, answer(ours, ids, mask, tape=False))


@torch.no_grad()
@pytest.mark.parametrize(("family", "ending"), [("llama", "ForCausalLM"), ("t5", "ForConditionalGeneration")])
def test_a_later_recording_goes_on_with_the_step_of_an_earlier_one(
    family: str, ending: str, played: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What shows more serves what asks for less, and a call that records nothing; more than it shows takes another."""
    ours = model(family, ending)
    front = "decoder." if ours.is_encoder_decoder else ""
    one, two = f"{front}blocks.0.resid", f"{front}blocks.1.attn.q"
    asked: list[tuple[tuple[str, ...], int]] = [
        ((one,), 11),
        ((one, two), 11),
        ((two,), 13),
        ((), 13),
        ((one, two), 13),
    ]
    for i, (places, count) in enumerate(asked):
        ids, mask = padded(texts((7, 3), seed=i), "left", 0)
        with monkeypatch.context() as patch:
            patch.setattr(decode_step, "RECORDED", 0)
            patch.setattr(decode_step.DecodeStepper, "shows_all", property(lambda self: False))
            with ours.record(*(places or (one,))) as wanted:
                answer(ours, ids, mask, tape=False, output_logits=False)
        played.clear()
        if places:
            with ours.record(*places) as found:
                answer(ours, ids, mask, output_logits=False)
            assert len(found.runs) == len(wanted.runs)
            for ours_run, their_run in zip(found.runs, wanted.runs, strict=True):
                assert {*ours_run} == {*their_run} & {*places}
                for place in ours_run:
                    torch.testing.assert_close(ours_run[place], their_run[place], atol=1e-5, rtol=1e-5)
        else:
            answer(ours, ids, mask, output_logits=False)
        assert len(played) == count, places


@torch.no_grad()
def test_a_step_shows_its_own_after_one_of_several_tokens(played: list[int]) -> None:
    ours = model("llama", "ForCausalLM")
    ids, new = torch.stack(texts((6,))), torch.stack(texts((8,), seed=5))
    stepper, cache, other = ours.decode_stepper(), *(ours(ids, use_cache=True).past_key_values for _ in range(2))
    seen, at = stepper.peek([(1, "resid")]), 0
    for n in (1, 1, 1, 2, 1):
        step = new[:, at : at + n]
        stepper(step, cache)
        with ours.record("blocks.1.resid") as recorded:
            ours(step, past_key_values=other)
        torch.testing.assert_close(seen[1, "resid"].flatten(), recorded["blocks.1.resid"].flatten())
        at += n
    assert len(played) == 2


@torch.no_grad()
def test_a_text_of_another_kind_is_not_played_by_an_earlier_step(played: list[int]) -> None:
    ours = model("t5", "ForConditionalGeneration")
    ids, mask = padded(texts((7, 7)), "left", 0)
    answer(ours, ids, mask)
    played.clear()
    mask[:, 3] = 0  # a hole in the source, which is torch's work
    found = answer(ours, ids, mask)
    assert not played
    assert_same(found, answer(ours, ids, mask, tape=False))


@pytest.mark.parametrize(("family", "ending"), WRITERS)
def test_a_model_that_wrote_is_gone_with_its_last_name(family: str, ending: str) -> None:
    ours = copy.deepcopy(model(family, ending))
    ids, mask = padded(texts((7, 3)), "left", 0)
    answer(ours, ids, mask)
    gone = weakref.ref(ours.base if ours.base.architecture.decoder is None else ours.base.decoder)
    gc.collect()
    gc.disable()
    try:
        del ours
        assert gone() is None
    finally:
        gc.enable()


def test_what_is_no_kernel_is_not_played(played: list[int]) -> None:
    ours = model("bloom", "ForCausalLM")  # its scores take a bias that grows without end, which is torch's work
    ours.generate(texts((6,))[0][None], max_new_tokens=9, eos_token_id=[])

    class Half(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * 0.5

    ours = model("llama", "ForCausalLM")
    mlp = ours.base.blocks[1].mlp
    mlp.down = Half(mlp.down)
    ids, mask = padded(texts((7, 3)), "left", 0)
    assert_same(answer(ours, ids, mask), answer(ours, ids, mask, tape=False))
    assert not played


def test_threads_keep_tapes_of_their_own() -> None:
    ours = model("gpt2", "LMHeadModel")
    given = [padded(texts((3 + i,) * 2, seed=i), "left", 0) for i in range(4)]
    wanted = [answer(ours, *one) for one in given]
    found: list[Any] = [None] * len(given)

    def work(i: int) -> None:
        found[i] = answer(ours, *given[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


@torch.no_grad()
def test_memory_that_was_taken_is_kept(played: list[int]) -> None:
    """Weights that are laid out anew in the middle of a text leave the tape what it was made of."""
    ours = model("llama", "ForCausalLM")
    stepper = ours.decode_stepper()
    assert stepper is not None
    ids = torch.stack(texts((4, 4)))
    kept, other = (ours(ids, use_cache=True).past_key_values for _ in range(2))
    new = [torch.stack(texts((1, 1), seed=i)) for i in range(5)]
    wanted = [ours(one, past_key_values=other).logits for one in new]
    for i, one in enumerate(new):
        assert torch.equal(stepper(one, kept), wanted[i])
        for block in ours.base.blocks:
            for part in (block.attn, block.mlp):
                part.packed.forget()
        ours(ids)  # the weights are packed anew, and the old forms let go
    assert len(played) == 3


def test_a_process_that_writes_text_never_imports_the_compiler(tmp_path: Path) -> None:
    """torch's mode that watches a step imports it at its first operator, unless it is told not to."""
    script = (
        "import sys, torch, cutaway\n"
        "model = cutaway.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "model.generate(torch.tensor([[5, 6]]), max_new_tokens=4, do_sample=False)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(tiny.decoder(tmp_path))]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"

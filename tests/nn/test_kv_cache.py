"""The cache keeps what it is told to keep, and moves no more than it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, padded, pair, texts

from cutaway.errors import InputError
from cutaway.nn.kv_cache import Cache
from cutaway.nn.packed_batch import PackedBatch

LENGTHS = (9, 4, 6, 9, 2)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def llama() -> Any:
    return pair("llama", "ForCausalLM", max_position_embeddings=200)[1]


def filled(model: Any, lengths: tuple[int, ...] = LENGTHS) -> Any:
    ids, mask = padded(texts(lengths), "left", 0)
    return model(ids, attention_mask=mask, use_cache=True).past_key_values


def check(model: Any, cache: Any, held: list[torch.Tensor]) -> None:
    """The next token's logits are those of the texts `held`, each alone."""
    assert cache.lengths.tolist() == [len(text) for text in held]
    assert cache.longest == max(len(text) for text in held)
    new = torch.arange(3, 3 + len(held))[:, None]
    out = model(new, past_key_values=cache).logits
    for b, text in enumerate(held):
        assert gap(out[b, -1], model(torch.cat((text, new[b]))[None]).logits[0, -1]) < TOLERANCE


@pytest.mark.parametrize(
    "index", [[0, 1, 2], [4, 1, 2], [0, 4, 3], [1], [4, 2], [2, 2, 0, 0, 1, 4, 3], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]]
)
def test_select(llama: Any, index: list[int]) -> None:
    cache = filled(llama)
    cache.select(torch.tensor(index))
    held = [texts(LENGTHS)[i] for i in index]
    check(llama, cache, held)


@pytest.mark.parametrize("order", [[[0, 1, 2, 3, 4]], [[1, 1, 3, 3, 0], [4, 4, 0, 1, 2]], [[3, 3, 0], [2, 0], [1]]])
def test_what_is_shared_is_what_is_selected(llama: Any, order: list[list[int]]) -> None:
    caches = shared, selected = filled(llama), filled(llama)
    held = texts(LENGTHS)
    for i, index in enumerate(order):
        where = shared.buffer_and_origins[0].untyped_storage().data_ptr()
        shared.share(torch.tensor(index))
        selected.select(torch.tensor(index))
        assert (
            shared.buffer_and_origins[0].untyped_storage().data_ptr() == where
            and shared.buffer_and_origins[1] is not None
        )
        new = torch.stack(texts((1,) * len(index), seed=i))
        held = [torch.cat((held[j], one)) for j, one in zip(index, new, strict=True)]
        first, second = (llama(new, past_key_values=cache).logits for cache in caches)  # which gathers
        assert torch.equal(first, second)
        assert torch.equal(shared.buffer[:, :, :, : shared.longest], selected.buffer[:, :, :, : selected.longest])
    check(llama, shared, held)


def test_texts_that_stay_are_not_copied(llama: Any) -> None:
    cache = filled(llama)
    where = cache.buffer.untyped_storage().data_ptr()
    cache.select(torch.tensor([0, 4, 2]))  # the last one takes the place of the second
    assert cache.buffer.untyped_storage().data_ptr() == where
    cache.select(torch.tensor([1, 2]))
    check(llama, cache, [texts(LENGTHS)[i] for i in (4, 2)])


@pytest.mark.parametrize("kept", [5, [9, 4, 1, 3, 2], [1, 1, 1, 1, 1], [2, 9, 9, 2, 9]])
def test_crop(llama: Any, kept: Any) -> None:
    cache = filled(llama)
    cache.crop(kept)
    most = [kept] * 5 if isinstance(kept, int) else kept
    check(llama, cache, [text[:n] for text, n in zip(texts(LENGTHS), most, strict=True)])


def test_crop_below_nothing(llama: Any) -> None:
    with pytest.raises(InputError, match="0 or more"):
        filled(llama).crop([3, -1, 3, 3, 3])


def test_crop_from_the_end(llama: Any) -> None:
    cache = filled(llama)
    cache.crop(-2)  # upstream's way to forget the last ones
    check(llama, cache, [text[:-2] for text in texts(LENGTHS)])


def test_the_buffer_grows(llama: Any) -> None:
    cache = filled(llama, (5, 3))
    given = texts((100, 100), seed=9)
    for at in range(0, 96, 8):
        llama(torch.stack([text[at : at + 8] for text in given]), past_key_values=cache)
    check(llama, cache, [torch.cat((old, new[:96])) for old, new in zip(texts((5, 3)), given, strict=True)])


def test_gradients_reach_new_keys(llama: Any) -> None:
    cache = filled(llama, (5, 5))
    with torch.enable_grad():
        vectors = torch.randn(2, 2, 32, requires_grad=True)
        vectors.grad = None
        out = llama(inputs_embeds=vectors, past_key_values=cache)
        out.logits[:, -1].sum().backward()
    assert bool((vectors.grad != 0).all(-1).all())  # the first new token is seen by the second


def test_a_mask_of_what_is_held_must_be_the_one_it_was_read_with(llama: Any) -> None:
    ids, mask = padded(texts(LENGTHS), "left", 0)
    new = torch.arange(3, 3 + len(ids))[:, None]
    grown = torch.cat((mask, torch.ones_like(new)), 1)
    cache = llama(ids, attention_mask=mask, use_cache=True).past_key_values
    wanted = llama(new, past_key_values=cache.copy()).logits
    assert torch.equal(llama(new, attention_mask=grown, past_key_values=cache.copy()).logits, wanted)
    grown[0, 4] = 0
    with pytest.raises(InputError, match="hides other tokens than when past_key_values was made"):
        llama(new, attention_mask=grown, past_key_values=cache)
    cache = llama(ids[:1], use_cache=True).past_key_values
    with pytest.raises(InputError, match="hides other tokens"):
        llama(new[:1], attention_mask=grown[:1], past_key_values=cache)


@pytest.mark.parametrize("family", ["llama", "t5", "bart"])
def test_a_pass_that_fails_leaves_what_was_held(family: str) -> None:
    """Of a new cache nothing is left, of another what it held, whichever layer failed; both can be used again."""
    ending = "ForCausalLM" if family == "llama" else "ForConditionalGeneration"
    ours = pair(family, ending)[1]
    ids, other = torch.stack(texts((7, 7))), torch.stack(texts((7, 7), seed=5))
    more = {} if family == "llama" else {"input_ids": ids}

    def run(tokens: torch.Tensor, cache: Cache, **changed: Any) -> torch.Tensor:
        key = "decoder_input_ids" if more else "input_ids"
        out: torch.Tensor = ours(**{**more, key: tokens, **changed}, past_key_values=cache).logits
        return out

    def failing(*_: Any) -> None:
        raise RuntimeError("in the middle")

    blocks = ours.base.decoder.blocks if more else ours.base.blocks

    def fail(tokens: torch.Tensor, cache: Cache, **changed: Any) -> None:
        handle = blocks[1].register_forward_hook(failing)
        with pytest.raises(RuntimeError, match="in the middle"):
            run(tokens, cache, **changed)
        handle.remove()

    cache, wanted = Cache(), Cache()
    fail(other[:1], cache, **({"input_ids": other[:1]} if more else {}))  # another batch, and another encoder's text
    assert cache.empty and cache.buffer is None and not cache.cross
    assert torch.equal(run(ids, cache), run(ids, wanted))
    fail(other[:, :3], cache)
    assert cache.lengths.tolist() == [7, 7]
    assert torch.equal(run(ids[:, :2], cache), run(ids[:, :2], wanted))


def test_one_block_for_each_pass() -> None:
    """What a caller has to know of a pass is `appending`: the parts of it are nobody else's."""
    public = {name for name in vars(Cache) if not name.startswith("_")}
    assert "appending" in public and not public & {"open", "begin", "advance", "reserve", "prepare", "commit"}
    rows, k = PackedBatch(2, 3, None), torch.randn(6, 1, 8)
    cache = Cache()
    with cache.appending(rows, 1):
        cache.store(0, k, k, rows)
        assert cache.empty
    assert cache.lengths.tolist() == [3, 3]
    with cache.appending(PackedBatch(2, 2, None), 1):
        keys, _ = cache.append(0, *torch.randn(2, 2, 2, 1, 8))
        assert cache.n_columns == keys.shape[2] == 5 and cache.longest == 3
    assert cache.lengths.tolist() == [5, 5]

"""What an encoder-decoder writes by replayed steps is what transformers writes: greedy and by beams, both paddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import padded, pair, texts
from torch import Tensor

from cutaway import native
from cutaway.models import decode_step
from cutaway.nn import kv_cache
from cutaway.nn.kernel_graph import KeptSteps, KernelGraph
from cutaway.nn.kv_cache import Cache

pytestmark = pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine")
FAMILIES = {
    "t5": "ForConditionalGeneration",
    "t5-gated": "ForConditionalGeneration",
    "umt5": "ForConditionalGeneration",
    "bart": "ForConditionalGeneration",
    "mbart": "ForConditionalGeneration",
    "marian": "MTModel",
    "marian-apart": "MTModel",
    "pegasus": "ForConditionalGeneration",
    "m2m_100": "ForConditionalGeneration",
}
NEW, STEPS = 9, 6  # of 9 tokens: the first, and two steps that went their own way
# weights so large that texts differ in what is written
LARGE = {name: {"init_std": 0.5} if "t5" not in name else {"initializer_factor": 3.0} for name in FAMILIES}
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 4},
    "rules": {"num_beams": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "min_new_tokens": 4},
    "groups of answers": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True},
}


class Played:
    """The replayed steps: how many texts each had, and whether beams shared rows of the cache."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.shared: list[bool] = []
        self.sources: list[int] = []


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    seen, replay = Played(), KernelGraph.replay

    def noting(self: KernelGraph, x: Tensor, turns: Any, cache: Cache, *more: Any) -> Tensor:
        seen.batches.append(len(x))
        seen.shared.append(cache.buffer_and_origins[1] is not None)
        seen.sources.append(len(cache.sources[0][0]))
        return replay(self, x, turns, cache, *more)

    monkeypatch.setattr(KernelGraph, "replay", noting)
    monkeypatch.setattr(kv_cache, "_GROW", 3)  # the cache moves several times
    return seen


def written(model: Any, ids: Tensor, mask: Tensor | None, **asked: Any) -> list[list[int]]:
    """New tokens of each answer, without what fills up."""
    model.generation_config.update(forced_eos_token_id=None, forced_bos_token_id=None, decoder_start_token_id=2)
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, **asked)
    return [row.tolist() for row in out]


def ended(row: list[int], ends: list[int]) -> list[int]:
    """The row up to its first end token: transformers fills up with another one where padding's id is 0."""
    return row[: next((i + 1 for i, token in enumerate(row) if i and token in ends), len(row))]


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family in FAMILIES for name in SETTINGS if name == "beams" or family in ("t5", "bart")],
)
def test_replayed_steps_write_what_transformers_writes(family: str, name: str, played: Played) -> None:
    theirs, ours = pair(family, FAMILIES[family], **LARGE[family])
    pad, settings = theirs.config.pad_token_id, SETTINGS[name]
    beams = settings.get("num_beams", 1)
    sources = texts((9, 4, 7))
    ids, mask = padded(sources, "right", pad)
    asked = {**settings, "eos_token_id": [], "min_new_tokens": NEW}
    assert written(ours, ids, mask, **asked) == written(theirs, ids, mask, **{**asked, "eos_token_id": None})
    assert played.batches == [3 * beams] * STEPS
    assert played.sources == [3] * STEPS  # of beams, one source a text
    assert any(played.shared) == (beams > 1)
    # padding on the left is each text alone
    left, left_mask = padded(sources, "left", pad)
    rows = written(ours, left, left_mask, **asked)
    count = settings.get("num_return_sequences", 1)
    alone = written(theirs, sources[1][None], None, **{**asked, "eos_token_id": None})
    assert rows[count : 2 * count] == alone


@pytest.mark.parametrize("name", ["greedy", "beams"])
@pytest.mark.parametrize("family", ["bart", "marian"])
def test_texts_that_end_leave_the_others_as_they_are(family: str, name: str, played: Played) -> None:
    theirs, ours = pair(family, FAMILIES[family], **LARGE[family])
    pad, settings = theirs.config.pad_token_id, {**SETTINGS[name], "no_repeat_ngram_size": 1}
    ids, mask = padded(texts((9, 4, 7, 5)), "right", pad)
    free = written(ours, ids, mask, **{**settings, "eos_token_id": [], "min_new_tokens": NEW})
    played.batches.clear()
    ends = [free[0][5], free[1][7]]
    found, wanted = (written(model, ids, mask, **settings, eos_token_id=ends) for model in (ours, theirs))
    assert [ended(row, ends) for row in found] == [ended(row, ends) for row in wanted]
    assert len(set(played.batches)) > 1


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("beams", [1, 4])
def test_a_replayed_step_is_the_open_step(family: str, beams: int, played: Played) -> None:
    ours = pair(family, FAMILIES[family], **LARGE[family])[1]
    ids, mask = padded(texts((9, 4, 7)), "left", 0)
    asked = {"eos_token_id": [], "num_beams": beams, "output_logits": True, "return_dict_in_generate": True}
    asked["decoder_start_token_id"] = 2
    found = ours.generate(ids, attention_mask=mask, max_new_tokens=NEW, **asked)
    assert len(played.batches) == STEPS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_step, "RECORDED", 0)
        patch.setattr(KeptSteps, "acquire", lambda self: None)  # nor is one of the call before taken
        wanted = ours.generate(ids, attention_mask=mask, max_new_tokens=NEW, **asked)
    assert len(played.batches) == STEPS
    assert torch.equal(found.sequences, wanted.sequences)
    for a, b in zip(found.logits, wanted.logits, strict=True):
        assert torch.equal(a, b)


def test_a_hole_in_a_source_is_no_matter_for_the_kernel(played: Played) -> None:
    theirs, ours = pair("t5", FAMILIES["t5"], **LARGE["t5"])
    ids, mask = padded(texts((9, 4, 7)), "right", 0)
    mask[0, 3] = 0
    asked = {"num_beams": 3, "min_new_tokens": NEW}
    assert written(ours, ids, mask, **asked) == written(theirs, ids, mask, **asked)
    assert not played.batches

"""Recordings: nothing of the engine's own, certificates, and long runs in files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity.pairs import FAMILIES, inputs, load
from parity.tiny_models import make

from cutaway.errors import CheckpointError, InputError
from cutaway.nn.activations.recorder import Recorder


@pytest.mark.parametrize("family", ["bert", "llama", "bart"])
@torch.no_grad()
def test_writing_into_a_recording_changes_nothing(family: str) -> None:
    model, given = load(make(family), "Model"), inputs(family, (5, 5))
    with model.record("*") as r:
        out = model(**given, use_cache=True) if family != "bert" else model(**given)
    kept = out.last_hidden_state.clone()
    for address in r:
        r[address].fill_(7.0)
    assert torch.equal(out.last_hidden_state, kept)
    cache = out.get("past_key_values")
    if cache is not None:
        texts = cache.buffer[:, :, :, : cache.longest]  # what lies beyond was never written
        assert not any(bool((x == 7).any()) for x in (texts, *(x for p in cache.cross.values() for x in p)))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_recorded_patterns_are_certified(family: str) -> None:
    model = load(make(family), "Model")
    for lengths in ((6, 3), (5, 5)):
        with model.record("*.pattern") as r:
            for _ in range(3):
                model(**inputs(family, lengths))
        assert len(r.certificates) == len(r.runs)
        assert all(c.error < 1e-5 and c.address in r for c in r.certificates)


@torch.no_grad()
def test_a_long_run_in_files(tmp_path: Path) -> None:
    model, given = load(make("gpt2", "LMHeadModel"), "LMHeadModel"), inputs("gpt2", (5, 3), side="left")
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    plain = model.generate(**given, **settings)
    with model.record("blocks.*.attn.pattern", "logits") as r:
        assert torch.equal(model.generate(**given, **settings), plain)
    with model.record("blocks.*.attn.pattern", "logits", to=tmp_path / "run") as stored:
        assert torch.equal(model.generate(**given, **settings), plain)
    again = Recorder.load(tmp_path / "run")
    for found in (stored, again):
        assert found.keys() == r.keys() and len(found.runs) == len(r.runs) == 4
        assert found.certificates == r.certificates
        for a, b in zip(found.runs, r.runs, strict=True):
            assert list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in b)
    with model.edit({"logits": again}):
        assert torch.equal(model.generate(**{k: v.flip(0) for k, v in given.items()}, **settings)[:, 5:], plain[:, 5:])
    with pytest.raises(InputError, match="not empty"), model.record("logits", to=tmp_path / "run"):
        pass
    with pytest.raises(InputError, match="leave to="):
        stored.grad("logits")
    (tmp_path / "run" / "recording.json").unlink()
    with pytest.raises(CheckpointError, match="not a finished recording"):
        Recorder.load(tmp_path / "run")

"""Weights that are pages of a file give their memory back once they are packed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from cutaway import BertConfig, BertModel
from cutaway.nn import linear
from cutaway.nn.cpu import memory
from cutaway.nn.cpu.memory import available_memory, evict, mark_mapped


def resident(kind: str) -> int:
    """Bytes of this process in memory, of one kind ("RssFile", "RssAnon")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise AssertionError(kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = BertConfig(
        vocab_size=50, hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def test_packing_does_not_double_the_memory(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    ids = torch.randint(0, 50, (2, 16))
    file_before, own_before = resident("RssFile"), resident("RssAnon")
    first = model(ids).last_hidden_state
    size = (folder / "model.safetensors").stat().st_size
    if linear.OPERATORS is not None:
        assert resident("RssFile") - file_before < 0.35 * size
    assert resident("RssAnon") - own_before < 1.2 * size
    for p in model.parameters():
        assert bool(torch.isfinite(p).all())
    assert torch.equal(model(ids).last_hidden_state, first)


def test_values_survive_being_let_go(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    weight = model.blocks[0].mlp.up.weight
    assert weight.mapped
    before = weight.detach().clone()
    evict(weight)
    assert torch.equal(weight, before)
    with torch.no_grad():
        weight.mul_(2)  # private pages: the file stays as it is
    evict(weight)
    assert torch.equal(weight, before * 2)


def test_own_memory_is_left_alone() -> None:
    weight = torch.randn(300, 300)
    before = weight.clone()
    evict(weight)
    mark_mapped(weight)
    evict(weight)
    assert torch.equal(weight, before)


def test_what_a_container_leaves_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < available_memory() <= sys.maxsize
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    without = available_memory()
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    assert available_memory() == 500_000
    (tmp_path / "memory.stat").write_text("anon 1500000\nfile 1000000\n")  # pages of files are given up when asked for
    assert available_memory() == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > without / 2


def test_an_older_container_has_its_bound_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    without = available_memory()
    (tmp_path / "memory").mkdir()
    for name, content in (("limit_in_bytes", "3000000"), ("usage_in_bytes", "2500000"), ("stat", "total_cache 400000")):
        (tmp_path / "memory" / f"memory.{name}").write_text(content + "\n")
    assert available_memory() == 900_000
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")  # as it says that there is none
    assert available_memory() > without / 2

"""Checkpoints for the tests of every format: good ones, and ones damaged on purpose."""

import json
import struct
import zipfile
from pathlib import Path

import torch

from cutaway.checkpoint.checkpoint import open_checkpoint
from cutaway.hub.files import resolve


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "embed.weight": torch.randn(5, 4),
        "half": torch.randn(3, 3).half(),
        "brain": torch.randn(2, 3, 4).bfloat16(),
        "ids": torch.arange(7),
        "mask": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 3),
    }


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint(resolve(folder)) as checkpoint:
        found = {name: checkpoint.read(name) for name in checkpoint.names()}
        assert {n: (checkpoint.shape(n), checkpoint.dtype(n)) for n in found} == {
            n: (tuple(t.shape), t.dtype) for n, t in found.items()
        }
    return found


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def raw(folder: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return folder


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_index(folder: Path, where: object, base: str = "model.safetensors") -> None:
    (folder / f"{base}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def rewritten(path: Path, old: bytes, new: bytes, drop: str = "") -> None:
    with zipfile.ZipFile(path) as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                assert old in content
                content = content.replace(old, new)
            if not drop or drop not in name:
                archive.writestr(name, content)

import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_files import assert_same, read_all, rewritten, tensors
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cutaway.checkpoint.checkpoint import open_checkpoint
from cutaway.errors import CheckpointError
from cutaway.hub.files import resolve


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pt", "model.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, name, zipped):
    state = torch.nn.Linear(3, 4).state_dict()  # an OrderedDict with a _metadata attribute
    state |= tensors() | {"p": torch.nn.Parameter(torch.ones(2))}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert open_checkpoint(resolve(tmp_path)).format == "torch"
    assert_same(read_all(tmp_path), {k: v.detach() for k, v in state.items()})


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/cutaway-was-here",)


class Grow:
    def __reduce__(self):
        return bytearray, (1 << 40,)


def test_pickles_that_do_more_than_tensors(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    for zipped in (True, False):
        for value in (Evil(), Grow(), {"w": Evil()}, {"w": Path("x")}):
            torch.save(value, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(CheckpointError, match="not part of a tensor"):
                open_checkpoint(resolve(tmp_path))
        for value in (
            {"epoch": 3},
            [torch.ones(1)],
            torch.ones(1),
            {1: torch.ones(1)},
            {"a": torch.ones(1), "lr": 0.1},
            {},
        ):
            torch.save(value, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(CheckpointError, match="tensor"):
                open_checkpoint(resolve(tmp_path))
    for protocol in (0, 4, 5):
        path.write_bytes(pickle.dumps({"w": Evil()}, protocol))
        with pytest.raises(CheckpointError):
            open_checkpoint(resolve(tmp_path))
    assert not Path("/tmp/cutaway-was-here").exists()


def test_torch_files_that_declare_too_much(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    state = {"a": torch.arange(6.0).view(2, 3)}  # [2, 3]
    numel, shape = b"K\x06t", b"K\x02K\x03\x86"
    for old, new, message in [
        (numel, b"J\xff\xff\xff\x7ft", "declared with"),
        (numel, b"\x8a\x06\0\0\0\0\0\x10t", "declared with"),
        (numel, b"\x8a\x09\0\0\0\0\0\0\0\0\x10t", "declares a storage"),
        (numel, b"J\xff\xff\xff\xfft", "declares a storage"),
        (shape, b"K\x02J\xff\xff\xff\x7f\x86", "cannot be read"),
    ]:
        torch.save(state, path)
        rewritten(path, old, new)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(resolve(tmp_path))
    torch.save(state, path)
    rewritten(path, b"", b"", drop="data/0")
    with pytest.raises(CheckpointError, match="declared with"):
        open_checkpoint(resolve(tmp_path))
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"K\x06Nt", b"J\xff\xff\xff\x7fNt"))
    with pytest.raises(CheckpointError, match="declared with"):
        open_checkpoint(resolve(tmp_path))
    torch.save({"w": torch.ones(1).expand(1 << 40)}, path)
    with pytest.raises(CheckpointError, match="larger than its storage"):
        open_checkpoint(resolve(tmp_path))


def test_archives_that_are_not_what_they_say(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    for compression, name in [(zipfile.ZIP_DEFLATED, "archive/data.pkl"), (zipfile.ZIP_STORED, "x.txt")]:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr(name, b"\0" * 1_000_000)
        with pytest.raises(CheckpointError, match=r"compressed|not one of torch's"):
            open_checkpoint(resolve(tmp_path))
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            open_checkpoint(resolve(tmp_path))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=2000)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5), zipped=st.booleans()
)
@example(changes=[(1851, 2)], zipped=True)  # an archive over several disks, it says
def test_fuzzed_torch_files(tmp_path, changes, zipped):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for at, byte in changes:
        content[at % len(content)] = byte
    path.write_bytes(bytes(content))
    with contextlib.suppress(CheckpointError):
        read_all(tmp_path)

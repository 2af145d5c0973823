import contextlib
import time

import pytest
import torch
from checkpoint_files import entry, raw, read_all, tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cutaway.checkpoint.checkpoint import open_checkpoint, save_checkpoint
from cutaway.checkpoint.safetensors import SafetensorsFile
from cutaway.errors import CheckpointError
from cutaway.hub.files import resolve

BAD_HEADERS = {
    "overlap": ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"\0" * 12, "overlaps 'a'"),
    "same": ({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, b"\0" * 8, "overlaps"),
    "hole": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12, "unused bytes"),
    "tail": ({"a": entry([1], 0, 4)}, b"\0" * 9, "take 4 bytes"),
    "beyond": ({"a": entry([4], 0, 16)}, b"\0" * 8, "truncated"),
    "reversed": ({"a": entry([2], 8, 0)}, b"\0" * 8, "lies at"),
    "negative": ({"a": entry([2], -8, 0)}, b"\0" * 8, "two positions"),
    "size": ({"a": entry([3], 0, 8)}, b"\0" * 8, "needs 12 bytes"),
    "product": ({"a": entry([1 << 40] * 20, 0, 8)}, b"\0" * 8, "needs"),
    "shape": ({"a": entry([-2, -1], 0, 8)}, b"\0" * 8, "shape"),
    "float shape": ({"a": entry([2.0], 0, 8)}, b"\0" * 8, "shape"),
    "bool shape": ({"a": entry([True, True], 0, 4)}, b"\0" * 4, "shape"),
    "huge shape": ({"a": entry([10**30], 0, 8)}, b"\0" * 8, "shape"),
    "rank": ({"a": entry([1] * 1000, 0, 4)}, b"\0" * 4, "shape"),
    "dtype": ({"a": entry([2], 0, 8, "F31")}, b"\0" * 8, "dtype"),
    "no dtype": ({"a": {"shape": [2]}}, b"\0" * 8, "dtype"),
    "no dict": ({"a": 3}, b"", "described by"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    "list": ([], b"", "not an object"),
    "twice": (b'{"a": 1, "a": 1}', b"", "twice"),
    "nan": (b'{"a": NaN}', b"", "NaN"),
    "deep": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", b"", "deeper"),
    "bytes": (b"\xff\xfe\xfd", b"", "not valid JSON"),
    "many": (b'{"a": [' + b"{}," * 1_000_001 + b"1]}", b"", "at most"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_damaged_headers(tmp_path, case):
    header, data, message = BAD_HEADERS[case]
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(resolve(raw(tmp_path, header, data)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("length", [1, 10**6, 2**63, 2**64 - 1])
def test_header_lengths(tmp_path, length):
    with pytest.raises(CheckpointError):
        open_checkpoint(resolve(raw(tmp_path, {"a": entry([1], 0, 4)}, b"\0" * 4, length)))


def test_a_file_cut_anywhere(tmp_path):
    save_checkpoint(tmp_path, tensors())
    whole = (tmp_path / "model.safetensors").read_bytes()
    for cut in {*range(0, len(whole), 37), len(whole) - 1}:
        (tmp_path / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            open_checkpoint(resolve(tmp_path))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=1000)
@given(data=st.data())
def test_fuzzed_files_are_read_or_refused(tmp_path, data):
    if data.draw(st.booleans()):
        sizes = st.integers(-1, 20) | st.integers()
        one = st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "I8", "F16", "x", None]),
                "shape": st.lists(sizes, max_size=3),
                "data_offsets": st.lists(sizes, min_size=1, max_size=3),
            }
        )
        raw(
            tmp_path,
            data.draw(st.dictionaries(st.text(max_size=3), one, max_size=3)),
            data.draw(st.binary(max_size=40)),
        )
    else:
        save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
        content = bytearray((tmp_path / "model.safetensors").read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (tmp_path / "model.safetensors").write_bytes(bytes(content))
    with contextlib.suppress(CheckpointError):
        read_all(tmp_path)


def test_data_that_is_not_aligned(tmp_path):
    data = b"\1\2\3" + torch.tensor([1.5, 2.5]).numpy().tobytes()
    for spaces in range(4):
        header = b'{"a": {"dtype": "I8", "shape": [3], "data_offsets": [0, 3]}, "b": {"dtype": "F32", "shape": [2], '
        raw(tmp_path, header + b'"data_offsets": [3, 11]}}' + b" " * spaces, data)
        assert read_all(tmp_path)["b"].tolist() == [1.5, 2.5]


def test_tensors_outlive_the_file(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.arange(5)})
    file = SafetensorsFile(tmp_path / "model.safetensors")
    tensor = file.read("w")
    file.close()
    (tmp_path / "model.safetensors").unlink()
    assert tensor.tolist() == [0, 1, 2, 3, 4]
    assert file.metadata == {"format": "pt"}

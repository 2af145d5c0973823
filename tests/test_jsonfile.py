import json
import os
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.errors import CheckpointError, ConfigError
from cutaway.jsonfile import MAX_DEPTH, parse_json, read_json, write_aside, write_text

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values))
def test_objects_are_read_as_json_reads_them(fields):
    assert parse_json(json.dumps(fields).encode(), "x", ConfigError) == fields


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:01eNa-\\\\ ').map(str.encode))
def test_anything_else_is_one_error(data):
    try:
        assert isinstance(parse_json(data, "the file", CheckpointError), dict)
    except CheckpointError as e:
        assert str(e).startswith("the file")  # noqa: PT017


def test_depth():
    def nested(depth: int) -> bytes:
        return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert parse_json(nested(MAX_DEPTH), "x", ConfigError)
    for depth in (MAX_DEPTH + 1, 500, 5000, 1_000_000):
        with pytest.raises(ConfigError, match="deeper"):
            parse_json(nested(depth), "x", ConfigError)


@pytest.mark.parametrize("piece", [b"{},", b"[],", b"1,", b'"ab",', b'{"a":[]},', b"1e9,"])
def test_large_files_cost_no_time(tmp_path, piece):
    (tmp_path / "x.json").write_bytes(b'{"a":[' + piece * (50_000_000 // len(piece)) + b"1]}")
    for most in (4 << 20, 64 << 20):
        start = time.process_time()
        with pytest.raises(ConfigError, match=r"at most|larger"):
            read_json(tmp_path / "x.json", ConfigError, max_bytes=most)
        assert time.process_time() - start < 1


def test_files_that_are_none(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_json(path, ConfigError)
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "bom.json", ConfigError) == {"a": 1}


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        write_aside(path, lambda aside: (_ for _ in ()).throw(RuntimeError(aside.write_text("half"))))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]  # noqa: PTH208
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)

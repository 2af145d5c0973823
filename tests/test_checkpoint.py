import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cutaway.checkpoint import open_checkpoint, quantize_rows, save_checkpoint
from cutaway.errors import CheckpointError, HubError
from cutaway.hub import Files, resolve


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


# -- writing and reading -----------------------------------------------------------------------------------------


def test_saved_and_read_back_bit_equal(tmp_path):
    save_checkpoint(tmp_path / "new" / "folder", tensors())
    assert_same(read_all(tmp_path / "new" / "folder"), tensors())
    assert_same(load_file(tmp_path / "new" / "folder" / "model.safetensors"), tensors())
    assert open_checkpoint(resolve(tmp_path / "new" / "folder")).format == "safetensors"


def test_shards_and_what_an_earlier_save_left(tmp_path):
    save_checkpoint(tmp_path, tensors(), max_shard_size=100)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors().keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors().values())
    assert len(set(index["weight_map"].values())) > 1
    assert_same(read_all(tmp_path), tensors())
    save_checkpoint(tmp_path, {"only": torch.ones(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    save_checkpoint(tmp_path, tensors(), max_shard_size="0.05KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(read_all(tmp_path), tensors())


def test_saving_over_the_file_that_is_mapped(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.arange(100_000.0)})
    mapped = read_all(tmp_path)
    save_checkpoint(tmp_path, {"w": mapped["w"] + 1})
    assert torch.equal(mapped["w"], torch.arange(100_000.0))
    mapped["w"].zero_()  # training writes in place; the file stays
    assert read_all(tmp_path)["w"][5] == 6


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.ones(2)})
    shared = torch.zeros(4)
    with pytest.raises(CheckpointError, match="cannot be saved"):
        save_checkpoint(tmp_path, {"a": shared, "b": shared})
    with pytest.raises(CheckpointError, match="no dense tensor"):
        save_checkpoint(tmp_path, {"a": torch.zeros(2, device="meta")})
    with pytest.raises(CheckpointError, match="no tensors"):
        save_checkpoint(tmp_path, {})
    for size in ("5 apples", 0, -1, True, 1.5):
        with pytest.raises(CheckpointError, match="max_shard_size"):
            save_checkpoint(tmp_path, tensors(), max_shard_size=size)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(read_all(tmp_path), {"w": torch.ones(2)})


def test_views_are_saved_as_they_look(tmp_path):
    base = torch.arange(12.0).view(3, 4)  # [3, 4]
    save_checkpoint(tmp_path, {"t": base.T, "column": base[:, 1]})
    assert_same(read_all(tmp_path), {"t": base.T, "column": base[:, 1]})


def test_transformers_loads_what_is_saved(tmp_path):
    import transformers

    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.BertModel(config)
    config.save_pretrained(tmp_path)
    for size in ("5GB", "1KB"):
        save_checkpoint(tmp_path, model.state_dict(), max_shard_size=size)
        assert_same(transformers.BertModel.from_pretrained(tmp_path).state_dict(), model.state_dict())
    model.save_pretrained(tmp_path / "theirs", max_shard_size="1KB")
    assert_same(read_all(tmp_path / "theirs"), model.state_dict())


def test_int8_rows(tmp_path):
    weights = {"a.weight": torch.randn(6, 50), "a.bias": torch.randn(6), "zero": torch.zeros(2, 3), "n": torch.ones(2)}
    save_checkpoint(tmp_path, weights, int8=True)
    found = read_all(tmp_path)
    assert found.keys() == weights.keys()
    scale = weights["a.weight"].abs().amax(1, keepdim=True) / 127
    assert bool(((found["a.weight"] - weights["a.weight"]).abs() <= scale * 0.5001).all())
    assert torch.equal(found["zero"], weights["zero"])
    assert torch.equal(found["a.bias"], weights["a.bias"])
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["a.weight"].dtype == torch.int8
    assert stored["a.weight.scale"].shape == (6,)
    save_checkpoint(tmp_path, weights, int8=True, max_shard_size=200)
    assert_same(read_all(tmp_path), found)
    with pytest.raises(CheckpointError, match="NaN"):
        quantize_rows(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(CheckpointError, match="already a tensor"):
        save_checkpoint(tmp_path, {"w": torch.ones(2, 2), "w.scale": torch.ones(2)}, int8=True)


def test_int8_tensors_without_the_mark_stay_int8(tmp_path):
    plain = {"w": torch.ones(2, 2, dtype=torch.int8), "w.scale": torch.ones(2)}
    save_checkpoint(tmp_path, plain)
    assert_same(read_all(tmp_path), plain)
    plain["w.scale"] = torch.ones(3)
    save_file(plain, tmp_path / "model.safetensors", {"cutaway_int8": "rows"})
    with pytest.raises(CheckpointError, match="one float32 for each"):
        read_all(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pt", "model.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, name, zipped):
    state = torch.nn.Linear(3, 4).state_dict()  # an OrderedDict with a _metadata attribute
    state |= tensors() | {"p": torch.nn.Parameter(torch.ones(2))}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert open_checkpoint(resolve(tmp_path)).format == "torch"
    assert_same(read_all(tmp_path), {k: v.detach() for k, v in state.items()})


def test_torch_shards_and_tied_storages(tmp_path):
    tied = torch.randn(4, 2)
    torch.save({"a": tied, "b": tied, "part": tied[1]}, tmp_path / "one.bin")
    torch.save({"state_dict": {"c": torch.ones(1)}}, tmp_path / "two.bin")
    write_index(tmp_path, {"a": "one.bin", "c": "two.bin"}, "pytorch_model.bin")
    assert_same(read_all(tmp_path), {"a": tied, "b": tied, "part": tied[1], "c": torch.ones(1)})


def test_no_weights(tmp_path):
    (tmp_path / "tf_model.h5").write_text("")
    with pytest.raises(HubError, match=r"has no model\.safetensors.*tf_model\.h5"):
        open_checkpoint(resolve(tmp_path))


def test_an_unknown_name_lists_the_nearest(tmp_path):
    save_checkpoint(tmp_path, tensors())
    with pytest.raises(CheckpointError, match=r"embed\.weight"):
        open_checkpoint(resolve(tmp_path)).read("embed.weights")


# -- damaged safetensors -----------------------------------------------------------------------------------------


def raw(folder: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return folder


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


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
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "deeper"),
    "bytes": (b"\xff\xfe\xfd", b"", "not valid JSON"),
    "many": (b'{"a": [' + b"{}," * 1_000_001 + b"1]}", b"", "at most"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_damaged_headers(tmp_path, case):
    header, data, message = BAD_HEADERS[case]
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(resolve(raw(tmp_path, header, data)))
    assert time.perf_counter() - start < 1


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


# -- indexes -----------------------------------------------------------------------------------------------------


def write_index(folder: Path, where: object, base: str = "model.safetensors") -> None:
    (folder / f"{base}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.parametrize(
    "shard",
    ["../out.safetensors", "/etc/out.safetensors", "a/../../out.safetensors", "..\\out.safetensors", "C:\\x", "\0", ""],
)
def test_an_index_that_points_outside(tmp_path, shard):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "out.safetensors")
    write_index(folder, {"a": shard})
    with pytest.raises(CheckpointError, match="leaves the checkpoint's folder"):
        open_checkpoint(resolve(folder))


def test_indexes_that_do_not_fit(tmp_path):
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "2.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "1.bin")
    for where, message in [
        ({"a": "1.safetensors", "b": "2.safetensors"}, "in two files"),
        ({"a": "1.safetensors", "c": "1.safetensors"}, "no file holds: 'c'"),
        ({"a": "3.safetensors"}, "not there"),
        ({"a": "1.bin"}, "no .safetensors file"),
        ({"a": 3}, "weight_map"),
        ({}, "weight_map"),
        ([], "weight_map"),
        ({str(i): f"{i}.safetensors" for i in range(10_001)}, "at most"),
    ]:
        write_index(tmp_path, where)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(resolve(tmp_path))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30) | st.dictionaries(st.text(max_size=12), st.text(max_size=8)).map(json.dumps))
def test_fuzzed_indexes(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError):
        open_checkpoint(resolve(tmp_path))


# -- hostile pickles ---------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/cutaway-was-here",)


class Grow:
    def __reduce__(self):
        return bytearray, (1 << 40,)


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
def test_fuzzed_torch_files(tmp_path, changes, zipped):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for at, byte in changes:
        content[at % len(content)] = byte
    path.write_bytes(bytes(content))
    with contextlib.suppress(CheckpointError):
        read_all(tmp_path)


# -- time and memory ---------------------------------------------------------------------------------------------


def in_a_process(code: str, *arguments: object) -> str:
    head = """
        import sys, time
        from pathlib import Path
        from cutaway.checkpoint import open_checkpoint
        from cutaway.errors import CheckpointError
        from cutaway.hub import resolve
        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
        before = peak()
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["safetensors", "shards", "bin"])
def test_peak_memory_of_reading_everything(tmp_path, kind):
    state = {f"w{i}": torch.full((1024, 1024), float(i)) for i in range(40)}  # 160 MiB
    if kind == "bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        save_checkpoint(tmp_path, state, max_shard_size="5GB" if kind == "safetensors" else "20MB")
    code = """
        with open_checkpoint(resolve(sys.argv[1])) as checkpoint:
            total = sum(float(checkpoint.read(name).sum()) for name in checkpoint.names())
        assert total == sum(range(40)) * 1024 * 1024
        print(peak() - before)
    """
    size = sum(t.nbytes for t in state.values())
    assert int(in_a_process(code, tmp_path)) < 1.1 * size


def test_hostile_files_cost_no_time_and_no_memory(tmp_path):
    folders = []

    def folder() -> Path:
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        return folders[-1]

    raw(folder(), b" " * (40 << 20))
    raw(folder(), b'{"a": [' + b"{}," * 10_000_000 + b"1]}")
    raw(folder(), b"[" * (31 << 20))
    raw(folder(), {"a": entry([1 << 46], 0, 1 << 48)}, b"\0" * 100)
    for where in ({str(i): "x.safetensors" for i in range(1_200_000)}, "x" * (40 << 20)):
        write_index(folder(), where)
    torch.save({"a": torch.arange(6.0)}, (path := folder() / "pytorch_model.bin"))
    rewritten(path, b"K\x06t", b"\x8a\x06\0\0\0\0\0\x10t")
    (folder() / "pytorch_model.bin").write_bytes(b"\x80\x02" + b"}q\0" * 5_000_000)
    with zipfile.ZipFile(folder() / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"N" * (15 << 20) + b".")
    with zipfile.ZipFile(folder() / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 29))
    code = """
        for name in sys.argv[1:]:
            start = time.perf_counter()
            try:
                open_checkpoint(resolve(name))
                raise SystemExit(f"{name} was read")
            except CheckpointError as e:
                assert len(str(e)) < 1000, e
            seconds = time.perf_counter() - start
            assert seconds < 1, (name, seconds)
        print(peak() - before)
    """
    assert int(in_a_process(code, *folders)) < 300_000_000


def test_files_outside_are_never_read(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "model.safetensors").write_text("secret")
    with pytest.raises(HubError):
        Files("x", tmp_path / "x").get("../model.safetensors")

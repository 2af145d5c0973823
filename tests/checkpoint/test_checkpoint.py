import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_files import assert_same, entry, raw, read_all, rewritten, tensors, write_index
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cutaway.checkpoint.checkpoint import open_checkpoint, quantize_rows, save_checkpoint
from cutaway.errors import CheckpointError, HubError
from cutaway.hub.files import Files, resolve

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


# -- indexes -----------------------------------------------------------------------------------------------------


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


# -- time and memory ---------------------------------------------------------------------------------------------


def in_a_process(code: str, *arguments: object) -> str:
    head = """
        import sys, time
        from pathlib import Path
        from cutaway.checkpoint.checkpoint import open_checkpoint
        from cutaway.errors import CheckpointError
        from cutaway.hub.files import resolve
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
        archive.writestr("archive/data.pkl", b"\0" * (1 << 27))
    code = """
        for name in sys.argv[1:]:
            start = time.process_time()
            try:
                open_checkpoint(resolve(name))
                raise SystemExit(f"{name} was read")
            except CheckpointError as e:
                assert len(str(e)) < 1000, e
            seconds = time.process_time() - start
            assert seconds < 1, (name, seconds)
        print(peak() - before)
    """
    assert int(in_a_process(code, *folders)) < 300_000_000


def test_files_outside_are_never_read(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "model.safetensors").write_text("secret")
    with pytest.raises(HubError):
        Files("x", tmp_path / "x").get("../model.safetensors")

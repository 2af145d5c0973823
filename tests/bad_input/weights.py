"""Files of weights that are damaged, lie, or are traps."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bad_input.case import Case, saved, spoilt
from cutaway import auto

FILE = "model.safetensors"
NAME = "encoder.layer.0.attention.self.query.weight"
PLANTED = "planted-by-a-pickle"  # in the test's folder, if a pickle ever runs
Prepare = Callable[[Path], Callable[[], object]]
Change = Callable[[dict[str, torch.Tensor]], object]


def loaded(folder: Path, ending: str = "", **options: Any) -> Callable[[], object]:
    return lambda: getattr(auto, f"AutoModel{ending}").from_pretrained(folder, **options)


def tensors(change: Change, family: str = "bert", ending: str = "", **options: Any) -> Prepare:
    """A sound file with other tensors."""

    def prepare(folder: Path) -> Callable[[], object]:
        spoilt(folder, family, ending)
        held = load_file(folder / FILE)
        change(held)
        save_file(held, folder / FILE)
        return loaded(folder, ending, **options)

    return prepare


def put(name: str, tensor: torch.Tensor) -> Change:
    return lambda held: held.update({name: tensor})


def header(change: Callable[[dict[str, Any]], object]) -> Prepare:
    """A file whose header says something else."""

    def prepare(folder: Path) -> Callable[[], object]:
        data = (spoilt(folder, "bert") / FILE).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        fields = json.loads(data[8 : 8 + length])
        change(fields)
        written = json.dumps(fields).encode()
        (folder / FILE).write_bytes(struct.pack("<Q", len(written)) + written + data[8 + length :])
        return loaded(folder)

    return prepare


def raw(change: Callable[[bytes], bytes]) -> Prepare:
    """A file of other bytes."""

    def prepare(folder: Path) -> Callable[[], object]:
        path = spoilt(folder, "bert") / FILE
        path.write_bytes(change(path.read_bytes()))
        return loaded(folder)

    return prepare


def overlap(fields: dict[str, Any]) -> None:
    fields["encoder.layer.1.attention.self.query.weight"]["data_offsets"] = fields[NAME]["data_offsets"]


def index(where: Any) -> Prepare:
    """Shards by this map."""

    def prepare(folder: Path) -> Callable[[], object]:
        path = spoilt(folder, "bert") / FILE
        path.rename(folder / "model-00001-of-00001.safetensors")
        outside = folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        save_file(load_file(saved("bert") / FILE), outside / FILE)
        (folder / "link").symlink_to(outside)
        (folder / f"{FILE}.index.json").write_text(json.dumps({"weight_map": where}))
        return loaded(folder)

    return prepare


class Trap:
    """What runs when such a pickle is read without care."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(Path(tempfile.gettempdir()) / PLANTED),))


def pickled(content: Callable[[], Any] | bytes, *, zipped: bool = True, deflated: bytes = b"") -> Prepare:
    """A pytorch_model.bin."""

    def prepare(folder: Path) -> Callable[[], object]:
        (spoilt(folder, "bert") / FILE).unlink()
        path = folder / "pytorch_model.bin"
        if deflated:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in ("data.pkl", "data/0"):
                    archive.writestr(f"archive/{name}", deflated)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content(), path, _use_new_zipfile_serialization=zipped)
        return loaded(folder)

    return prepare


def gguf(content: bytes, config: bool = False) -> Prepare:
    def prepare(folder: Path) -> Callable[[], object]:
        (folder / "model.gguf").write_bytes(content)
        return loaded(folder, "ForCausalLM", gguf_file="model.gguf")

    return prepare


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def llama(**counts: int) -> bytes:
    """A GGUF file whose metadata gives a small Llama these numbers, and no tensor."""
    fields = {
        "block_count": 2, "embedding_length": 8, "feed_forward_length": 12, "attention.head_count": 2,
        "context_length": 16, "vocab_size": 40,
    } | {name.replace("__", "."): value for name, value in counts.items()}  # fmt: skip
    keys = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    for name, value in fields.items():
        keys += text(f"llama.{name}") + struct.pack("<IQ", 10, value)
    keys += text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields) + 2) + keys


def other(name: str) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + struct.pack("<I", 8) + text(name)


DAMAGED = r"truncated|damaged|Download or save it again|download or save it again"
WHERE = r"leaves the checkpoint's folder"
C, H = "CheckpointError", "HubError"
CASES = [
    Case("a wider matrix", C, rf"{NAME}.*\[8, 9\].*\[8, 8\].*hidden_size", tensors(put(NAME, torch.zeros(8, 9)))),
    Case("a vector for a matrix", C, rf"{NAME}.*\[64\].*\[8, 8\]", tensors(put(NAME, torch.zeros(64)))),
    Case("a number for a matrix", C, rf"{NAME}.*\[\].*\[8, 8\]", tensors(put(NAME, torch.tensor(1.0)))),
    Case(
        "an empty matrix",
        C,
        r"\[0, 8\].*\[40, 8\]",
        tensors(put("embeddings.word_embeddings.weight", torch.zeros(0, 8))),
    ),
    Case(
        "another vocabulary",
        C,
        r"\[41, 8\].*\[40, 8\].*vocab_size",
        tensors(put("embeddings.word_embeddings.weight", torch.zeros(41, 8))),
    ),
    Case(
        "three parts that are not equal",
        C,
        r"h\.0\.attn\.c_attn\.weight.*shape",
        tensors(put("h.0.attn.c_attn.weight", torch.zeros(8, 25)), "gpt2"),
    ),
    Case(
        "a published matrix not transposed",
        C,
        r"c_fc\.weight.*\[12, 8\].*\[8, 12\]",
        tensors(put("h.0.mlp.c_fc.weight", torch.zeros(12, 8)), "gpt2"),
    ),
    Case(
        "other labels",
        C,
        r"classifier\.weight.*\[2, 8\].*\[5, 8\].*num_labels",
        tensors(lambda held: None, "bert", "ForSequenceClassification", num_labels=5),
    ),
    Case(
        "int64 weights",
        C,
        rf"{NAME} is stored as int64.*floating",
        tensors(put(NAME, torch.zeros(8, 8, dtype=torch.int64))),
    ),
    Case(
        "int8 weights without scales",
        C,
        rf"{NAME} is stored as int8",
        tensors(put(NAME, torch.zeros(8, 8, dtype=torch.int8))),
    ),
    Case("bool weights", C, rf"{NAME} is stored as bool", tensors(put(NAME, torch.zeros(8, 8, dtype=torch.bool)))),
    Case(
        "complex weights",
        C,
        rf"{NAME} is stored as complex64",
        tensors(put(NAME, torch.zeros(8, 8, dtype=torch.complex64))),
    ),
    Case(
        "float8 weights",
        C,
        rf"{NAME} is stored as float8_e4m3fn.*dtype='float32'",
        tensors(put(NAME, torch.zeros(8, 8, dtype=torch.float8_e4m3fn))),
    ),
    Case(
        "one block missing",
        C,
        r"num_hidden_layers is 2, but the checkpoint holds 1.*encoder\.layer\.1",
        tensors(lambda held: [held.pop(n) for n in list(held) if "layer.1." in n]),
    ),
    Case("an empty file", C, DAMAGED, raw(lambda data: b"")),
    Case("seven bytes", C, DAMAGED, raw(lambda data: data[:7])),
    Case("half a header", C, DAMAGED, raw(lambda data: data[:100])),
    Case("half the data", C, DAMAGED, raw(lambda data: data[:-1000])),
    Case("one byte too many", C, "damaged", raw(lambda data: data + b"x")),
    Case("text", C, "safetensors", raw(lambda data: b"<html>Not found</html>" * 30)),
    Case(
        "a pointer of git-lfs",
        C,
        "safetensors",
        raw(lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    ),
    Case("a header of exabytes", C, DAMAGED, raw(lambda data: struct.pack("<Q", 1 << 62) + data[8:])),
    Case("a header below 0", C, DAMAGED, raw(lambda data: b"\xff" * 8 + data[8:])),
    Case(
        "a header of 40 MB",
        C,
        "header takes 41,943,040 bytes",
        raw(lambda data: struct.pack("<Q", 40 << 20) + b" " * (40 << 20)),
    ),
    Case("a header that is a list", C, "not an object", raw(lambda data: struct.pack("<Q", 2) + b"[]")),
    Case(
        "a header nested deep",
        C,
        "nested",
        raw(lambda data: struct.pack("<Q", 1006) + b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"),
    ),
    Case("overlapping tensors", C, "overlaps", header(overlap)),
    Case("a hole between tensors", C, "unused bytes|overlaps|damaged", header(lambda f: f.pop(NAME))),
    Case("a shape of terabytes", C, "needs [0-9,]+ bytes", header(lambda f: f[NAME].update(shape=[1 << 40, 1 << 40]))),
    Case("a negative size", C, "shape", header(lambda f: f[NAME].update(shape=[-8, -8]))),
    Case("offsets backwards", C, "lies at bytes", header(lambda f: f[NAME].update(data_offsets=[512, 256]))),
    Case(
        "offsets beyond the file",
        C,
        "truncated",
        header(lambda f: f[NAME].update(data_offsets=[1 << 40, (1 << 40) + 256])),
    ),
    Case("an unknown dtype", C, "dtype 'F3'.*F32", header(lambda f: f[NAME].update(dtype="F3"))),
    Case("shards by an absolute name", C, WHERE, index({NAME: "/etc/passwd.safetensors"})),
    Case("shards above", C, WHERE, index({NAME: "../outside/model.safetensors"})),
    Case("shards above, for Windows", C, WHERE, index({NAME: "..\\outside\\model.safetensors"})),
    Case(
        "shards through a link",
        C,
        "link/model.safetensors.*leaves.*through a link",
        index({NAME: "link/model.safetensors"}),
    ),
    Case("a shard with a zero byte", C, WHERE, index({NAME: "model\0.safetensors"})),
    Case("a shard that is a pickle", C, "no .safetensors file", index({NAME: "pytorch_model.bin"})),
    Case("a shard that is not there", C, "is not there", index({NAME: "model-00002-of-00002.safetensors"})),
    Case("no map of shards", C, "weight_map", index(None)),
    Case("a map of shards that is a list", C, "weight_map", index(["x"])),
    Case("shards as numbers", C, "weight_map", index({NAME: 5})),
    Case("20,000 shards", C, "names 20,000 files", index({str(i): f"{i}.safetensors" for i in range(20_000)})),
    Case("a pickle that runs", C, "os|posix|mkdir|safetensors", pickled(lambda: {"a": Trap()})),
    Case("an old pickle that runs", C, "os|posix|mkdir|safetensors", pickled(lambda: {"a": Trap()}, zipped=False)),
    Case("a bare pickle that runs", C, "os|posix|mkdir|safetensors", pickled(pickle.dumps(Trap(), 2))),
    Case("a pickled module", C, "safetensors", pickled(lambda: torch.nn.Linear(2, 2))),
    Case("a pickled number", C, "not named tensors|int", pickled(lambda: 5)),
    Case("a compressed archive", C, "compressed", pickled(b"", deflated=b"\0" * (1 << 20))),
    Case("a .bin of text", C, "neither a zip archive nor a pickle", pickled(b"<html>Not found</html>" * 30)),
    Case("an empty .bin", C, "safetensors|damaged|empty|pickle", pickled(b"")),
    Case("a .bin cut off", C, "not one of torch's", pickled(b"PK\3\4" + b"\0" * 500 + b"PK\5\6" + b"\0" * 18)),
    Case("a GGUF of text", C, "GGUF", gguf(b"<html>" * 50)),
    Case("a GGUF cut off", C, "model.gguf", gguf(b"GGUF" + struct.pack("<I", 3))),
    Case("a GGUF of too many tensors", C, "tensors", gguf(b"GGUF" + struct.pack("<IQQ", 3, 100_001, 0))),
    Case("a GGUF of too many keys", C, "metadata|values|keys", gguf(b"GGUF" + struct.pack("<IQQ", 3, 0, 4097))),
    Case("a GGUF with too long a name", C, "model.gguf", gguf(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, (64 << 20) + 1))),
    Case("a GGUF of another family", C, "mamba.*llama", gguf(other("mamba"))),
    Case("a GGUF without tensors", C, "token_embd", gguf(llama())),
    Case("a GGUF with a million blocks", C, "block_count|token_embd", gguf(llama(block_count=10**6))),
    Case("a GGUF that is not there", H, "x.gguf", lambda folder: loaded(spoilt(folder, "bert"), gguf_file="x.gguf")),
    Case("a GGUF above", H, WHERE, lambda folder: loaded(spoilt(folder, "bert"), gguf_file="../x.gguf")),
    Case(
        "no weights",
        H,
        "no model.safetensors.*config.json",
        lambda f: ((spoilt(f, "bert") / FILE).unlink(), loaded(f))[1],
    ),
    Case(
        "weights that are a folder",
        H,
        "no model.safetensors",
        lambda f: ((spoilt(f, "bert") / FILE).unlink(), (f / FILE).mkdir(), loaded(f))[2],
    ),
    Case("half precision beside single is widened", "", "", tensors(put(NAME, torch.zeros(8, 8, dtype=torch.float16)))),
]

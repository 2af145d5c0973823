"""Random damage to a sound checkpoint: it is loaded or refused with a CutawayError, and nothing else ever happens."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input.case import SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutaway import auto
from cutaway.errors import CutawayError
from cutaway.nn.activations.recorder import Recorder
from cutaway.nn.kv_cache import Cache

FAMILIES = ("bert", "gpt2", "llama", "t5", "bart")
IDS = torch.tensor([[3, 4, 5]])
# sizes stay small here: what is large and sound is built, however long that takes
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from((10**9, 10**30, -(2**63), 2**63, 0.5, 1e308, -1.0, 1e-300)),
    st.text(max_size=5),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.sampled_from(("0", "1", "x", "rope_type", "factor")), st.integers(-1, 3), max_size=3),
)
fuzz = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for family in FAMILIES:
        folders[family] = tmp_path_factory.mktemp(family)
        made = auto.AutoModel.from_config(auto.config_class(family)(**SIZES[family]))
        made.save_pretrained(folders[family])
    return folders


def tried(folder: Path) -> None:
    """Load and run; damage to the numbers themselves cannot be known."""
    error = None
    try:
        model = auto.AutoModel.from_pretrained(folder)
        inputs: dict[str, Any] = {"decoder_input_ids": IDS} if model.is_encoder_decoder else {}
        with torch.no_grad():
            model(input_ids=IDS, **inputs)
    except CutawayError as e:
        error = e
    assert error is None or 20 < len(str(error)) < 2000


@fuzz
@given(family=st.sampled_from(FAMILIES), data=st.data())
def test_fields_of_a_config(tmp_path: Path, saved: dict[str, Path], family: str, data: st.DataObject) -> None:
    fields = json.loads((saved[family] / "config.json").read_text())
    names = sorted({*fields, "rope_parameters", "rope_scaling", "head_dim", "num_labels", "id2label", "problem_type"})
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            fields[name] = data.draw(VALUES)
        else:
            fields.pop(name, None)
    shutil.copy(saved[family] / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    tried(tmp_path)


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_bytes_of_a_config(
    tmp_path: Path, saved: dict[str, Path], family: str, flips: list[tuple[float, int]], kept: float
) -> None:
    shutil.copy(saved[family] / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_bytes(damaged((saved[family] / "config.json").read_bytes(), flips, kept))
    tried(tmp_path)


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    header=st.booleans(),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_bytes_of_the_weights(
    tmp_path: Path, saved: dict[str, Path], family: str, header: bool, flips: list[tuple[float, int]], kept: float
) -> None:
    data = (saved[family] / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(data[:8], "little") if header else len(data)
    shutil.copy(saved[family] / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(damaged(data[:length], flips, kept) + data[length:])
    tried(tmp_path)


def damaged(data: bytes, flips: list[tuple[float, int]], kept: float) -> bytes:
    found = bytearray(data[: round(len(data) * kept)])
    for place, value in flips:
        if found:
            found[int(place * len(found))] = value
    return bytes(found)


def damaged_anywhere(data: st.DataObject, content: bytes) -> bytes:
    """Bytes changed, text put in, or the end cut off."""
    made = bytearray(content)
    for place, byte in data.draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6)):
        made[int(place * len(made))] = byte
    if data.draw(st.booleans()):
        place = int(data.draw(st.floats(0, 0.999)) * len(made))
        made[place:place] = data.draw(
            st.sampled_from((b"1e999", b"[]", b"null", b"-1", b"{}", b'"x"', b"[[1]]", b"9" * 30))
        )
    return bytes(made[: int(data.draw(st.one_of(st.just(1.0), st.floats(0, 1))) * len(made))])


@fuzz
@given(data=st.data())
def test_bytes_of_a_recording(
    tmp_path_factory: pytest.TempPathFactory, saved: dict[str, Path], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("recording") / "one"
    model = auto.AutoModel.from_pretrained(saved["bert"])
    with torch.no_grad(), model.record("blocks.*.attn.pattern", to=folder):
        model(IDS)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    path.write_bytes(damaged_anywhere(data, path.read_bytes()))
    with contextlib.suppress(CutawayError):
        recording = Recorder.load(folder)
        for run in recording.runs:
            for address in run:
                run[address]


@fuzz
@given(data=st.data())
def test_bytes_of_a_cache(tmp_path: Path, saved: dict[str, Path], data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(("gpt2", "llama", "bart")))
    model = auto.AutoModel.from_pretrained(saved[family])
    inputs: dict[str, Any] = {"decoder_input_ids": IDS} if model.is_encoder_decoder else {}
    with torch.no_grad():
        model(IDS, use_cache=True, **inputs).past_key_values.save(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(damaged_anywhere(data, (tmp_path / "cache").read_bytes()))
    with contextlib.suppress(CutawayError):
        Cache.load(tmp_path / "cache")


def test_what_is_no_path() -> None:
    for load in (Recorder.load, Cache.load):
        for name in (5, None, [], "a\0b", "/nowhere/at/all", b"\xff"):
            with pytest.raises(CutawayError):
                load(name)  # type: ignore[arg-type]
    with pytest.raises(CutawayError):
        Cache.load("x", device="nowhere")

"""A saved run: everything comes back, within what is stated, without model or torch; a hostile file is refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from contextlib import suppress

import inspect_samples as samples
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from cutaway.errors import CheckpointError, InputError
from cutaway.inspect import explain
from cutaway.inspect.explainer import load_model
from cutaway.inspect.page import page
from cutaway.inspect.trace.trace import Logits, Trace
from cutaway.inspect.trace.trace_file import KEY


def made_up(explanation, width=32):
    rng = np.random.default_rng(5)
    hidden = {n: rng.normal(0, 1, (*s.norm.shape, width)).astype(np.float32) for n, s in explanation.states.items()}
    logits = Logits([[1, 0]], np.array([[2.12, -1.93]], np.float32), np.array([2.137], np.float32))
    return Trace(samples.evidence_of(explanation), hidden, logits, {"cutaway": "0.0.0"})


def arrays_of(value, where="trace"):
    """Every array, under the names that a trace's errors have."""
    if isinstance(value, np.ndarray):
        return {where: value}
    parts = vars(value) if hasattr(value, "__dataclass_fields__") else value if isinstance(value, dict) else None
    if parts is None:
        parts = dict(enumerate(value)) if isinstance(value, list) else {}
    return {name: array for key, part in parts.items() for name, array in arrays_of(part, f"{where}.{key}").items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.of_each_kind(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", ["encoder", "decoder", "t5", "mask", "base"])
def test_a_run_comes_back(models, tmp_path, kind):
    text = "a good [MASK] film\u202e</script>\x00" if kind == "mask" else "a good film"
    model, tokenizer = load_model(models[kind])
    trace = Trace.of(model, tokenizer, text, max_new_tokens=3)
    path = tmp_path / "run.trace.safetensors"
    stated = trace.save(path)
    again = Trace.open(path)
    assert again.errors == stated
    assert again.provenance["torch"] and again.provenance["dtype"] == "float32"
    mine, theirs = arrays_of(trace), arrays_of(again)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        assert np.abs(theirs[name] - array).max(initial=0.0) <= stated.get(name, 0.0), name
    plain = explain(text, model, tokenizer, max_new_tokens=3)
    assert again.explanation.tokens == plain.tokens and again.explanation.steps == plain.steps
    assert again.explanation.certificate == plain.certificate
    assert again.explanation.answers == plain.answers
    assert page.render(again.explanation)
    if kind == "encoder":
        assert again.logits.values[0].tolist() == sorted((a.logit for a in plain.answers), reverse=True)
        share = np.exp(again.logits.values[0] - again.logits.total[0])
        np.testing.assert_allclose(sorted(share), sorted(a.probability for a in plain.answers), atol=1e-5)


def test_128_tokens_of_12_x_12_heads_take_less_than_2_megabytes(tmp_path):
    """With every hidden state of a width of 768, rollout, and the norms of values; weights as random as they come."""
    trace = made_up(samples.encoder([f"w{i}" for i in range(128)], 12, 12), 768)
    path = tmp_path / "run.safetensors"
    stated = trace.save(path)
    assert path.stat().st_size < 2e6
    again = Trace.open(path)
    for name, array in arrays_of(trace).items():
        assert np.abs(arrays_of(again)[name] - array).max() <= stated.get(name, 0.0), name
    assert stated["trace.explanation.attention.self.pattern"] < 1.5e-3
    assert stated["trace.hidden.self"] < 0.15
    assert again.explanation.head.error == stated["trace.explanation.attention.self.pattern"]


def test_saving_what_was_opened_adds_the_errors(tmp_path):
    first = made_up(samples.encoder([f"w{i}" for i in range(70)], 4, 4)).save(tmp_path / "a.safetensors")
    second = Trace.open(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert all(second[name] >= error for name, error in first.items())


def test_another_head_and_token_are_shown():
    trace = made_up(samples.encoder_decoder())
    it = trace.showing(attention="encoder", layer=1, token=3)
    assert (it.shown, it.head.layer, it.head.chosen, it.token) == ("encoder", 1, "asked for", 3)
    with pytest.raises(InputError, match="head=9"):
        trace.showing(head=9)


def test_neither_torch_nor_a_model_is_needed(tmp_path):
    path = tmp_path / "run.trace.safetensors"
    made_up(samples.decoder()).save(path)
    code = (
        "import sys; from cutaway.inspect.trace.trace import Trace; from cutaway.inspect.page import page\n"
        f"page.save(Trace.open({str(path)!r}).explanation, {str(tmp_path / 'page.html')!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_what_cannot_be_kept(tmp_path):
    trace = made_up(samples.encoder())
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        trace.save(tmp_path / "run.bin")
    trace.hidden["self"][0, 0, 0] = np.inf
    with pytest.raises(InputError, match="not finite"):
        trace.save(tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []


# -- files from elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "run.safetensors"
    made_up(samples.encoder([f"w{i}" for i in range(40)], 2, 4)).save(path)
    return load_file(path), json.loads(metadata_of(path))


def metadata_of(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length])["__metadata__"][KEY]


PATTERN = "trace.explanation.attention.self.pattern"


def wrong(change):
    """A copy of the file's parts with something changed; the change gets (tensors, data, the explanation's tree)."""

    def apply(tensors, data):
        tensors, data = dict(tensors), json.loads(json.dumps(data))
        change(tensors, data, data["tree"]["explanation"])
        return tensors, data

    return apply


def put(where, *path):
    """Set the entry at `path` (its last element is the value)."""
    *steps, last, value = path
    for step in steps:
        where = where[step]
    where[last] = value


HOSTILE = {
    "another format": lambda t, d, e: put(d, "format", "cutaway.trace/99"),
    "a huge shape": lambda t, d, e: put(d, "packed", PATTERN, "shape", [1 << 20, 1 << 20, 40, 40]),
    "more than the bytes hold": lambda t, d, e: put(d, "packed", PATTERN, "shape", [2, 4, 40, 4_000_000]),
    "a negative size": lambda t, d, e: put(d, "packed", PATTERN, "shape", [2, 4, 40, -40]),
    "another shape": lambda t, d, e: put(d, "packed", PATTERN, "shape", [4, 2, 40, 40]),
    "blocks out of order": lambda t, d, e: d["packed"][PATTERN]["ends"].reverse(),
    "no steps": lambda t, d, e: t.pop(f"{PATTERN}.steps"),
    "steps that are not numbers": lambda t, d, e: put(t, f"{PATTERN}.steps", np.full(8, np.nan, np.float32)),
    "no blocks": lambda t, d, e: t.pop(PATTERN),
    "damaged blocks": lambda t, d, e: put(t, PATTERN, np.zeros_like(t[PATTERN])),
    "an error that is text": lambda t, d, e: put(d, "packed", PATTERN, "error", "none"),
    "a tile of a truth": lambda t, d, e: put(d, "packed", PATTERN, "tile", True),
    "an array of another kind": lambda t, d, e: put(t, "more", np.zeros(3, np.int64)),
    "no array": lambda t, d, e: t.pop("trace.explanation.states.self.norm"),
    "a field too many": lambda t, d, e: put(e, "__class__", "os.system"),
    "a field too few": lambda t, d, e: e.pop("kind"),
    "an unknown kind": lambda t, d, e: put(e, "kind", "exec"),
    "text for a number": lambda t, d, e: put(e, "tokens", 0, "index", "0"),
    "a truth for a number": lambda t, d, e: put(e, "tokens", 1, "index", True),
    "a number too large": lambda t, d, e: put(e, "tokens", 0, "id", 10**400),
    "tokens out of order": lambda t, d, e: put(e, "tokens", 0, "index", 5),
    "fewer tokens": lambda t, d, e: e["tokens"].pop(),
    "a token that is not there": lambda t, d, e: put(e, "token", 40),
    "a head that is not there": lambda t, d, e: put(e, "attention", "self", "head", 4),
    "an address that formats": lambda t, d, e: put(e, "attention", "self", "address", "{i.__class__}"),
    "an unknown attention": lambda t, d, e: put(e, "shown", "other"),
    "an unknown measure": lambda t, d, e: put(e, "attention", "self", "measures", {}),
    "another array's name": lambda t, d, e: put(e, "states", "self", "norm", {"array": PATTERN}),
    "a lens without labels": lambda t, d, e: put(e, "evidence", "lens", "labels", {}),
    "parts without names": lambda t, d, e: put(e, "evidence", "parts", "names", []),
    "a branch of no step": lambda t, d, e: put(e, "evidence", "branches", [{"step": 0, "tokens": []}]),
    "logits without ids": lambda t, d, e: put(d, "tree", "logits", "ids", []),
    "a list as the tree": lambda t, d, e: put(d, "tree", []),
    "a deep tree": lambda t, d, e: put(d, "tree", json.loads("[" * 60 + "]" * 60)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_wrong_file_is_one_clear_error(saved, tmp_path, name):
    tensors, data = wrong(HOSTILE[name])(*saved)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata={KEY: json.dumps(data)})
    with pytest.raises(CheckpointError) as caught:
        Trace.open(path)
    assert "bad.safetensors" in str(caught.value) and len(str(caught.value)) < 700


def test_any_cut_and_any_other_file(saved, tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file(saved[0], path, metadata={KEY: json.dumps(saved[1])})
    whole = path.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            Trace.open(path)
    save_file({"a": np.zeros(2, np.float32)}, path)
    with pytest.raises(CheckpointError, match="no trace of cutaway"):
        Trace.open(path)


def test_flipped_bytes_never_end_in_another_error(saved, tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file(saved[0], path, metadata={KEY: json.dumps(saved[1])})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
        with suppress(CheckpointError):
            page.render(Trace.open(path).explanation)


def test_labels_of_a_file_are_made_visible(saved, tmp_path):
    path = tmp_path / "bad.safetensors"
    tensors, data = wrong(lambda t, d, e: put(e, "tokens", 0, "label", "\x1b[31m\u202e"))(*saved)
    save_file(tensors, path, metadata={KEY: json.dumps(data)})
    assert Trace.open(path).explanation.tokens[0].label == "␛[31m<U+202E>"

"""Long texts by tiles: parts that are computed when they are looked at are those of the library's patterns."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
import torch
from test_studio import tensor

from cutaway.inspect.explainer import explain, load_model
from cutaway.studio import analysis, live_run, tiles

TEXT = "i believe that the eu is great ."


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load_model(path) for name, path in folders.items()}


@pytest.fixture
def long(monkeypatch):
    """From here on, every text is too long for whole patterns."""
    monkeypatch.setattr(live_run, "MOST_PATTERNS", 0)


@pytest.mark.parametrize("name", ["labels", "text", "t5", "mask", "vectors"])
def test_a_long_run_is_that_of_the_library(studio, loaded, long, name):
    model, tokenizer = loaded[name]
    text = "i [MASK] that ." if name == "mask" else TEXT
    found = studio.ask("run", model=name, text=text, views=["attention", "layers"], new_tokens=3)["run"]
    want = explain(text, model, tokenizer, max_new_tokens=3)
    for side in ("answers", "steps"):
        assert len(found[side]) == len(getattr(want, side))
    np.testing.assert_allclose(
        [a["logit"] for a in found["answers"]], [a.logit for a in want.answers], rtol=1e-4, atol=1e-5
    )
    assert [s["picked"]["label"] for s in found["steps"]] == [s.picked.label for s in want.steps]
    assert found["certificate"]["error"] < 1e-4
    for kind, attention in want.attention.items():
        entry = found["attention"][kind]
        packed = entry["packed"]
        assert (entry["rows"], entry["columns"]) == (attention.rows, attention.columns)
        assert tuple(packed["shape"]) == attention.pattern.shape
        assert packed["sampled"] == attention.pattern.shape[2]
        assert "rollout" not in entry and "value_norms" not in entry
        for measure, values in attention.measures.items():
            np.testing.assert_allclose(entry["measures"][measure], values, atol=2e-4)
        head = attention.pattern[1, 1]
        np.testing.assert_allclose(tensor(studio.http, packed["tensor"], "?at=1.1"), head, atol=1e-6)
        tile = tensor(studio.http, packed["tensor"], "?at=1.1&rows=0:1&columns=1:3")
        np.testing.assert_allclose(tile, head[0:1, 1:3], atol=1e-6)
        rough = tensor(studio.http, packed["tensor"], "?at=1.1&every=2&dtype=u8")
        squares = torch.nn.functional.max_pool2d(torch.from_numpy(head)[None], 2, ceil_mode=True)[0]
        np.testing.assert_allclose(rough, squares, atol=head.max() / 255 / 2 + 1e-6)


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize("name", ["labels", "t5"])
def test_the_small_pictures_show_every_head(studio, loaded, name, is_long, monkeypatch):
    if is_long:
        monkeypatch.setattr(live_run, "MOST_PATTERNS", 0)
    found = studio.ask("run", model=name, text=TEXT)["run"]
    want = explain(TEXT, *loaded[name], max_new_tokens=0)
    for kind, attention in want.attention.items():
        pictures = tensor(studio.http, found["attention"][kind]["packed"]["tensor"] + ".pictures", "?dtype=u8")
        n = min(live_run.PIXELS, attention.pattern.shape[2])
        assert pictures.shape[:2] == attention.pattern.shape[:2]
        assert np.abs(pictures.max((-2, -1)) - 1).max() <= 1 / 255
        if not is_long and attention.pattern.shape[3] <= live_run.PIXELS:
            own = attention.pattern / attention.pattern.max((-2, -1), keepdims=True)
            assert pictures.shape[2] == n
            np.testing.assert_allclose(pictures, own, atol=1 / 255)


def test_no_part_of_a_long_text_is_larger_than_a_tile(studio, long, monkeypatch):
    monkeypatch.setattr(tiles, "MOST_TILE", 64)
    name = studio.ask("run", model="text", text=TEXT)["run"]["attention"]["self"]["packed"]["tensor"]

    def asked(query):
        answer = studio.http.get(f"/studio/tensors/{name}{query}")
        return answer.status_code, answer.text

    assert asked("?at=0.0&rows=0:4&columns=0:4")[0] == 200
    status, words = asked("?at=0.0&rows=0:5&columns=0:4")
    assert status == 400 and "80 bytes" in words and "every=" in words
    assert asked("?at=0.0&rows=0:8&columns=0:8&dtype=u8")[0] == 200
    assert asked("")[0] == 400
    for query in ("?at=9.0", "?at=0.0&every=0", "?at=0.0&every=x", "?at=0.0&dtype=f16", "?at=0.0&rows=3"):
        assert asked(query)[0] == 400
    for query in ("?at=0.0&row=0:1", "?at=0.0&at=0.1"):  # a misspelled name, and one that stands twice
        status, words = asked(query)
        assert status == 400 and ("'row'" in words or "twice" in words)
    many = "9" * 5000  # more digits than Python turns into a number
    for query in (f"?at={many}.0", f"?at=0.0&every={many}", f"?at=0.0&rows=0:{many}", f"?at=0.0&columns={many}:"):
        status, words = asked(query)
        assert status == 400 and "give" in words


def test_tiles_are_computed_once_and_kept_within_a_bound(studio, long, monkeypatch):
    held = tiles.Tiles()
    monkeypatch.setattr(studio.bench, "tiles", held)
    monkeypatch.setattr(tiles, "MOST_KEPT", 200)
    name = studio.ask("run", model="text", text=TEXT)["run"]["attention"]["self"]["packed"]["tensor"]
    made = []
    part = tiles.PatternRows.part

    def noted(rows, *asked):
        made.append(asked[2])
        return part(rows, *asked)

    monkeypatch.setattr(tiles.PatternRows, "part", noted)
    first = [tensor(studio.http, name, f"?at=0.0&rows={i}:{i + 1}&columns=0:4") for i in range(4)]
    assert len(made) == 4
    again = tensor(studio.http, name, "?at=0.0&rows=3:4&columns=0:4")
    assert len(made) == 4 and (again == first[3]).all()
    for i in range(4, 8):
        for head in (0, 1):
            tensor(studio.http, name, f"?at=0.{head}&rows={i}:{i + 1}&columns=0:8")
    assert held.nbytes <= 200
    tensor(studio.http, name, "?at=0.0&rows=0:1&columns=0:4")  # it had to go
    assert len(made) == 13


def test_a_tile_that_nobody_waits_for_is_not_computed():
    begun, go = threading.Event(), threading.Event()
    made = []

    class Rows:
        def part(self, layer, head, rows, columns, every):
            made.append(head)
            begun.set()
            assert go.wait(30)
            return np.full((1, 1), head, np.float32)

    async def looking():
        held, rows = tiles.Tiles(), Rows()
        askers = []
        for head in range(3):  # the first is computed, two wait
            tile = tiles.Tile((0, head), slice(0, 1), slice(0, 1), 1, "f32")
            askers.append(asyncio.create_task(held.of("it", rows, tile)))
        await asyncio.to_thread(begun.wait, 30)
        askers[1].cancel()
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*askers, return_exceptions=True)

    first, second, third = asyncio.run(looking())
    assert made == [0, 2] and isinstance(second, asyncio.CancelledError)
    assert [np.frombuffer(found[0], "<f4").tolist() for found in (first, third)] == [[0.0], [2.0]]


def test_weights_of_a_long_text_are_not_patched(studio, long):
    change = {"kind": "patch", "address": "blocks.1.attn.pattern", "text": TEXT}
    answer = studio.http.post("/studio/run", json={"model": "text", "text": TEXT, "changes": [change]})
    assert answer.status_code == 400 and "attn.q or attn.k" in answer.text
    change = {"kind": "head", "layer": 0, "unit": 1}
    after = studio.ask("lab", model="text", text=TEXT, changes=[change])
    assert after["after"]["moved"]["kl"] > 0 and abs(after["before"]["moved"]["kl"]) < 1e-9


def test_small_work_takes_one_thread_and_gives_the_others_back(studio, monkeypatch):
    served = studio.bench.service.models["labels"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    with pytest.raises(ValueError, match="in the middle"), analysis.threads_for(served, 100):
        raise ValueError("in the middle")
    assert told == [1, 4]
    with analysis.threads_for(served, 10**9):
        pass
    assert told == [1, 4]

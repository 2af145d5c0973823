"""Comparing, tables of texts, trainings, and the studio of a notebook: what they say is what the library says."""

from __future__ import annotations

import json
import re

import httpx
import numpy as np
import pytest
import studio_app
import torch
from test_studio import TEXT, events

import cutaway.inspect
from cutaway.errors import InputError
from cutaway.inspect.explainer import load_model
from cutaway.studio.table import plane


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load_model(path) for name, path in folders.items()}


def test_two_texts_are_compared_as_the_library_compares_them(studio, loaded):
    model, tokenizer = loaded["labels"]
    other = "i believe that the eu is bad ."
    found = studio.ask("compare", model="labels", text=TEXT, other_text=other)
    a, b = (dict(tokenizer(t, return_tensors="pt")) for t in (TEXT, other))
    want = cutaway.inspect.compare(model, a, b)
    assert [tuple(pair) for pair in found["pairs"]] == want.pairs
    kept = [want.places.index(place) for place in found["places"]]
    assert found["places"][0] == "embed" and len(found["places"]) == 3
    np.testing.assert_allclose(found["distance"], want.distance[kept].numpy(), atol=1e-5)
    assert (found["first"]["place"], found["first"]["pair"]) == want.first
    assert found["answers"][0]["kl"] == pytest.approx(float(want.kl[0]), abs=1e-5)


def test_two_models_are_compared(studio, loaded):
    found = studio.ask("compare", model="labels", text=TEXT, other_model="mask")
    model, tokenizer = loaded["labels"]
    want = cutaway.inspect.compare(model, dict(tokenizer(TEXT, return_tensors="pt")), other_model=loaded["mask"][0])
    kept = [want.places.index(place) for place in found["places"]]
    np.testing.assert_allclose(found["distance"], want.distance[kept].numpy(), atol=1e-5)
    assert found["answers"] == [] or len(found["answers"][0]["first"]) > 0
    same = studio.ask("compare", model="labels", text=TEXT, other_model="labels")
    assert same["first"] is None and np.max(same["distance"]) == 0
    answer = studio.http.post("/studio/compare", json={"model": "labels", "text": TEXT})
    assert "other_text" in answer.text


TEXTS = [TEXT, "a bad film .", "", "good", "x " * 200, *(f"a film {c} ." for c in "abcdefghijklmnopq")]


def test_a_table_gets_the_labels_of_the_library(studio, loaded):
    model, tokenizer = loaded["labels"]
    found = events(studio.http, "table", model="labels", texts=TEXTS)
    shares = [row for name, data in found if name == "rows" for row in data["shares"]]
    assert len(shares) == len(TEXTS)
    states = []
    with torch.no_grad():
        for text, row in zip(TEXTS, shares, strict=True):
            inputs = {key: value[:, :64] for key, value in tokenizer(text or " ", return_tensors="pt").items()}
            out = model(**inputs, output_hidden_states=True)
            np.testing.assert_allclose(row, out.logits[0].softmax(-1).numpy(), atol=1e-5)
            states.append(out.hidden_states[-1][0].mean(0).numpy())
    points = next(data for name, data in found if name == "map")
    vectors = np.stack(states).astype(np.float64)
    centred = vectors - vectors.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2]
    want = centred @ axes
    np.testing.assert_allclose(np.abs(points["points"]), np.abs(want), atol=1e-4)
    variance = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    np.testing.assert_allclose(points["shares"], (variance / variance.sum())[:2], atol=1e-4)


def test_a_table_of_a_model_without_labels_is_a_map(studio):
    found = events(studio.http, "table", model="vectors", texts=TEXTS[:4])
    assert next(data for name, data in found if name == "start")["labels"] == []
    assert len(next(data for name, data in found if name == "map")["points"]) == 4


def test_a_plane_of_one_text_is_a_point_and_umap_is_asked_for():
    points, shares = plane(np.ones((1, 8), np.float32), "pca")
    assert points.tolist() == [[0.0, 0.0]] and shares == [0.0]
    from importlib.util import find_spec

    if find_spec("umap") is None:
        with pytest.raises(InputError, match="umap-learn"):
            plane(np.ones((5, 8), np.float32), "umap")


@pytest.fixture
def trained(tmp_path, folders):
    """A training's folder as `cutaway train` leaves it."""
    import shutil

    folder = tmp_path / "runs" / "mine"
    checkpoint = folder / "checkpoint-20"
    shutil.copytree(folders["labels"], checkpoint)
    history = [{"loss": 1.0 / step, "learning_rate": 1e-4, "epoch": step / 10, "step": step} for step in range(1, 21)]
    history.append({"eval_loss": 0.5, "eval_accuracy": 0.75, "epoch": 2.0, "step": 20})
    state = {"log_history": history, "global_step": 20, "max_steps": 40, "epoch": 2.0, "best_metric": 0.5}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return folder


def test_a_training_shows_its_curves_and_opens_its_checkpoints(trained, folders, tmp_path):
    with studio_app.opened({"labels": folders["labels"]}, tmp_path / "kept", (tmp_path / "runs",)) as found:
        known = found.http.get("/studio/trainings").json()["trainings"]
        assert [one["name"] for one in known] == [str(trained)]
        told = found.ask("training", name=str(trained))
        assert (told["step"], told["steps"], told["running"], told["best"]) == (20, 40, True, 0.5)
        assert told["curves"]["loss"] == [[step, 1.0 / step] for step in range(1, 21)]
        assert told["curves"]["eval_accuracy"] == [[20, 0.75]]
        (checkpoint,) = told["checkpoints"]
        assert checkpoint in [model["name"] for model in found.http.get("/studio/start").json()["models"]]
        assert found.ask("run", model=checkpoint, text=TEXT)["run"]["kind"] == "labels"
        assert found.http.post("/studio/training", json={"name": "/etc"}).status_code == 404


def test_the_studio_of_a_notebook(loaded):
    model, tokenizer = loaded["labels"]
    with pytest.raises(InputError, match="tokenizer"):
        cutaway.inspect.studio(model)
    found = cutaway.inspect.studio(model, tokenizer)
    try:
        shown = found._repr_html_()
        source = re.search(r'src="([^"]+)"', shown).group(1)
        assert source == found.address and source.startswith("http://127.0.0.1:")
        address, key = source.split("/studio#key=")
        page = httpx.get(f"{address}/studio")
        assert "http://localhost:*" in page.headers["content-security-policy"]
        http = httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60)
        name = http.get("/studio/start").json()["models"][0]["name"]
        run = http.post("/studio/run", json={"model": name, "text": TEXT}).json()["run"]
        with torch.no_grad():
            logits = model(**tokenizer(TEXT, return_tensors="pt")).logits[0]
        np.testing.assert_allclose([a["logit"] for a in run["answers"]], logits.numpy(), atol=1e-4)
        assert httpx.get(f"{address}/studio/start").status_code == 401
        http.close()
    finally:
        found.close()


def test_a_table_becomes_a_report(studio):
    """With true labels; what it cannot be made of is said."""
    model, tokenizer = load_model(studio.bench.service.sources["labels"])
    names = [str(model.config.id2label[i]) for i in range(3)]
    texts = ["a good film .", "a bad <b>film</b> .", "great"]
    with torch.no_grad():
        said = [names[int(model(**tokenizer(t, return_tensors="pt")).logits[0].argmax())] for t in texts]
    labels = [said[0], next(name for name in names if name != said[1]), said[2]]
    answer = studio.http.post(
        "/studio/report", json={"model": "labels", "texts": texts, "labels": labels, "name": "<i>x"}
    )
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "66.7%" in answer.text and "<i>x" not in answer.text and "<b>film" not in answer.text
    for body, why in (
        ({"model": "labels", "labels": labels[:2]}, "2 for 3 texts"),
        ({"model": "labels", "labels": ["nonsense"] * 3}, "nonsense"),
        ({"model": "text", "labels": labels}, "gives no labels"),
    ):
        answer = studio.http.post("/studio/report", json={"texts": texts, **body})
        assert answer.status_code == 400 and why in answer.text, answer.text

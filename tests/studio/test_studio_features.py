"""Features in the studio: beside the tokens, switched off and steered, and the texts that excite one."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import studio_app
import torch
from models.test_sae_files import write_sae

from cutaway.commands.studio import _attachment
from cutaway.errors import CutawayError, InputError
from cutaway.inspect import strong_features, top_texts
from cutaway.inspect.explainer import load_model

TEXT = "i believe that the eu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, str]) -> Path:
    width = json.loads((Path(folders["text"]) / "config.json").read_text())["hidden_size"]
    return write_sae(tmp_path_factory.mktemp("sae") / "s", "topk", width, 48)


@pytest.fixture(scope="module")
def held(folders, folder, tmp_path_factory):
    """A studio of its own: what is attached would stay with the others' models."""
    given = {"text": folders["text"], "labels": folders["labels"]}
    with studio_app.opened(given, tmp_path_factory.mktemp("kept")) as found:
        found.bench.attach([("blocks.1.hook_resid_pre", str(folder))])
        yield found


@pytest.fixture(scope="module")
def loaded(folders, folder):
    model, tokenizer = load_model(folders["text"])
    return model, tokenizer, model.attach_sae("blocks.0.resid", folder)


def test_the_strongest_features_of_each_token(held, loaded):
    model, tokenizer, sae = loaded
    inputs = tokenizer(TEXT, return_tensors="pt")
    want = strong_features(model, sae, inputs, top=6)
    found = held.ask("features", model="text", text=TEXT, feature=3)
    assert found["saes"] == [{"name": "0", "reads": "blocks.0.resid", "writes": "blocks.0.resid", "features": 48}]
    assert [token["on"] for token in found["tokens"]] == want.on.tolist()
    for token, features, values in zip(found["tokens"], want.features.tolist(), want.values.tolist(), strict=True):
        known = {it["feature"]: it["value"] for it in token["features"]}
        assert known == pytest.approx({f: v for f, v in zip(features, values, strict=True) if v > 0}, abs=1e-4)
    with torch.no_grad(), model.record(sae.features) as r:
        model(**inputs)
    np.testing.assert_allclose(found["strength"], r[sae.features][0, :, 3], atol=1e-4)
    assert found["explained"] < 1
    assert held.ask("features", model="labels", text=TEXT)["saes"] == []


def test_a_feature_is_switched_off_and_steered_in_every_view_and_as_python(held, loaded):
    model, tokenizer, sae = loaded
    inputs = tokenizer(TEXT, return_tensors="pt")
    feature = int(strong_features(model, sae, inputs).features[-1, 0])
    for kind, scale, edit in (("feature", 0.0, sae.scaled(feature)), ("boost", 9.0, sae.steered(feature, 9.0))):
        change = {"kind": kind, "unit": feature, "scale": scale, "sae": "0"}
        after = held.ask("lab", model="text", text=TEXT, changes=[change])["after"]
        with torch.no_grad(), model.edit(edit):
            p = model(**inputs).logits[0, -1].softmax(-1)
        best = after["answers"][0]
        assert best["probability"] == pytest.approx(float(p[best["id"]]), abs=1e-5)
        assert after["moved"]["kl"] > 0
        code = held.ask("code", model="text", text=TEXT, changes=[change, change])["python"]
        assert f"model.attach_sae('blocks.0.resid', {sae.file!r}, '0')" in code and "ExitStack" in code
    strength = held.ask("features", model="text", text=TEXT, feature=feature, changes=[change])["strength"]
    plain = held.ask("features", model="text", text=TEXT, feature=feature)["strength"]
    np.testing.assert_allclose(np.subtract(strength, plain), 9, atol=1e-4)


def test_the_python_runs(held, tmp_path, monkeypatch):
    change = {"kind": "feature", "unit": 5, "scale": 0.0, "sae": "0"}
    code = held.ask("code", model="text", text=TEXT, changes=[change, {"kind": "boost", "unit": 6, "scale": 1.0,
                                                                       "sae": "0"}])["python"]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "studio.py", "exec"), {})
    assert (tmp_path / "studio.png").stat().st_size > 1000


def test_the_texts_that_excite_a_feature(held, loaded):
    model, tokenizer, sae = loaded
    texts = [TEXT, "a bad film .", "<script>alert(1)</script>", "the eu is great"]
    batches = [tokenizer(text, return_tensors="pt") for text in texts]
    feature = int(strong_features(model, sae, batches[0]).features[2, 0])
    want = top_texts(model, sae, feature, batches, top=12)
    places = held.ask("exciting", model="text", sae="0", feature=feature, texts=texts)["places"]
    on = [(t, at) for t, at, v in zip(*map(torch.Tensor.tolist, (want.texts, want.positions, want.values)), strict=True)
          if v > 0]  # fmt: skip
    assert {(place["text"], place["position"]) for place in places} == set(on)
    assert [place["value"] for place in places] == pytest.approx([v for v in want.values.tolist() if v > 0], abs=1e-4)
    assert all(0 <= place["at"] < len(place["labels"]) for place in places)


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("features", {"text": TEXT, "sae": "1"}, "sae='1' is not attached"),
        ("features", {"text": TEXT, "feature": 48}, r"must lie in 0..47"),
        ("exciting", {"sae": "0", "feature": 48, "texts": [TEXT]}, r"must lie in 0..47"),
        ("exciting", {"sae": "0", "feature": 1, "texts": []}, "texts"),
        ("lab", {"text": TEXT, "changes": [{"kind": "feature", "sae": "x"}]}, "sae='x' is not attached"),
    ],
)
def test_what_is_not_there_is_said(held, path, body, why):
    answer = held.http.post(f"/studio/{path}", json={"model": "text", **body})
    assert answer.status_code in (400, 404, 422) and why in answer.text


def test_the_option(held, folder):
    assert _attachment("blocks.1.resid=a/b=c") == ("blocks.1.resid", "a/b=c")
    for wrong in ("blocks.1.resid", "=x", "x="):
        with pytest.raises(InputError, match="ADDRESS=FOLDER"):
            _attachment(wrong)
    with pytest.raises(CutawayError, match="is not a folder"):
        held.bench.attach([("blocks.1.resid", "/nowhere")])
    assert isinstance(held.http, httpx.Client)

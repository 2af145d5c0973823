"""The studio's routes: what they answer is what the library says, and whom they refuse."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
import studio_app
import tiny
import torch

import cutaway
from cutaway.inspect import Target, ablate, logit_lens, steering_vector
from cutaway.inspect.explainer import explain, load_model
from cutaway.nn.activations.edits import Edit
from cutaway.studio import writing
from cutaway.studio.feed import MOST_WAITING, Feed, Steps

TEXT = "i believe that the eu is great ."
HEADS = {"labels": "Sequence", "text": "Causal"}


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load_model(path) for name, path in folders.items()}


def events(http, path, **body):
    found = []
    with http.stream("POST", f"/studio/{path}", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        for block in "".join(answer.iter_text()).split("\n\n")[:-1]:
            name, data = (line.partition(": ")[2] for line in block.split("\n"))
            found.append((name, json.loads(data)))
    return found


def tensor(http, name, query=""):
    answer = http.get(f"/studio/tensors/{name}{query}")
    assert answer.status_code == 200, answer.text
    assert "immutable" in answer.headers["cache-control"]
    shape = [int(n) for n in answer.headers["x-shape"].split(",")]
    kind = {"f32": "<f4", "u8": "u1"}[answer.headers["x-dtype"]]
    return np.frombuffer(answer.content, kind).reshape(shape) * float(answer.headers["x-scale"])


@pytest.mark.parametrize("name", ["labels", "text", "t5", "mask", "vectors"])
def test_a_run_is_that_of_the_library(studio, loaded, name):
    model, tokenizer = loaded[name]
    text = "i [MASK] that ." if name == "mask" else TEXT
    found = studio.ask("run", model=name, text=text)["run"]
    want = explain(text, model, tokenizer, max_new_tokens=0)
    assert [token["label"] for token in found["tokens"]] == [token.label for token in want.tokens]
    np.testing.assert_allclose(
        [a["logit"] for a in found["answers"]], [a.logit for a in want.answers], rtol=1e-4, atol=1e-5
    )
    assert found["attention"].keys() == want.attention.keys()
    for kind, attention in want.attention.items():
        packed = found["attention"][kind]["packed"]
        assert tuple(packed["shape"]) == attention.pattern.shape
        np.testing.assert_allclose(tensor(studio.http, packed["tensor"]), attention.pattern, atol=1e-6)
        one = tensor(studio.http, packed["tensor"], "?at=1.1")
        np.testing.assert_allclose(one, attention.pattern[1, 1], atol=1e-6)
        tile = tensor(studio.http, packed["tensor"], "?at=1.1&rows=0:1&columns=1:3")
        np.testing.assert_allclose(tile, attention.pattern[1, 1, 0:1, 1:3], atol=1e-6)
        rough = tensor(studio.http, packed["tensor"], "?at=1.1&dtype=u8")
        assert np.abs(rough - one).max() <= one.max() / 255 / 2 + 1e-7


@pytest.mark.parametrize("name", ["labels", "text", "t5"])
def test_evidence_comes_view_by_view_and_is_that_of_the_library(studio, loaded, name):
    model, tokenizer = loaded[name]
    explained = explain(TEXT, model, tokenizer, max_new_tokens=0, evidence=True)
    want = explained.evidence
    id = studio.ask("run", model=name, text=TEXT)["id"]
    layers = studio.ask("more", id=id, view="layers")["evidence"]
    assert (layers["lens"] is None) == (want.lens is None)
    if want.lens is not None:
        np.testing.assert_allclose(layers["lens"]["kl"], want.lens.kl, rtol=1e-3, atol=1e-4)
    why = studio.ask("more", id=id, view="answer")["evidence"]
    if want.parts is None:
        assert why["missing"]["parts"]
    else:
        np.testing.assert_allclose(why["parts"]["values"], want.parts.values, rtol=1e-3, atol=1e-4)
    moved = studio.ask("more", id=id, view="attribution")["evidence"]["attributions"]
    assert [a["method"] for a in moved] == [a.method for a in want.attributions]
    for one, other in zip(moved, want.attributions, strict=True):
        np.testing.assert_allclose(one["scores"], other.scores, rtol=1e-3, atol=1e-4)
    quick = studio.ask("run", model=name, text=TEXT, views=["typing"])["run"]["evidence"]["attributions"]
    assert [a["method"] for a in quick] == [a.method for a in want.attributions[1:3]]
    beside = studio.ask("more", id=id, view="attention")["attention"]
    for kind, entry in beside.items():
        if kind in want.rollout:
            assert tensor(studio.http, entry["rollout"]["tensor"]).shape[1] == 1
        np.testing.assert_allclose(entry["value_norms"], want.value_norms[kind], rtol=1e-3, atol=1e-5)
        assert {*entry["measures"]} == {*explained.attention[kind].measures} >= {"entropy", "effect"}
        effect = explained.attention[kind].measures["effect"]
        np.testing.assert_allclose(entry["measures"]["effect"], effect, rtol=1e-3, atol=1e-5)
    changes = [{"kind": "head", "layer": 0, "unit": 1, "tower": "encoder" if name == "t5" else ""}]
    id = studio.ask("run", model=name, text=TEXT, changes=changes)["id"]
    beside = studio.ask("more", id=id, view="attention")["attention"]
    assert beside[next(iter(beside))]["measures"]["effect"][0][1] == 0  # what is off does nothing


def test_what_is_written_is_what_the_model_writes(studio, loaded):
    model, tokenizer = loaded["text"]
    found = events(studio.http, "write", model="text", text=TEXT, tokens=40, layer=1, forbid=[0])
    names = [name for name, _ in found]
    assert names[0] == "start" and names[-1] == "end"
    tokens = [data for name, data in found if name == "token"]
    inputs = tokenizer(TEXT, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    with torch.no_grad():
        for it in tokens:
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            p = logits.softmax(-1)
            assert it["position"] == len(ids)
            allowed = logits.clone()
            allowed[0] = -torch.inf
            assert it["id"] == int(allowed.argmax())
            assert it["probability"] == pytest.approx(float(p[it["id"]]), abs=1e-5)
            assert it["entropy"] == pytest.approx(float(torch.distributions.Categorical(p).entropy()), abs=1e-4)
            assert [share for *_, share in it["top"]] == pytest.approx(p.topk(10).values.tolist(), abs=1e-5)
            ids.append(it["id"])
    watched = [data for name, data in found if name == "watched"]
    assert [one["position"] for one in watched] == [one["position"] for one in tokens]
    with torch.no_grad(), model.record("blocks.1.attn.pattern") as seen:
        model(input_ids=torch.tensor([ids[:-1]]))
    lens = logit_lens(model, {"input_ids": torch.tensor([ids[:-1]])})
    for one in watched:
        assert one["place"] == "blocks.1.attn.pattern"
        shares = np.frombuffer(base64.b64decode(one["attention"]), np.uint8).reshape(one["shape"]) * one["scale"]
        at = one["position"] - 1
        want = seen["blocks.1.attn.pattern"][0, :, at, : at + 1].numpy()
        assert np.abs(shares - want).max() <= 0.5 / 255 + 1e-5
        for place, best in zip(one["places"], one["lens"], strict=True):
            state = lens.places.index(place)
            assert best[0][1] == pytest.approx(float(lens.probability[state, 0, at, 0]), abs=1e-4)
    last = next(data for name, data in found if name == "last")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0, -1]
    np.testing.assert_allclose(tensor(studio.http, last["tensor"]), logits.numpy(), atol=1e-4)
    assert last["ids"] == logits.topk(50).indices.tolist()


def test_tokens_that_are_told_of_together_are_those_told_of_one_by_one(studio, monkeypatch):
    body = {"model": "text", "text": TEXT, "tokens": 9, "layer": 1, "temperature": 1.0, "seed": 2}
    told = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(writing, "SEEN", seconds)
        words = []
        monkeypatch.setattr(Feed, "_wake", lambda feed, words=words, wake=Feed._wake: (words.append(feed), wake(feed)))
        found = events(studio.http, "write", **body)
        told.append(([data for kind, data in found if kind == "token"], len(words)))
        kinds = [kind for kind, _ in found]
        assert kinds.index("watched") > max(at for at, kind in enumerate(kinds) if kind == "token")
        monkeypatch.undo()
    (each, several), (together, few) = told
    assert each == together and len(each) > 4
    assert few <= several - len(each) + 2  # the first alone, the others in one word


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    """Encoder-decoders that write: T5, BART whose first token is forced, Marian that never writes its padding."""
    import transformers

    root = tmp_path_factory.mktemp("writers")
    tokenizer = tiny.wordpiece()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    fields = {
        "vocab_size": len(tokenizer), "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "max_position_embeddings": 64, "init_std": 0.4, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
        "decoder_start_token_id": 3,
    }  # fmt: skip
    torch.manual_seed(0)
    bart = transformers.BartForConditionalGeneration(transformers.BartConfig(**fields, forced_bos_token_id=7))
    marian = transformers.MarianMTModel(transformers.MarianConfig(**{**fields, "decoder_start_token_id": 0}))
    with torch.no_grad():
        marian.final_logits_bias[0, 0] = 30.0  # its padding would be the likeliest token each time
    marian.generation_config.bad_words_ids = [[0]]
    for model in (bart, marian):  # a text may go on, so none has a last place
        model.config.forced_eos_token_id = model.generation_config.forced_eos_token_id = None
    return {
        "t5": str(tiny.encoder_decoder(root / "t5")),
        "bart": str(tiny.save(root / "bart", bart, tokenizer)),
        "marian": str(tiny.save(root / "marian", marian, tokenizer)),
    }


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_an_encoder_decoder_writes_and_shows_what_it_looked_at(writers, tmp_path, name):
    model, tokenizer = load_model(writers[name])
    with studio_app.opened({name: writers[name]}, tmp_path) as held:
        found = events(held.http, "write", model=name, text=TEXT, tokens=20, layer=1)
        start = found[0][1]
        tokens = [data for kind, data in found if kind == "token"]
        inputs = tokenizer(TEXT, return_tensors="pt")
        want = model.generate(**inputs, max_new_tokens=20, do_sample=False, num_beams=1)[0].tolist()
        begun = start["ids"]
        assert [*begun, *(one["id"] for one in tokens)] == want and len(tokens) > 3
        assert len(start["source"]) == inputs["input_ids"].shape[1]
        places = ["decoder.blocks.1.attn.pattern", "decoder.blocks.1.cross.pattern"]
        ids = torch.tensor([want[:-1]])
        with torch.no_grad(), model.record(*places) as seen:
            logits = model(**inputs, decoder_input_ids=ids).logits[0]
        lens = logit_lens(model, {**inputs, "decoder_input_ids": ids})
        for at, one in enumerate(tokens):
            p = logits[at].softmax(-1)
            assert one["probability"] == pytest.approx(float(p[one["id"]]), abs=1e-5)
            assert one["entropy"] == pytest.approx(float(torch.distributions.Categorical(p).entropy()), abs=1e-4)
            assert [share for *_, share in one["top"]] == pytest.approx(p.topk(10).values.tolist(), abs=1e-5)
        watched = [data for kind, data in found if kind == "watched"]
        assert [one["position"] for one in watched] == [one["position"] for one in tokens]
        for at, one in enumerate(watched):
            for part, place, keys in ((one, places[0], at + 1), (one["source"], places[1], len(start["source"]))):
                assert part["place"] == place
                shares = np.frombuffer(base64.b64decode(part["attention"]), np.uint8).reshape(part["shape"])
                assert np.abs(shares * part["scale"] - seen[place][0, :, at, :keys].numpy()).max() <= 0.5 / 255 + 1e-5
            for place, best in zip(one["places"], one["lens"], strict=True):
                state = lens.places.index(place)
                assert best[0][1] == pytest.approx(float(lens.probability[state, 0, at, 0]), abs=1e-4)
        # another token in place of the second that was written, and the text goes on from there
        other = tokens[1]["top"][2][0]
        branch = [*want[: len(begun) + 1], other]
        found = events(held.http, "write", model=name, text=TEXT, ids=branch, tokens=6, watch=False)
        more = model.generate(
            **inputs, decoder_input_ids=torch.tensor([branch]), max_new_tokens=6, do_sample=False, num_beams=1
        )[0].tolist()
        assert [*branch, *(data["id"] for kind, data in found if kind == "token")] == more
        # the reader's own words
        found = events(held.http, "write", model=name, text=TEXT, ids=branch, then="great film", tokens=2)
        put = [data["id"] for kind, data in found if kind == "token"][:2]
        assert put == tokenizer("great film", add_special_tokens=False)["input_ids"]
        for body, field in (({"text": ""}, "empty"), ({"ids": []}, "ids"), ({"layer": 9}, "layer")):
            answer = held.http.post("/studio/write", json={"model": name, "text": TEXT, **body})
            assert field in answer.text
        if name == "bart":
            answer = held.http.post("/studio/write", json={"model": name, "text": TEXT, "ids": [3] * 64})
            assert "takes 64" in answer.text


def test_a_branch_goes_on_from_its_own_tokens(studio, loaded):
    model, tokenizer = loaded["text"]
    ids = [*tokenizer(TEXT)["input_ids"], 7]
    found = events(studio.http, "write", model="text", ids=ids, tokens=5, watch=False)
    want = model.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=False)[0, len(ids) :].tolist()
    assert [data["id"] for name, data in found if name == "token"] == want
    assert not [name for name, _ in found if name == "watched"]
    sampled = {"model": "text", "ids": ids, "tokens": 6, "temperature": 2.0, "seed": 3}
    one, other = ([d["id"] for n, d in events(studio.http, "write", **sampled) if n == "token"] for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": ""}, "empty"),
        ({"ids": [10**6]}, "ids"),
        ({"text": TEXT, "layer": 9}, "layer"),
        ({"text": TEXT, "model": "labels"}, "decoder"),
    ],
)
def test_what_cannot_be_written_is_said(studio, body, field):
    answer = studio.http.post("/studio/write", json={"model": "text", **body})
    assert field in answer.text


@pytest.mark.parametrize(("name", "tower"), [("labels", ""), ("text", ""), ("t5", "encoder"), ("t5", "decoder")])
def test_a_sweep_is_an_ablation_of_every_head(studio, loaded, name, tower):
    model, tokenizer = loaded[name]
    found = events(studio.http, "sweep", model=name, text=TEXT, tower=tower)
    rows = [data["effect"] for kind, data in found if kind == "row"]
    inputs = dict(tokenizer(TEXT, return_tensors="pt"))
    if name == "t5":
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    target = Target(position=0) if name == "t5" else Target()
    prefix = f"{tower}." if tower else ""
    want = ablate(model, inputs, [f"{prefix}blocks.*.attn.head.*.out"], target)
    np.testing.assert_allclose(np.ravel(rows), want.effect.numpy(), atol=2e-4)
    assert found[0][1]["value"] == pytest.approx(want.value, abs=1e-4)


def changes_of(model, tokenizer):
    other = dict(tokenizer("a bad film .", return_tensors="pt"))

    def neuron(x):
        x[..., 5] *= 3.0
        return x

    with torch.no_grad(), model.record("blocks.0.resid") as seen:
        model(**dict(tokenizer("i believe that the eu is bad .", return_tensors="pt")))
    good, bad = (tokenizer([t], return_tensors="pt") for t in ("great film", "bad film"))
    vector = steering_vector(model, good, bad, 1)
    del other
    return [
        ([{"kind": "head", "layer": 1, "unit": 2}], {"blocks.1.attn.head.2.out": 0}),
        ([{"kind": "head", "layer": 0, "unit": 1, "scale": 2.5}], {"blocks.0.attn.head.1.out": lambda x: 2.5 * x}),
        ([{"kind": "mlp", "layer": 1}], {"blocks.1.mlp.out": 0}),
        ([{"kind": "layer", "layer": 0}], {"blocks.0.mlp.out": 0, "blocks.0.attn.out": 0}),
        ([{"kind": "neuron", "layer": 1, "unit": 5, "scale": 3.0}], {"blocks.1.mlp.act": neuron}),
        (
            [{"kind": "patch", "address": "blocks.0.resid", "text": "i believe that the eu is bad .", "position": 7}],
            {"blocks.0.resid": Edit(seen, positions=7)},
        ),
        (
            [{"kind": "steer", "layer": 1, "plus": ["great film"], "minus": ["bad film"], "scale": 1.5}],
            {"blocks.1.resid": lambda x: x + 1.5 * vector.vector},
        ),
    ]


@pytest.mark.parametrize("which", range(7))
def test_each_change_is_the_edit_that_it_says(studio, loaded, folders, which):
    model, tokenizer = loaded["labels"]
    changes, edit = changes_of(model, tokenizer)[which]
    with torch.no_grad():
        before = model(**tokenizer(TEXT, return_tensors="pt")).logits[0]
        with model.edit(edit):
            after = model(**tokenizer(TEXT, return_tensors="pt")).logits[0]
    assert (before - after).abs().max() > 1e-4
    found = studio.ask("lab", model="labels", text=TEXT, changes=changes)
    for side, want in (("before", before), ("after", after)):
        got = {a["id"]: a["logit"] for a in found[side]["answers"]}
        np.testing.assert_allclose([got[i] for i in range(3)], want.numpy(), atol=1e-4)
    kl = torch.nn.functional.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="sum")
    assert found["after"]["moved"]["kl"] == pytest.approx(float(kl), abs=1e-4)
    assert found["before"]["moved"]["kl"] == 0
    code = studio.ask("code", model="labels", text=TEXT, changes=changes, layer=1, head=1)["python"]
    held: dict[str, object] = {}
    exec(code.rpartition("save_figure(")[0], held)
    answers = {a.id: a.logit for a in held["found"].answers}
    np.testing.assert_allclose([answers[i] for i in range(3)], after.numpy(), atol=1e-4)
    run = studio.ask("run", model="labels", text=TEXT, changes=changes)["run"]
    np.testing.assert_allclose([a["logit"] for a in run["answers"]], after.numpy(), atol=1e-4)
    plain = studio.ask("run", model="labels", text=TEXT)["run"]["answers"]
    np.testing.assert_allclose([a["logit"] for a in plain], before.numpy(), atol=1e-4)  # nothing stays


def test_several_changes_of_one_place_as_python(studio, loaded):
    changes = [{"kind": "mlp", "layer": 1, "scale": 2.0}, {"kind": "mlp", "layer": 1, "scale": 0.25}]
    code = studio.ask("code", model="labels", text=TEXT, changes=changes)["python"]
    held: dict[str, object] = {}
    exec(code.rpartition("save_figure(")[0], held)
    found = studio.ask("lab", model="labels", text=TEXT, changes=changes)["after"]["answers"]
    got = {a["id"]: a["logit"] for a in found}
    np.testing.assert_allclose(
        [got[a.id] for a in held["found"].answers], [a.logit for a in held["found"].answers], atol=1e-4
    )


def test_the_picture_the_python_and_the_command_are_the_same(studio, folders, tmp_path, monkeypatch):
    asked = {"model": "labels", "text": TEXT, "layer": 1, "head": 2}
    picture = studio.http.post("/studio/export", json={**asked, "form": "png"})
    assert picture.headers["content-type"] == "image/png"
    code = studio.ask("code", **asked)
    for name, words in (("python", [sys.executable, "-c", code["python"]]), ("command", code["command"])):
        folder = tmp_path / name
        folder.mkdir()
        if isinstance(words, str):
            import shlex

            words = [sys.executable, "-m", "cutaway", *shlex.split(words)[1:]]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run(words, cwd=folder, check=True, env=environment, capture_output=True)
        made = (folder / "studio.png").read_bytes()
        from io import BytesIO

        from PIL import Image

        one, other = (np.asarray(Image.open(BytesIO(data))) for data in (picture.content, made))
        assert one.shape == other.shape, name
        assert (one != other).mean() < 0.02, name  # the model's name in the corner is the folder's there


@pytest.mark.parametrize(
    ("form", "start"), [("svg", b"<?xml"), ("html", b"<!doctype html>"), ("json", b"{"), ("safetensors", b"")]
)
def test_every_form_of_export(studio, form, start):
    answer = studio.http.post("/studio/export", json={"model": "labels", "text": TEXT, "form": form})
    assert answer.status_code == 200
    assert answer.content.startswith(start) and len(answer.content) > 1000


def test_runs_are_kept_listed_renamed_deleted(studio):
    name = studio.ask(
        "kept", action="keep", title="mine \u202e", state="model=labels&text=a", changes=[{"kind": "mlp"}]
    )["name"]
    entries = studio.http.get("/studio/kept").json()["kept"]
    assert [(e["title"], e["model"]) for e in entries if e["name"] == name] == [("mine <U+202E>", "labels")]
    studio.ask("kept", action="rename", name=name, title="other")
    found = studio.ask("kept", action="open", name=name)
    assert found["state"] == "model=labels&text=a" and found["changes"][0]["kind"] == "mlp"
    assert "other" in studio.http.get("/studio/kept").text
    studio.ask("kept", action="delete", name=name)
    assert name not in studio.http.get("/studio/kept").text
    assert studio.http.post("/studio/kept", json={"action": "open", "name": name}).status_code == 404
    assert studio.http.post("/studio/kept", json={"action": "open", "name": "../../etc/pas"}).status_code == 422


def test_only_listed_models_are_opened(studio, folders, tmp_path):
    answer = studio.http.post("/studio/run", json={"model": "/etc", "text": TEXT})
    assert (answer.status_code, answer.json()["param"]) == (404, "model")
    answer = studio.http.post("/studio/run", json={"model": folders["labels"], "text": TEXT})
    assert answer.status_code == 404


def test_models_of_a_folder_are_opened_when_they_are_asked_for(folders, tmp_path):
    from pathlib import Path

    parent = Path(folders["labels"]).parent
    with studio_app.opened({"text": folders["text"]}, tmp_path, (parent,)) as found:
        names = {m["name"]: m["open"] for m in found.http.get("/studio/start").json()["models"]}
        assert names[folders["labels"]] is False and names["text"] is True
        assert found.ask("run", model=folders["labels"], text=TEXT)["run"]["kind"] == "labels"


def test_who_may_call(studio):
    own = httpx.URL(studio.url)
    page = httpx.get(f"{studio.url}/studio")
    assert page.status_code == 200  # it holds nothing of anybody's
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert studio_app.KEY not in page.text
    for path in ("/studio/start", "/studio/kept", "/studio/tensors/a/b", "/v1/models"):
        assert httpx.get(f"{studio.url}{path}").status_code == 401
    assert httpx.post(f"{studio.url}/studio", json={}).status_code in (401, 405)
    body = {"model": "labels", "text": TEXT}
    for headers, status in (
        ({"origin": "https://evil.example"}, 403), ({"origin": "null"}, 403), ({"host": "evil.example"}, 421),
        ({"authorization": "Bearer wrong"}, 401), ({"origin": f"http://127.0.0.1:{own.port}"}, 200),
    ):  # fmt: skip
        assert studio.http.post("/studio/run", json=body, headers=headers).status_code == status, headers


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("run", {"model": "labels", "text": ""}, "text"), ("run", {"model": "labels", "text": "a", "more": 1}, "more"),
        ("run", {"model": "labels", "text": "a", "views": ["nothing"]}, "views"),
        ("lab", {"model": "labels", "text": "a", "changes": [{"kind": "nothing"}]}, "kind"),
        ("lab", {"model": "labels", "text": "a", "changes": [{"kind": "head", "layer": 99}]}, "blocks.99"),
        ("lab", {"model": "labels", "text": "a", "changes": [{"kind": "neuron", "unit": 10**6}]}, "neuron"),
        ("lab", {"model": "labels", "text": "a", "changes": [{"kind": "steer"}]}, "steer"),
        ("sweep", {"model": "vectors", "text": "a"}, "vectors"),
        ("export", {"model": "labels", "text": "a", "form": "exe"}, "form"),
        ("more", {"id": "nothing", "view": "layers"}, "held"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(studio, path, body, param):
    answer = studio.http.post(f"/studio/{path}", json=body)
    assert param in answer.text
    assert path == "sweep" or answer.status_code in (400, 410, 422)


def test_a_page_that_takes_nothing_is_counted_and_slows_nobody():
    async def run():
        feed = Feed(asyncio.get_running_loop())
        for i in range(MOST_WAITING + 30):
            feed.offer("token", {"i": i})
            feed.offer("watched", {"i": i}, optional=True)
        feed.end()
        return [piece async for piece in feed.pieces()]

    pieces = asyncio.run(run())
    assert sum("event: token" in piece for piece in pieces) == MOST_WAITING + 30
    kept = sum("event: watched" in piece for piece in pieces)
    assert kept < MOST_WAITING
    assert json.loads(pieces[-1].split("data: ")[1])["dropped"] == MOST_WAITING + 30 - kept


def test_an_event_tells_of_a_list_as_it_was_when_it_was_offered():
    async def run():
        feed, ids = Feed(asyncio.get_running_loop()), [1, 2]
        feed.offer("start", {"ids": ids})
        ids.append(3)  # the work goes on before the page has read
        feed.end()
        return [piece async for piece in feed.pieces()]

    assert json.loads(asyncio.run(run())[0].split("data: ")[1]) == {"ids": [1, 2]}


def test_work_ends_when_its_page_is_gone():
    async def run():
        feed, steps, done = Feed(asyncio.get_running_loop()), Steps(), []

        def work():
            for i in range(100):
                done.append(i)
                feed.offer("row", {"i": i})
                yield

        steps.start(feed, work())
        steps.turn()
        pieces = feed.pieces()
        await anext(pieces)
        await pieces.aclose()
        while steps.turn():
            pass
        return done

    assert asyncio.run(run()) == [0]


def test_the_command_names_an_address_with_its_key(tmp_path):
    words = [sys.executable, "-m", "cutaway", "studio", "--no-browser", "--kept", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        line = process.stdout.readline()
        address, key = re.fullmatch(r"The studio: (http://127\.0\.0\.1:\d+)/studio#key=(\S{20,})\n", line).groups()
        assert httpx.get(f"{address}/studio/start").status_code == 401
        found = httpx.get(f"{address}/studio/start", headers={"authorization": f"Bearer {key}"}).json()
        assert "cutaway/sentiment" in [model["name"] for model in found["models"]]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()


def test_the_version_is_the_library_s(studio):
    assert studio.http.get("/studio/start").json()["version"] == cutaway.__version__


def test_a_reader_s_own_words_come_before_the_model_s(studio, loaded):
    """Each with the share that the model gave it; then the model goes on as if they had stood in the text."""
    model, tokenizer = loaded["text"]
    ids = tokenizer(TEXT)["input_ids"]
    words = tokenizer(" great eu", add_special_tokens=False)["input_ids"]
    told = events(studio.http, "write", model="text", ids=ids, then=" great eu", tokens=5, layer=1)
    found = [data for name, data in told if name == "token"]
    assert [one["id"] for one in found[: len(words)]] == words
    with torch.no_grad():
        p = model(input_ids=torch.tensor([[*ids, *words]])).logits[0].softmax(-1)
    wanted = [float(p[len(ids) - 1 + i, id]) for i, id in enumerate(words)]
    assert [one["probability"] for one in found[: len(words)]] == pytest.approx(wanted, abs=1e-5)
    assert [one["position"] for one in found] == list(range(len(ids), len(ids) + len(found)))
    more = model.generate(torch.tensor([[*ids, *words]]), max_new_tokens=5, do_sample=False)[0].tolist()
    assert [*ids, *(one["id"] for one in found)] == more
    watched = [data["position"] for name, data in told if name == "watched"]
    assert watched == [one["position"] for one in found]

"""attend, lens, attribute, patch and compare: JSON, files, terminal, errors; on an encoder, a decoder and T5."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny

from cutaway import cli
from cutaway.inspect.explainer import load_model
from cutaway.inspect.trace.trace import Trace

TEXT = "I believe that the EU is trustworthy."
OTHER = "I believe that the EU is trustworthy!"
GOOD = "I believe that the EU is a good one."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.of_each_kind(tmp_path_factory.mktemp("models"))


@pytest.fixture
def run(monkeypatch, capsys, models):
    def command(name, *arguments, model="encoder"):
        monkeypatch.setattr(sys, "argv", ["cutaway", name, *map(str, arguments), "-m", models[model]])
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return ended.value.code or 0, out.out, out.err

    return command


def found(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("model", ["encoder", "decoder", "t5"])
def test_attend(run, tmp_path, model):
    side = ["--attention", "encoder"] if model == "t5" else []
    path = tmp_path / "a.npz"
    it = found(run("attend", TEXT, "--view", "rollout", "--json", "-o", path, *side, model=model))
    n = len(it["columns"])
    assert np.allclose(np.sum(it["matrix"], 1), 1, atol=1e-5) and np.allclose(np.sum(it["rollout"], 1), 1, atol=1e-5)
    assert it["certificate"]["error"] < 1e-4
    with np.load(path) as held:
        assert held["pattern"].shape[-2:] == (n, n) and held["rollout"].shape[1:] == (n, n)


@pytest.mark.parametrize("view", ["matrix", "lines", "atlas", "rollout"])
def test_attend_draws(run, tmp_path, view):
    path = tmp_path / "a.png"
    code, out, err = run("attend", TEXT, "--layer", 1, "--head", 0, "--view", view, "-o", path, "--dark")
    assert code == 0 and "layer 1, head 0" in out, err
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("model", ["decoder", "mask", "t5"])
def test_lens(run, tmp_path, model):
    it = found(run("lens", TEXT, "--json", model=model))
    assert np.abs(it["kl"][-1]).max() < 1e-4 and it["places"][-1].endswith(".resid")
    path = tmp_path / "l.svg"
    code, out, _ = run("lens", TEXT, "-o", path, "--last", 2, model=model)
    assert code == 0 and "embed" in out and path.stat().st_size > 1000


def test_states(run, tmp_path):
    path = tmp_path / "s.png"
    assert run("lens", TEXT, "--view", "states", "-o", path)[0] == 0 and path.exists()
    assert len(found(run("lens", TEXT, "--view", "states", "--json"))["points"]) > 1


@pytest.mark.parametrize("model", ["encoder", "decoder", "t5"])
def test_attribute(run, tmp_path, model):
    path = tmp_path / "a.png"
    code, out, err = run("attribute", TEXT, "--method", "integrated", "--method", "shapley", "-o", path, model=model)
    assert code == 0 and "residual" in out and path.exists(), err
    it = found(run("attribute", TEXT, "--method", "occlusion", "--json", model=model))
    assert len(it["attributions"][0]["scores"]) == len(it["tokens"])


def test_direct(run, tmp_path):
    path = tmp_path / "w.pdf"
    code, out, err = run("attribute", TEXT, "--method", "direct", "-o", path, model="decoder")
    assert code == 0 and "parts sum to" in out and path.exists(), err
    it = found(run("attribute", TEXT, "--method", "direct", "--json", model="decoder"))
    assert sum(it["values"]) == pytest.approx(it["logit"], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("model", ["encoder", "decoder", "t5"])
def test_patch_and_compare(run, tmp_path, model):
    prefix = "encoder." if model == "t5" else ""
    target = ["--target", "#1", "--against", "#0"]
    it = found(run("patch", TEXT, OTHER, *target, "--json", model=model))
    assert it["places"][0] == f"{prefix}blocks.0.resid" and len(it["effect"][0]) == len(it["tokens"])
    files = ["-o", tmp_path / "p.png", "-o", tmp_path / "p.npz"]
    code, out, err = run("patch", TEXT, OTHER, *target, *files, model=model)
    assert code == 0 and "at most" in out and (tmp_path / "p.png").exists(), err
    code, out, err = run("compare", TEXT, OTHER, "-o", tmp_path / "c.png", model=model)
    said = "no state differs" if model == "decoder" else "the first state that differs is"  # only the last token does
    assert code == 0 and f"are aligned; {said}" in out, err
    assert found(run("compare", TEXT, TEXT, "--json", model=model))["first"] is None


def test_compare_marks_the_compared_words_in_both_texts(run, tmp_path):
    texts = ("a good film and not bad", "a very great film and not bad")
    it = found(run("compare", *texts, "--json", model="encoder"))
    assert it["apart"] == [[2], [2, 3]]  # good; very great
    code, out, err = run("compare", *texts, "-o", tmp_path / "c.html", model="encoder")
    assert (code, err) == (0, "")
    first, second = out.splitlines()[:2]
    assert [word for word in first.split() if word.startswith("*")] == ["*good*"]
    assert [word for word in second.split() if word.startswith("*")] == ["*very*", "*great*"]
    page = (tmp_path / "c.html").read_text()
    assert page.count("the words that only one of them has") == 1 and "very" in page and "great" in page
    assert "*" not in run("compare", texts[0], texts[0], model="encoder")[1]


def test_compare_says_what_is_answered(run):
    it = found(run("compare", TEXT, OTHER, "--json", model="encoder"))
    assert {run["answer"] for run in it["said"][0]["runs"]} <= {"NEGATIVE", "POSITIVE"} and len(it["said"]) == 1
    code, out, err = run("compare", TEXT, "I believe that the EU is great!", model="decoder")
    assert code == 0 and "likeliest answer" in out, err
    it = found(run("compare", TEXT, "We believe that the EU is great!", "--json", model="decoder"))
    assert len(it["said"]) == len(it["aligned"]) == len(it["kl"])
    parted = [i for i, line in enumerate(it["said"]) if not line["same"]]
    assert it["turn"] == (parted[0] if parted else None)
    best = [line["runs"][0] for line in it["said"]]
    assert all(one["probability"] >= one["others"][0][1] for one in best)
    assert found(run("compare", TEXT, TEXT + " It is.", "--json", model="base"))["said"] == []


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (["attend", TEXT], "encoder"),
        (["lens", TEXT], "decoder"),
        (["lens", TEXT, "--view", "states"], "encoder"),
        (["attribute", TEXT, "--method", "gradient", "--method", "occlusion"], "encoder"),
        (["attribute", TEXT, "--method", "direct"], "decoder"),
        (["patch", TEXT, OTHER, "--target", "#1", "--against", "#0"], "encoder"),
        (["compare", TEXT, OTHER], "t5"),
    ],
)
def test_a_page_and_arrays_of_every_command(run, tmp_path, arguments, model):
    code, _, err = run(*arguments, "-o", tmp_path / "a.html", "-o", tmp_path / "a.npz", model=model)
    assert code == 0, err
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "default-src 'none'" in page and "<script" not in page and "data:image/svg+xml;base64," in page
    assert page.count("<table") >= 1 and "believe" in page
    with np.load(tmp_path / "a.npz") as held:
        assert all(held[name].size for name in held)


def test_explain_saves_a_trace_and_draws_from_it(run, tmp_path):
    trace, npz = tmp_path / "run.trace.safetensors", tmp_path / "run.npz"
    first = found(run("explain", TEXT, "--json", "-o", trace, "-o", npz, "--layer", 1, "--head", 1))
    files = [tmp_path / name for name in ("page.html", "picture.png", "again.safetensors")]
    code, out, err = run("explain", trace, *(part for path in files for part in ("-o", path)), model="base")
    assert code == 0 and "layer 1, head 1" in out and all(path.stat().st_size > 1000 for path in files), err
    again = found(run("explain", trace, "--json", model="base"))
    assert {**again, "attention": 0} == {**first, "attention": 0}
    other = found(run("attend", trace, "--layer", 0, "--head", 2, "--json", model="base"))
    assert other["head"] == 2 and other["model"] == first["model"]["name"]
    trace.write_bytes(trace.read_bytes()[:-1])
    code, out, err = run("explain", trace)
    assert code == 1 and not out and "run.trace.safetensors" in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def traces(models, tmp_path_factory):
    """A trace of the text and one of another, of each kind of model."""
    folder = tmp_path_factory.mktemp("traces")
    found = {}
    for kind in ("encoder", "decoder", "t5", "base"):
        model, tokenizer = load_model(models[kind])
        for name, text in (("a", TEXT), ("b", GOOD)):
            found[kind, name] = folder / f"{kind}-{name}.safetensors"
            Trace.of(model, tokenizer, text, max_new_tokens=2).save(found[kind, name])
    Trace.of(*load_model(models["encoder"]), TEXT, evidence=False).save(folder / "bare.safetensors")
    whole = Trace.of(*load_model(models["base"]), TEXT)
    assert whole.explanation.evidence is not None
    less = replace(whole.explanation.evidence, attributions=[])
    replace(whole, explanation=replace(whole.explanation, evidence=less)).save(folder / "less.safetensors")
    return {**found, "bare": folder / "bare.safetensors", "less": folder / "less.safetensors"}


@pytest.mark.parametrize(
    ("name", "kind", "options", "others"),
    [
        ("lens", "decoder", ["--last", 3], []),
        ("lens", "t5", [], []),
        ("lens", "encoder", ["--view", "states"], []),
        ("lens", "t5", ["--view", "states"], []),
        ("attribute", "encoder", ["--method", "integrated", "--method", "occlusion"], []),
        ("attribute", "decoder", ["--method", "gradient"], []),
        ("attribute", "decoder", ["--method", "direct"], []),
        ("attribute", "base", [], []),
        ("compare", "encoder", [], ["b"]),
        ("compare", "decoder", [], ["b"]),
        ("compare", "t5", [], ["b"]),
        ("compare", "base", [], ["b"]),
    ],
)
def test_commands_draw_from_traces(run, traces, tmp_path, name, kind, options, others):
    given = [traces[kind, "a"], *(traces[kind, other] for other in others), *options]
    files = [tmp_path / f"a{ending}" for ending in (".png", ".svg", ".html", ".npz", ".json")]
    code, out, err = run(name, *given, *(part for path in files for part in ("-o", path)), model="base")
    assert code == 0 and "Wrote" in out and all(path.stat().st_size > 150 for path in files), err
    assert "believe" in files[2].read_text("utf-8") or kind == "t5"
    assert found(run(name, *given, "--json", model="base")) == json.loads(files[4].read_text("utf-8"))


def test_a_trace_says_what_the_model_said(run, traces):
    gradient = ["--method", "gradient", "--json"]
    live, kept = (found(run("attribute", given, *gradient)) for given in (TEXT, traces["encoder", "a"]))
    again = found(run("attribute", traces["encoder", "a"], "--method", "shapley", "--json"))["attributions"][0]
    assert again["method"] == "Shapley" and len(again["scores"]) == len(kept["tokens"]) and again["residual"] < 1e-4
    assert live.keys() == kept.keys() and all(kept[name] == live[name] for name in ("text", "answer", "tokens"))
    mine, theirs = (it["attributions"][0] for it in (live, kept))
    assert np.allclose(mine["scores"], theirs["scores"], atol=1e-5) and mine["target"] == theirs["target"]
    live, kept = (found(run("lens", given, "--json", model="decoder")) for given in (TEXT, traces["decoder", "a"]))
    n = len(live["input"])
    assert kept["input"][:n] == live["input"] and len(kept["input"]) == n + 2 and kept["places"] == live["places"]
    assert [[best[:3] for best in line] for line in live["tokens"]] == [line[:n] for line in kept["tokens"]]
    direct = ["--method", "direct", "--json"]
    live, kept = (found(run("attribute", given, *direct, model="decoder")) for given in (TEXT, traces["decoder", "a"]))
    assert all(kept[name] == live[name] for name in ("answer", "index", "position", "names"))
    assert np.allclose(live["values"], kept["values"], atol=1e-5)


def test_two_traces_compare_as_their_texts(run, traces):
    for kind in ("encoder", "decoder"):
        live = found(run("compare", TEXT, GOOD, "--json", model=kind))
        kept = found(run("compare", traces[kind, "a"], traces[kind, "b"], "--json", model="base"))
        n = len(live["aligned"])
        assert kept["aligned"][:n] == live["aligned"] and kept["first"] is not None
        both = [place for place in kept["places"] if place in live["places"]]  # a decoder's last state is normed
        mine, theirs = ([it["distance"][it["places"].index(p)][:n] for p in both] for it in (live, kept))
        assert len(both) > 1 and np.allclose(mine, theirs, atol=1e-4)
        for one, two in zip(live["said"][0]["runs"], kept["said"][0]["runs"], strict=True):
            assert one["answer"] == two["answer"] and one["probability"] == pytest.approx(two["probability"], abs=1e-5)
        assert (kept["kl"] is None) == (kind == "decoder")
    same = found(run("compare", traces["encoder", "a"], traces["encoder", "a"], "--json"))
    assert same["first"] is None and same["kl"] == [0.0]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("patch", ["encoder", "encoder"], "patch has to run the model"),
        ("compare", ["encoder", OTHER], "compared with another one"),
        ("compare", ["encoder", "t5"], "no state in common"),
        ("compare", ["encoder", "decoder"], "vocabularies"),
        ("lens", ["encoder"], "holds no lens"),
        ("lens", ["bare"], "without evidence"),
        ("attribute", ["bare"], "without evidence"),
        ("attribute", ["less"], "holds no integrated gradients"),
        ("attribute", ["less", "--method", "shapley"], "holds no Shapley"),
        ("attribute", ["encoder", "--target", "POSITIVE"], "--target asks for another answer"),
        ("attribute", ["t5", "--method", "direct", "--position", "1"], "--position asks"),
    ],
)
def test_what_a_trace_does_not_hold_is_one_clear_line(run, traces, name, given, message):
    kept = {kind: traces[kind, "a"] for kind in ("encoder", "decoder", "t5", "base")}
    code, out, err = run(
        name,
        *({**kept, "bare": traces["bare"], "less": traces["less"]}.get(part, part) for part in given),
        model="decoder",
    )
    assert code == 1 and not out and message in err and err.count("\n") == 1


def test_compare_two_models(run, models):
    it = found(run("compare", TEXT, "--against", models["mask"], "--json"))
    assert it["first"] is not None and it["aligned"]


@pytest.mark.parametrize(
    ("arguments", "model", "message"),
    [
        (["attend", TEXT, "--layer", "99"], "encoder", "layer=99 is not there"),
        (["attend", TEXT, "--head", "99"], "encoder", "head=99 is not there"),
        (["attend", TEXT, "--view", "rollout"], "t5", "--attention encoder or decoder"),
        (["attend", " "], "encoder", "text is empty"),
        (["lens", TEXT], "encoder", "needs a language model"),
        (["attribute", TEXT, "--target", "POSITIV"], "encoder", "the labels are NEGATIVE, POSITIVE"),
        (["attribute", TEXT, "--target", "#9999999"], "decoder", "must lie in"),
        (["attribute", TEXT], "base", "no answer"),
        (["attribute", TEXT], "mask", "has no [MASK]"),
        (["patch", TEXT, "I"], "encoder", "same length"),
        (["patch", TEXT, OTHER, "--place", "blocks.99.resid"], "encoder", "blocks.99.resid"),
    ],
)
def test_wrong_requests_are_one_clear_line(run, arguments, model, message):
    code, out, err = run(*arguments, model=model)
    assert code == 1 and not out and message in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-o", "a.gif"], ["-o", "/no/such/folder/a.png"]])
def test_files_are_checked_before_a_model_is_loaded(run, arguments):
    code, _, err = run("attend", TEXT, *arguments)
    assert code == 2 and arguments[1].rsplit("/", 1)[-1] in err
    assert run("attribute", TEXT, "--method", "direct", "--method", "occlusion")[0] == 2
    assert run("compare", TEXT)[0] == 2

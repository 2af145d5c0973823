"""`cutaway chat`: lines in, answers out, from a model of this process or of a running server."""

from __future__ import annotations

import io
import json

import pytest
import serve_app

from cutaway import AutoModelForCausalLM, AutoTokenizer
from cutaway.serve.service import Service


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serve_app.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def url(folder):
    with serve_app.serving(Service({"tiny": str(folder)})) as url:
        yield url


@pytest.fixture
def talk(call, monkeypatch):
    """`cutaway chat` with these lines on stdin."""

    def run(*arguments, lines):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return call("chat", *arguments, "--temperature", "0", "--max-new-tokens", "6")

    return run


def expected(folder, messages):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    new = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True)


def where(kind, folder, request):
    return [str(folder)] if kind == "local" else ["tiny", "--server", request.getfixturevalue("url")]


@pytest.mark.parametrize("kind", ["local", "server"])
def test_a_conversation_is_kept_explained_saved_and_reopened(talk, folder, tmp_path, request, kind):
    kept, notes = tmp_path / "kept.json", tmp_path / "notes.txt"
    notes.write_text("the notes")
    place = where(kind, folder, request)
    code, out, err = talk(
        *place, "--system", "be kind", lines=["hello", "/explain", f"/file {notes}", "and \\", "more", f"/save {kept}"]
    )
    assert code == 0, err
    messages = json.loads(kept.read_text())["messages"]
    assert [one["role"] for one in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[3]["content"] == "File notes.txt:\nthe notes\n\nand \nmore"
    for place_ in (2, 4):
        assert messages[place_]["content"] == expected(folder, messages[:place_])
    assert "probability" in out and "%" in out
    code, out, _ = talk(*place, "--resume", str(kept), lines=["/retry", "/system", f"/save {kept}", "/quit", "never"])
    again = json.loads(kept.read_text())["messages"]
    assert code == 0 and again == messages[1:]


def test_what_goes_wrong_is_said_and_the_conversation_goes_on(talk, folder, tmp_path, url):
    lines = ["/explain", "/file nowhere", "/nope", "/save", "/retry", "hi", f"/open {folder / 'config.json'}"]
    code, out, _ = talk(str(folder), lines=lines)
    said = [line for line in out.splitlines() if line.startswith("! ")]
    assert code == 0 and len(said) == 6
    for line, word in zip(said, ["no answer", "nowhere", "Did you mean", "path", "no message", "/save"], strict=True):
        assert word in line
    code, out, _ = talk("nope", "--server", url, lines=["hi"])
    assert code == 0 and "404" in out and "nope" in out
    code, out, _ = talk("--server", "http://127.0.0.1:9", lines=["hi"])
    assert code == 0 and "cannot be reached" in out


def test_what_is_no_chat_model_is_said(talk, tmp_path):
    code, _, err = talk(str(serve_app.tiny.decoder(tmp_path)), lines=["hi"])
    assert code == 1 and "chat template" in err
    code, _, err = talk("cutaway/sentiment", lines=["hi"])
    assert code == 1 and "writes no answers" in err

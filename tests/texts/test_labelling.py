"""Labelling: nothing is lost, the most uncertain comes first, and the page in a real browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import browser
import pytest
import tiny
import uvicorn

from cutaway.errors import InputError, OutputError
from cutaway.jobs import TableReader
from cutaway.texts import read_texts
from cutaway.texts.label_server import label_app
from cutaway.texts.labelling import Journal, Labelling, Proposal

TEXTS = ["a good film", "a bad film", "so so", "<img src=x onerror=alert(1)>"]
LABELS = ["good", "bad"]


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "films.labels.jsonl") as made:
        yield made


def labelling(journal, texts=TEXTS, **more):
    return Labelling(read_texts(texts), LABELS, journal, **more)


def test_answers_are_there_again_whatever_the_rows_order(tmp_path):
    path = tmp_path / "a.jsonl"
    with Journal(path) as first:
        one = labelling(first, by="ann")
        one.answer(0, "good")
        one.answer(1, "good")
        one.answer(1, "bad")  # corrected
        one.answer(2, None)
    assert [json.loads(line)["by"] for line in path.read_text().splitlines()] == ["ann"] * 4
    with Journal(path) as again:
        two = labelling(again, ["new", *reversed(TEXTS)])
        assert two.labels_by_row() == {1: None, 2: None, 3: None, 4: "bad", 5: "good"}
        assert two.progress() == {"labelled": 2, "skipped": 1, "scored": 0, "texts": 5}


def test_what_a_kill_left_half_written_is_cut_off(tmp_path):
    path = tmp_path / "a.jsonl"
    with Journal(path) as first:
        labelling(first).answer(0, "good")
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        with Journal(path) as again:
            assert list(again.answers.values()) == ["good"]
        assert path.read_bytes() == (whole if cut < len(whole) - 1 else whole * 2)
    path.write_bytes(whole)
    with Journal(path) as again:
        labelling(again).answer(1, "bad")
    assert path.read_bytes().startswith(whole) and len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "content", ['{"text": "x"}\n', '{"text": "x"}', '{"enum": ["a"]}', "a text", '{"text": "hello', "{x"]
)
def test_a_file_of_something_else_is_not_touched(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="line 1"):
        Journal(path)
    assert path.read_text() == content
    path.unlink()
    with Journal(path):  # and the lock was let go
        pass


def test_one_process_at_a_time(journal):
    with pytest.raises(OutputError, match="is being written"):
        Journal(journal.path)


def test_a_full_disk_keeps_what_was_there(journal, monkeypatch):
    one = labelling(journal)
    one.answer(0, "good")
    before = journal.path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="This answer is not kept"):
            one.answer(1, "bad")
    assert journal.path.read_bytes() == before
    assert one.label_of(1) is None
    one.answer(1, "bad")
    assert len(journal.path.read_bytes().splitlines()) == 2


def test_the_least_sure_comes_first_then_what_is_not_scored_then_what_was_skipped(journal):
    one = labelling(journal)
    assert one.next() == 0
    one.proposals = {
        1: Proposal("good", {"good": 0.9, "bad": 0.1}),
        3: Proposal("bad", {"good": 0.45, "bad": 0.55}),
    }
    order = []
    while (place := one.next(order[-1] if order else None)) is not None and len(order) < 5:
        one.answer(place, None if place == 3 else "good")
        order.append(place)
    assert order == [3, 1, 0, 2, 3]
    assert one.agreement() == (1, 1)


def test_labels_of_the_table_stay_unless_they_are_corrected(journal):
    one = labelling(journal, given={1: "good", 2: "good"})
    one.answer(1, "bad")
    assert one.labels_by_row() == {1: "good", 2: "bad", 3: None, 4: None}


def test_mistakes(journal):
    with pytest.raises(InputError, match="2 to 100"):
        Labelling(read_texts(TEXTS), ["one"], journal)
    one = labelling(journal)
    with pytest.raises(InputError, match="none of good, bad"):
        one.answer(0, "goood")
    with pytest.raises(InputError, match="no text 9"):
        one.answer(9, "good")
    assert journal.path.read_bytes() == b""


@pytest.fixture
def served(journal):
    """(address, labelling), with proposals."""
    one = labelling(journal)
    one.proposals = {i: Proposal("good", {"good": 0.6 + i / 10, "bad": 0.4 - i / 10}) for i in range(4)}
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        label_app(one, "Labels of <films>", model=True), log_level="error", lifespan="off", ws="none", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", one
    server.should_exit = True
    thread.join(10)
    listener.close()


def ask(address, path, body=None, **headers):
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    names = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    request = urllib.request.Request(address + path, data=data, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_the_server_keeps_answers_and_refuses_strangers(served):
    address, one = served
    status, page, headers = ask(address, "/")
    assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
    assert b"&lt;films&gt;" in page and b"unsafe" not in page
    assert json.loads(ask(address, "/item")[1])["item"]["place"] == 0
    status, told, _ = ask(address, "/answer", {"place": 0, "label": "bad"})
    assert (status, json.loads(told)["item"]["place"], one.label_of(0)) == (200, 1, "bad")
    for refused, code in (
        (ask(address, "/item", Host="evil.example"), 421),
        (ask(address, "/answer", {"place": 1, "label": "bad"}, Origin="http://evil.example"), 403),
        (ask(address, "/answer", {"place": 1, "label": "bad"}, Origin="null"), 403),
        (ask(address, "/answer", b"place=1&label=bad", content_type="text/plain"), 415),
        (ask(address, "/answer", {"place": 1, "label": "other"}), 400),
        (ask(address, "/answer", {"place": 99, "label": "bad"}), 400),
        (ask(address, "/answer", {"place": True, "label": "bad"}), 400),
        (ask(address, "/answer", b"{"), 400),
        (ask(address, "/answer", b" " * 70_000), 413),
        (ask(address, "/item?place=-1"), 400),
        (ask(address, "/item?plce=1"), 400),
        (ask(address, "/item?place=1&place=2"), 400),
        (ask(address, f"/item?place={'9' * 5000}"), 400),
        (ask(address, "/etc/passwd"), 404),
    ):
        assert refused[0] == code, refused
    assert len(one.journal.path.read_bytes().splitlines()) == 1


@pytest.mark.skipif(browser.CHROMIUM is None and not browser.REQUIRED, reason=browser.MISSING)
def test_the_page_by_keys_and_by_hand(served, tmp_path):
    address, one = served
    page = browser.Page(address + "/", tmp_path / "profile", size="390,800")
    try:

        def shown():
            return page.value("document.getElementById('text').textContent")

        def until(expression):
            end = time.monotonic() + 20
            while not page.value(expression):
                assert time.monotonic() < end, (expression, page.errors, page.value("document.body.innerText"))
                time.sleep(0.02)

        def press(key):
            before = page.value("document.getElementById('progress').textContent + document.body.innerText")
            page.send(
                "Input.dispatchKeyEvent", session=True, type="keyDown", key=key, text=key if len(key) == 1 else ""
            )
            page.send("Input.dispatchKeyEvent", session=True, type="keyUp", key=key)
            until(f"document.getElementById('progress').textContent + document.body.innerText !== {json.dumps(before)}")

        assert shown() == TEXTS[0]
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        assert page.value("document.querySelector('.proposed').textContent").startswith("1 good")
        press("2")
        assert (one.label_of(0), shown()) == ("bad", TEXTS[1])
        press("Enter")
        assert (one.label_of(1), shown()) == ("good", TEXTS[2])
        press("s")
        assert (one.label_of(2), shown()) == (None, TEXTS[3])
        assert page.value("document.querySelectorAll('#text img').length") == 0  # a text is data
        press("ArrowLeft")
        assert shown() == TEXTS[2]
        page.value("document.querySelectorAll('#labels button')[1].click()")
        until("document.getElementById('text').textContent.startsWith('<img')")
        assert one.label_of(2) == "bad"
        press("1")
        until("!document.getElementById('done').hidden")
        assert one.progress()["labelled"] == 4
        assert "right on 2 of 4" in page.value("document.getElementById('progress').textContent")
        assert [url for url in page.requests if not url.startswith((address, "data:"))] == []
        assert page.errors == []
    finally:
        page.close()
    assert [json.loads(line)["label"] for line in one.journal.path.read_text().splitlines()] == [
        "bad", "good", None, "bad", "good",
    ]  # fmt: skip


def test_the_command_with_a_model_from_start_to_table(tmp_path):
    model = tiny.classifier(tmp_path / "model", 2, id2label={0: "bad", 1: "good"})
    table = tmp_path / "films.csv"
    table.write_text("id,text\n1,a good film\n2,\n3,a bad film\n")
    words = [sys.executable, "-m", "cutaway", "label", str(table), "-m", str(model), "--by", "ann"]
    command = [*words, "-o", str(tmp_path / "out.csv")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[0]
        end = time.monotonic() + 60
        while (told := json.loads(ask(address, "/item")[1]))["progress"]["scored"] < 2:
            assert not told["failure"] and time.monotonic() < end, told
            time.sleep(0.1)
        assert sum(told["item"]["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert ask(address, "/answer", {"place": 1, "label": "bad"})[0] == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "1 of 2 texts have a label" in err and "Traceback" not in err
    rows = [row.values for row in TableReader(tmp_path / "out.csv").rows()]
    assert [row["label"] for row in rows] == ["", "", "bad"]
    done = subprocess.run([*words, "--no-page", "-o", str(tmp_path / "again.csv")], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "out.csv").read_text()


def test_the_page_can_be_opened_at_a_port(call, tmp_path, monkeypatch):
    from cutaway.commands import label
    from cutaway.texts import label_server

    (tmp_path / "a.txt").write_text("a good film\n")
    seen = []
    monkeypatch.setattr(label.webbrowser, "open", seen.append)
    monkeypatch.setattr(label_server, "run", lambda app, listener: seen.append(listener.getsockname()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["label", str(tmp_path / "a.txt"), "--label", "x", "--label", "y", "--port", str(port), "--open"]
    code, out, err = call(*words)
    assert code == 0, err
    assert seen == [f"http://127.0.0.1:{port}", ("127.0.0.1", port)] and out.startswith(seen[0])

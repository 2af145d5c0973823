"""Models, tokenizers and trainings go to the hub: a small server on this machine that answers as the hub does."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from tiny import wordpiece
from training_samples import arguments, model, rows

import cutaway
from cutaway.errors import ConfigError, HubError

NAME = "BertForSequenceClassification"


class Hub(ThreadingHTTPServer):
    """Repositories by name; what was committed to a branch: {path: bytes}.

    Attributes:
        broken: whether commits fail. tokens: what requests were authorized by.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, Any] = {}
        self.messages: list[str] = []
        self.tokens: set[str | None] = set()
        self.broken = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.tokens.add(self.headers.get("Authorization"))
        parts = self.path.split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in hub.private:
                self.answer({"error": "exists", "url": f"{hub.address}/{name}"}, 409)
                return
            hub.private[name] = asked.get("visibility")
            self.answer({"url": f"{hub.address}/{name}", "name": name})
        elif "preupload" in parts:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "commit" in parts:
            if hub.broken:
                self.answer({"error": "the disk is full"}, 400)
                return
            held = hub.files.setdefault("/".join([*parts[3:5], *parts[6:]]), {})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    held[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "header":
                    hub.messages.append(value["summary"])
            self.answer({"commitUrl": f"{hub.address}/{parts[3]}/{parts[4]}/commit/1", "commitOid": "1" * 40})
        else:  # a branch, the check of a card
            self.answer({})

    def do_GET(self) -> None:
        self.answer({"id": "me/x", "sha": "1" * 40, "siblings": []})

    def answer(self, said: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def loaded(files: dict[str, bytes], folder: Path) -> Any:
    """What was uploaded, as a model."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return cutaway.AutoModelForSequenceClassification.from_pretrained(folder)


def test_a_model_a_tokenizer_and_a_config(hub: Hub, tmp_path: Path) -> None:
    ours = model(NAME)
    wordpiece().save_pretrained(tmp_path / "tokenizer")
    tokenizer = cutaway.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    said = ours.push_to_hub("me/small", private=True, token="hf_secret", commit_message="First", max_shard_size="1GB")
    assert said.oid == "1" * 40
    tokenizer.push_to_hub("small", token="hf_secret")
    ours.config.push_to_hub("me/small", token="hf_secret", revision="other")
    assert hub.private == {"me/small": "private"} and hub.tokens == {"Bearer hf_secret"}
    assert hub.messages[0] == "First"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(hub.files["me/small/main"])
    assert set(hub.files["me/small/other"]) == {"config.json"}
    again = loaded(hub.files["me/small/main"], tmp_path / "again")
    assert all(bool((a == b).all()) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


def test_a_training_goes_up_save_by_save_and_at_the_end(hub: Hub, tmp_path: Path) -> None:
    args = arguments(
        tmp_path / "run", max_steps=4, save_strategy="steps", save_steps=2, push_to_hub=True, hub_token="hf_secret",
        hub_private_repo=True,
    )  # fmt: skip
    trainer = cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME))
    trainer.train()
    assert hub.private == {"me/run": "private"} and hub.tokens == {"Bearer hf_secret"}
    assert hub.messages == [f"Training in progress, step {step}" for step in (2, 4)]
    assert set(hub.files["me/run/main"]) == {"model.safetensors", "config.json"}
    with pytest.raises(ConfigError, match="blocking"):
        trainer.push_to_hub("Done", False)  # type: ignore[arg-type]
    trainer.push_to_hub(commit_message="Done", tags=["reviews"])
    assert hub.messages[-1] == "Done"
    files = hub.files["me/run/main"]
    assert b'tags: ["reviews"]' in files["README.md"] and not any("checkpoint" in name for name in files)
    end = loaded({k: v for k, v in files.items() if k != "README.md"}, tmp_path / "end")
    assert all(bool((a == b).all()) for a, b in zip(end.parameters(), trainer.model.parameters(), strict=True))
    every = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert every and not any(b"hf_secret" in path.read_bytes() for path in every)
    assert not any(b"hf_secret" in content for content in files.values())


def test_a_hub_that_fails_stops_no_training(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments(
        tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=1, push_to_hub=True, hub_model_id="us/it"
    )
    trainer = cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME))
    hub.broken = True
    with caplog.at_level(logging.WARNING, "cutaway"):
        assert trainer.train().global_step == 2
    assert "step 1 is not on the hub" in caplog.text and "the disk is full" in caplog.text
    with pytest.raises(HubError, match=r"us/it.*the disk is full"):
        trainer.push_to_hub()


def test_what_cannot_be_uploaded_is_known_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments(tmp_path / "run", push_to_hub=True, hub_strategy="end", max_steps=1)
    trainer = cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME))
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        trainer.train()
    assert trainer.state.global_step == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="hf upload"):
        model(NAME).push_to_hub("me/small")
    with pytest.raises(ConfigError, match="every_save"):
        arguments(tmp_path, hub_strategy="checkpoint")

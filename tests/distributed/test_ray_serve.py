"""The app behind Ray Serve: two replicas answer as the pipeline does, and as the server does alone."""

from __future__ import annotations

import json
import socket
from importlib.util import find_spec

import httpx
import pytest
import serve_app

from cutaway import pipeline
from cutaway.distributed import cluster, deployment
from cutaway.errors import InputError
from cutaway.serve.service import Service

# not by importing it: what keeps Ray on this machine is read when it is imported, and `cluster` says it before
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is a large extra")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.filterwarnings("ignore")  # Ray's own, at its start and end
def test_two_replicas_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = {"mood": "cutaway/sentiment", "text": str(serve_app.llama(tmp_path / "text"))}
    texts = ["A wonderful film.", "A dull film."]
    chat = {"model": "text", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "temperature": 0}
    with serve_app.serving(Service(models)) as url, httpx.Client(base_url=url, timeout=60) as client:
        labels = [client.post("/predict", json={"inputs": text}).json() for text in texts]
        said = client.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
    with cluster(workers=3):
        from ray import serve

        with pytest.raises(InputError, match="replicas run elsewhere"):
            deployment({"mood": pipeline("text-classification", "cutaway/sentiment")})
        port = free_port()
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(deployment(models, replicas=2, cpus=0.5))
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                for _ in range(8):  # of both replicas, as chance has it; none answers 503
                    answers = [client.post("/predict", json={"inputs": text}) for text in texts]
                    assert [answer.status_code for answer in answers] == [200, 200]
                    for answer, expected in zip(answers, labels, strict=True):
                        got = answer.json()
                        assert [one["label"] for one in got] == [one["label"] for one in expected]
                        assert all(abs(a["score"] - b["score"]) < 1e-5 for a, b in zip(got, expected, strict=True))
                assert client.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"] == said
                with client.stream("POST", "/v1/chat/completions", json={**chat, "stream": True}) as answer:
                    lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
                assert lines[-1] == "[DONE]"
                pieces = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
                assert "".join(pieces) == said
                assert client.post("/predict", json={"inputs": 3}).status_code == 422
            states = serve.status().applications["default"].deployments["cutaway"].replica_states
            assert {str(getattr(state, "value", state)): n for state, n in states.items()} == {"RUNNING": 2}
        finally:
            serve.shutdown()

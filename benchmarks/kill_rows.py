"""A table of texts through `cutaway classify`, killed (SIGKILL) at random moments and started again: rows counted.

    python benchmarks/kill_rows.py [--rows 1000000] [--kills 3] [--model FOLDER] [--folder WHERE] [--seed 0]

What must hold: every row of the input stands in the output once, in order, unchanged, with a label and without an
error; scores equal those of an uninterrupted pipeline on a sample of rows to 1e-5; the memory of the last process does
not grow with its rows. Exits with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import tiny_model, write_rows

GROWTH = 1.10  # memory at the end of the last run over that in its middle


def memory(pid: int) -> float:
    """MB of a process that are in memory; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
    return int(line.split()[1]) / 1024


def counted(progress: Path) -> int:
    """Rows that are written and counted."""
    try:
        return int(json.loads(progress.read_text())["rows"])
    except (OSError, ValueError):
        return 0


def run(command: list[str], progress: Path, until: int | None, draw: random.Random) -> list[tuple[int, float]]:
    """Runs the command, killed a moment after `until` rows are counted (None: to its end); (rows, MB) on the way."""
    seen: list[tuple[int, float]] = []
    process = subprocess.Popen(command)
    while process.poll() is None:
        rows = counted(progress)
        seen.append((rows, memory(process.pid)))
        if until is not None and rows >= until:
            time.sleep(draw.random() * 0.5)  # anywhere between two counts
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed after {counted(progress):,} counted rows, {seen[-1][1]:.0f} MB", flush=True)
            return seen
        time.sleep(0.02 if until is not None else 0.2)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    if until is not None:
        print("the run ended before it was to be killed", flush=True)
    return [pair for pair in seen if pair[1]]


def verify(source: Path, target: Path, model: Path, number: int) -> int:
    """Mistakes in the output."""
    from cutaway import pipeline

    wrong, sample = 0, []
    step = max(1, number // 1000)
    with source.open(encoding="utf-8") as given, target.open(encoding="utf-8") as found:
        for i, (line, answer) in enumerate(zip(given, found, strict=True)):  # an error where one is longer
            row, other = json.loads(line), json.loads(answer)
            own = {name: other.get(name) for name in row}
            wrong += own != row or row["id"] != i or other.get("label") not in ("POSITIVE", "NEGATIVE")
            wrong += bool(other.get("error"))
            if i % step == 0:
                sample.append(other)
    if i + 1 != number:
        wrong += 1
    scored = pipeline("text-classification", model)([row["text"] for row in sample])
    for row, again in zip(sample, scored, strict=True):
        wrong += row["label"] != again["label"] or abs(row["score"] - again["score"]) > 1e-5
    return wrong


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", type=int, default=1_000_000)
    ask.add_argument("--kills", type=int, default=3)
    ask.add_argument("--model", type=Path, default=None, help="a classifier's folder; a tiny random one without it")
    ask.add_argument("--folder", type=Path, default=None)
    ask.add_argument("--seed", type=int, default=0)
    given = ask.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder, draw = Path(name), random.Random(given.seed)
        model = given.model or tiny_model(folder / "model")
        source, target = folder / "in.jsonl", folder / "out.jsonl"
        progress = target.with_name(target.name + ".progress")
        write_rows(source, given.rows)
        command = [sys.executable, "-m", "cutaway", "classify", "--model", str(model), "--input", str(source)]
        command += ["--output", str(target)]
        began = time.monotonic()
        # the last quarter is left to the run that is measured to its end
        for point in sorted(draw.sample(range(given.rows // 20, given.rows * 3 // 4), given.kills)):
            run(command, progress, point, draw)
        before = counted(progress)
        seen = run(command, progress, None, draw)
        took = time.monotonic() - began
        done = [
            next(mb for rows, mb in seen[::-1] if rows <= before + (given.rows - before) * n / 10) for n in range(11)
        ]
        last = done[-1]
        print(f"{given.rows:,} rows in {took:.0f} s, {given.kills} new starts included")
        print(f"MB of the last run after each tenth of its rows: {' '.join(f'{mb:.0f}' for mb in done[1:])}")
        wrong = verify(source, target, model, given.rows)
        print(f"rows that are lost, twice, out of order, changed or wrong: {wrong}")
        if wrong or last > done[5] * GROWTH:
            raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Benchmarks that are scripts of their own, as suites of `benchmarks/run.py`: what they print is kept line by line.

Each is measured beside a library in an environment that is made for it, since its requirements are no one else's:

    make bench ARGS="--suites few_labels --peer build/setfit/bin/python"
    make bench ARGS="--suites tuning --peer build/peers/bin/python"
    make bench ARGS="--suites topics --peer build/bertopic/bin/python"

Without `--peer` only ours is measured. The head of each script says what its environment needs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
# suite -> the script, and its option for the peer's python
SCRIPTS = {
    "few_labels": ("few_labels.py", "--setfit"),
    "tuning": ("tuning.py", "--peers"),
    "topics": ("topics.py", "--bertopic"),
}


def suite(name: str, peer: str | None, threads: int, rounds: int) -> Iterator[tuple[str, list[str]]]:
    """("lines", all that the script has said), anew after each line. SystemExit where the script fails."""
    script, option = SCRIPTS[name]
    command = [sys.executable, str(HERE / script), "--threads", str(threads)]
    command += [option, peer] if peer else []
    command += ["--seeds" if name == "few_labels" else "--rounds", str(rounds)]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            print(lines[-1], flush=True)
            yield "lines", list(lines)
    if process.returncode:
        raise SystemExit(f"{script} ended with {process.returncode}")

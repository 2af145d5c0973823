"""One library in a process of its own: it loads the model once, then answers one request a line.

    python worker.py peers.cutaway_peer:Encoder FOLDER PRECISION THREADS BUILD

A request is {"call": METHOD, "with": [...], "keep": FILE or null}; the answer is {"seconds": ..., "peak_mb": ...}, and
the result goes to FILE (.npy) where one is named. Only the call stands between the two clock readings. With
BENCH_CLOCK=cpu in the environment, seconds are processor time, of all threads together.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

CLOCK = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
START = CLOCK()


def peak_megabytes() -> float:
    """Highest resident memory of this process, in MB.

    Linux hands ru_maxrss on from the process that started this one; its own count, where there is one, begins anew.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # a library that prints does not print into the answers
    os.dup2(2, 1)
    where, folder, precision, threads, build = sys.argv[1:]
    module, name = where.split(":")
    peer: Any = getattr(importlib.import_module(module), name)(Path(folder), precision, int(threads), Path(build))

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps({**answer, "peak_mb": peak_megabytes()}) + "\n")
        answers.flush()

    say({"version": peer.version, "seconds": CLOCK() - START})
    for line in sys.stdin:
        request = json.loads(line)
        start = CLOCK()
        result = getattr(peer, request["call"])(*request["with"])
        seconds = CLOCK() - start
        if request["keep"]:
            import numpy

            numpy.save(request["keep"], result)
        say({"seconds": seconds})


if __name__ == "__main__":
    main()

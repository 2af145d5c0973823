"""Whether trainings by several processes end cleanly, time after time.

    python benchmarks/clean_exits.py [--times 50] [--ranks 2]

Each time `torchrun` starts a small training with evaluation, prediction and a saved model, with whole weights and with
weights in parts by turns. An end is clean if the exit status is 0 and nothing on standard error speaks of an error, an
abort or a warning.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from test_train_ranks import CLASSES, SAID, torchrun


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--times", type=int, default=50)
    ask.add_argument("--ranks", type=int, default=2)
    given = ask.parse_args()
    clean = 0
    for time in range(given.times):
        with tempfile.TemporaryDirectory() as name:
            settings = {"name": CLASSES, "n": 12, "num_train_epochs": 1, "fsdp": bool(time % 2)}
            done = torchrun(Path(name), given.ranks, [["plain", f"{name}/out", settings]])
        wrong = [line for line in done.stderr.splitlines() if any(word in line for word in SAID)]
        clean += done.returncode == 0 and not wrong
        print(f"{time + 1}: status {done.returncode}", *wrong, flush=True)
    print(f"{clean} of {given.times} ended cleanly")
    raise SystemExit(clean != given.times)


if __name__ == "__main__":
    main()

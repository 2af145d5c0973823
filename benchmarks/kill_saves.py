"""A save of a checkpoint, stopped at every system call it makes: what is lost, counted.

    python benchmarks/kill_saves.py [--every 1] [--folder WHERE]

A training with dropout, random rows and accumulated batches stands before its second save. `strace` is attached to it
and, at system call number N of the save, sends SIGKILL (or SIGTERM, SIGINT), or lets a write fail for want of space, or
a sync fail. Then the training is resumed by another process. What must hold each time: a whole checkpoint is there, it
is the older or the newer one, and the resumed training ends in the bytes of the one that was never stopped. Needs Linux
and strace.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from noisy_training import noisy_trainer

import cutaway
from cutaway.train import saving

STEPS, SAVED = 4, 2  # the save of this step is the one that is stopped


class Wait(cutaway.TrainerCallback):
    """Before the save: say so, and wait for the word to go on; after it: leave."""

    def __init__(self, ready: int, go: int) -> None:
        self.ready, self.go = ready, go

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == SAVED:
            os.write(self.ready, b"r")
            os.read(self.go, 1)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == SAVED:
            os._exit(0)


def trainer(folder: Path) -> Any:
    return noisy_trainer(folder, max_steps=STEPS, save_steps=1, save_total_limit=1)


def forked(work: Any) -> int:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException as e:
            print(type(e).__name__, e, file=sys.stderr)
        finally:
            os._exit(code)
    return pid


def save_under(folder: Path, *options: str) -> int:
    """The status of a process whose save ran under strace."""
    (ready, tell), (go, say) = os.pipe(), os.pipe()

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        made = trainer(folder)
        made.add_callback(Wait(tell, go))
        made.train(resume_from_checkpoint=True)

    pid = forked(work)
    os.read(ready, 1)
    watch = subprocess.Popen(["strace", *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert watch.stderr is not None
    first = watch.stderr.readline()
    assert "attached" in first, first
    os.write(say, b"g")
    status = os.waitpid(pid, 0)[1]
    watch.communicate()
    for handle in (ready, tell, go, say):
        os.close(handle)
    return status


def finish(folder: Path) -> bytes:
    """The weights at the end of the resumed training."""

    def work() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        made = trainer(folder)
        made.train(resume_from_checkpoint=True)
        made.save_model(folder / "end")

    status = os.waitpid(forked(work), 0)[1]
    if status:
        raise SystemExit(f"{folder} could not be resumed")
    return (folder / "end" / "model.safetensors").read_bytes()


def calls(log: Path) -> list[str]:
    """The names of the system calls in a log of strace, without the read that waits for the word to go on."""
    return [m[1] for line in log.read_text().splitlines() if (m := re.match(r"(?:\d+ +)?(\w+)\(", line))]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--every", type=int, default=1, help="stop at every so many system calls")
    ask.add_argument("--folder", type=Path, default=None)
    given = ask.parse_args()
    torch.set_num_threads(1)
    where = given.folder or Path(tempfile.mkdtemp())
    start = where / "start"
    noisy_trainer(start, max_steps=1, save_steps=1).train()
    whole = where / "whole"
    shutil.copytree(start, whole)
    wanted = finish(whole)

    trial = where / "trial"

    def fresh() -> Path:
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(start, trial)
        return trial

    log = where / "calls"
    assert save_under(fresh(), "-o", str(log)) == 0
    made = calls(log)
    print(f"a save makes {len(made)} system calls: {dict(collections.Counter(made).most_common(12))}", flush=True)

    results: dict[str, collections.Counter[str]] = {}

    def point(what: str, *options: str) -> None:
        folder = fresh()
        status = save_under(folder, "-o", os.devnull, *options)
        found, _ = saving.newest(folder)
        assert found is not None, (what, options)
        count = results.setdefault(what, collections.Counter())
        count["points"] += 1
        count["stopped"] += status != 0
        count[f"whole: {found.name}"] += 1
        assert finish(folder) == wanted, (what, options)
        count["same bytes"] += 1

    # strace counts the calls of each name by themselves
    moments = [(name, made[: i + 1].count(name)) for i, name in enumerate(made)]
    for name, n in moments[:: given.every]:
        point("SIGKILL", "-e", f"inject={name}:signal=KILL:when={n}")
    print("SIGKILL", dict(results["SIGKILL"]), flush=True)
    for kind in ("TERM", "INT"):
        for name, n in moments[:: 12 * given.every]:
            point(f"SIG{kind}", "-e", f"inject={name}:signal={kind}:when={n}")
    for call, error in (("write", "ENOSPC"), ("fsync", "EIO"), ("openat", "ENOSPC"), ("rename", "EIO")):
        number = made.count(call)
        for n in range(1, number + 1, max(1, number // 12)):
            point(f"{call} fails with {error}", "-e", f"inject={call}:error={error}:when={n}")
    draw = random.Random(0)
    files = sorted(p for p in (whole / "checkpoint-4").iterdir() if p.is_file())
    for n in range(40):
        path = files[n % len(files)]
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        folder = fresh()
        shutil.copytree(whole / "checkpoint-4", folder / "checkpoint-4")
        (folder / "checkpoint-4" / path.name).write_bytes(content)
        found = saving.newest(folder)[0]
        count = results.setdefault("one flipped bit", collections.Counter())
        count["points"] += 1
        # a bit of the manifest that is not part of a name, size or sum (a space, the step) changes nothing
        noticed = found == folder / "checkpoint-1"
        assert noticed or path.name == saving.MANIFEST, path
        count["noticed" if noticed else "means nothing"] += 1
    for what, count in results.items():
        print(what, dict(count), flush=True)
    print("all", sum(c["points"] for c in results.values()), "points", flush=True)


if __name__ == "__main__":
    main()

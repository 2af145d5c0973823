"""The worker process of `cutaway serve`: `python -m cutaway.serve`, told what to do in one line on stdin."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from typing import Any


def main() -> int:
    """Serve until a signal, or until the process at the other end of stdin is gone; the exit code."""
    told: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    watch_parent(0)
    if told["threads"] is not None:
        import torch

        torch.set_num_threads(told["threads"])
    from cutaway.serve.screen import screen
    from cutaway.serve.service import Service
    from cutaway.serve.settings import Access, Limits
    from cutaway.serve.worker import log_to_stderr, run_worker

    access = told["access"]
    hosts = None if access["hosts"] is None else tuple(access["hosts"])
    service = Service(
        told["models"],
        Limits(**told["limits"]),
        Access(access["key"], hosts, tuple(access["origins"])),
        log_texts=told["log_texts"],
        **told["options"],
    )
    log_to_stderr()
    listener = socket.socket(fileno=told["listener"])

    def announce() -> None:
        sys.stdout.write(screen(service, listener))
        sys.stdout.flush()
        os.write(told["ready"], b"1")

    code = run_worker(service, listener, announce)
    if not service.ready.is_set() and not service.error:  # stopped while it loads, in the midst of other people's code,
        sys.stdout.flush()  # which an interpreter that shuts down under it would end with an abort
        sys.stderr.flush()
        os._exit(code)
    if service.error:
        from cutaway.show.label import printable

        sys.stderr.write(f"cutaway: error: {printable(' '.join(service.error.split()))}\n")
    return code


def watch_parent(stream: int) -> None:
    """End this process well when the one that holds the other end of `stream` is gone."""

    def wait() -> None:
        while os.read(stream, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="cutaway-parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())

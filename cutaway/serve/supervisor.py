"""The door: a small process that holds the socket, and starts the process that answers again whenever it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from cutaway.errors import InputError

SOON = 10.0  # a worker that was ready and dies sooner than this did not come up well
AGAIN = 3  # so many of these in a row, and it is given up


class Supervisor:
    """Holds the listening socket over the life of several workers.

    Who connects while there is no worker waits in the socket's queue, and is answered by the next one.
    """

    def __init__(self, host: str, port: int, told: dict[str, Any]) -> None:
        """told: what the worker reads (`cutaway.serve.__main__`). InputError where the address cannot be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self.listener = socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            raise InputError(
                f"--host {host} --port {port} cannot be listened on: {error.strerror or error}. Give another --port."
            ) from None
        self.told = told
        self.worker: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def run(self) -> int:
        """Keep a worker alive until SIGTERM or SIGINT; the exit code, 0 where its answers came to their end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        failures = 0
        while True:
            ready = self._start()
            worker = self.worker
            assert worker is not None
            code = worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()
            os.set_blocking(ready, False)
            try:
                up = os.read(ready, 1) == b"1"
            except BlockingIOError:
                up = False
            os.close(ready)
            if self.stopping and not up and code == -signal.SIGTERM:
                return 0  # it was still starting: there was nobody to answer
            if self.stopping:
                return code if code > 0 else int(code < 0)
            failures = 0 if time.monotonic() - self.begun > SOON else failures + 1
            if not up or failures >= AGAIN:
                return code if code > 0 else 1
            sys.stderr.write(f"{json.dumps({'event': 'the worker died and is started again', 'code': code})}\n")

    def _start(self) -> int:
        """Start a worker; the end of a pipe from which its readiness is read."""
        ready, announced = os.pipe()
        own = self.listener.fileno()
        self.begun = time.monotonic()
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "cutaway.serve"],
            stdin=subprocess.PIPE,
            pass_fds=(own, announced),
            process_group=0,  # a Ctrl-C in the terminal comes from here, once
        )
        os.close(announced)
        assert self.worker.stdin is not None
        told = {**self.told, "listener": own, "ready": announced}
        try:
            self.worker.stdin.write(json.dumps(told).encode() + b"\n")
            self.worker.stdin.flush()
        except BrokenPipeError:
            pass  # it died already; `run` sees that
        if self.stopping:  # the signal came before there was a worker
            self.worker.terminate()
        return ready

    def _stop(self, number: int, frame: object) -> None:
        self.listener.close()  # the worker closes its own: from now on nobody gets in
        self.stopping = True
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()

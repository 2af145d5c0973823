"""One page in headless Chromium, spoken to over a pipe (the DevTools protocol), without any network."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
MISSING = "Chromium is not installed here"
# where a missing browser, or what its tests need beside it, is a failure and no reason to skip them
REQUIRED = bool(os.environ.get("CUTAWAY_REQUIRE_BROWSER"))


class Page:
    """A file, or an address of this machine, in a browser of its own. `requests` and `errors` fill while it runs."""

    def __init__(self, path: Path | str, profile: Path, *, size: str = "1280,1000") -> None:
        assert CHROMIUM is not None, MISSING
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number, self._rest = 0, b""
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            f"--window-size={size}", "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        words = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", words, CHROMIUM, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{part}.enable", session=True)
        self.address = path if isinstance(path, str) else path.as_uri()
        self.send("Page.navigate", session=True, url=self.address)
        began = time.monotonic()
        while self.value("document.documentElement?.dataset.ready") != "yes":
            if self.errors or time.monotonic() - began > 60:
                self.close()
                raise AssertionError(f"the page did not become ready: {self.errors}")
            time.sleep(0.05)

    def send(self, method: str, *, session: bool = False, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return dict(found["result"])
            self._note(found)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._from], [], [], 60)[0], "the browser says nothing"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent" and params["request"]["url"] != getattr(self, "address", ""):
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown" or (
            method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert")
        ):
            self.errors.append(json.dumps(params)[:2000])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])

    def value(self, expression: str) -> Any:
        """What an expression of the page's own script gives, as JSON."""
        found = self.send(
            "Runtime.evaluate", session=True, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def close(self) -> None:
        self.send("Browser.close")
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

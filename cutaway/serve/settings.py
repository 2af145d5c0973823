"""What a server allows: bounds on what one request and all of them may take, and who may call."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from cutaway.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds on requests.

    Attributes:
        body_bytes: of one request's body.
        header_bytes: of one request's line and headers.
        requests: how many are in the server at once, running and waiting; one more is answered 429.
        pending_bytes: the bodies of all of these together.
        inputs: texts of one request.
        running: sequences that are written at the same time; further ones wait.
        new_tokens: tokens of one answer, at most.
        default_tokens: tokens of an answer whose request does not say how many.
        batch_tokens: positions that go through an encoder in one pass, and tokens of prompts in one pass.
        piece_tokens: tokens of prompts in one pass while other answers are being written, at most; fewer where so many
            take longer than the other answers' next token.
        explain_tokens: of a text that is explained: an explanation has the engine to itself while it runs. 0 for none.
        memory_bytes: keys and values of the sequences that are written.
        prefix_bytes: keys and values of earlier prompts, kept for those that begin alike; 0 keeps none.
        seconds: how long one request may take, from its first byte to its last.
        body_seconds, header_seconds: how long its body and its headers may take to arrive.
        drain_seconds: how long answers may go on after SIGTERM.
    """

    body_bytes: int = 8 << 20
    header_bytes: int = 32 << 10
    requests: int = 256
    pending_bytes: int = 64 << 20
    inputs: int = 1024
    running: int = 64
    new_tokens: int = 4096
    default_tokens: int = 1024
    batch_tokens: int = 4096
    piece_tokens: int = 64
    explain_tokens: int = 256
    memory_bytes: int = 2 << 30
    prefix_bytes: int = 256 << 20
    seconds: float = 600.0
    body_seconds: float = 30.0
    header_seconds: float = 15.0
    drain_seconds: float = 60.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            whole = isinstance(entry.default, int)
            kind = int if whole else int | float
            least = 0 if entry.name in ("prefix_bytes", "explain_tokens") else 1 if whole else 0.001
            if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or value < least:
                raise ConfigError(f"Limits.{entry.name}={value!r}: give a number of at least {least}.")


LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who may call.

    Attributes:
        key: what a request must bring as `Authorization: Bearer KEY` (or `x-api-key: KEY`); None for no key.
        hosts: names that the Host header may have, ports aside; None for any. Beside a page in a browser that was led
            here by a name of its own (DNS rebinding), nobody notices.
        origins: pages (https://example.org) that may call from a browser (CORS); others are refused, except those
            that this server itself would show.
    """

    key: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.key is not None and (not self.key or not self.key.isascii() or not self.key.isprintable()):
            raise ConfigError("The API key must be printable ASCII, and not empty.")
        for origin in self.origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest:
                raise ConfigError(f"origins holds {origin!r}: give pages as https://example.org, without a path.")

    def __repr__(self) -> str:  # a key stands in no log
        return f"Access(key={'None' if self.key is None else '...'}, hosts={self.hosts}, origins={self.origins})"

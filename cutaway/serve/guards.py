"""What every request passes before any route sees it: a name for it, who may call, and how much there may be."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cutaway.serve.problem import Problem, form_of, own_path
from cutaway.serve.service import Service
from cutaway.serve.settings import Access, Limits
from cutaway.serve.tracing import Spans

logger = logging.getLogger("cutaway.serve.requests")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Journal:
    """Gives each request an id, counts it, and writes one line of JSON about it; no text of anybody's."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service, self.spans = app, service, Spans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, span = headers.get("x-request-id", ""), self.spans.begin(headers)
        scope["cutaway.id"] = id_ = given if _ID.fullmatch(given) else uuid.uuid4().hex
        said: dict[str, Any] = scope.setdefault("cutaway.said", {})
        begun, status = time.monotonic(), 499  # what a client that left is counted under

        async def out(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = id_
            await send(message)

        try:
            await self.app(scope, receive, out)
        finally:
            seconds = time.monotonic() - begun
            route = said.pop("route", "none")  # the declared path: a client's own would make endless series
            self.spans.end(span, scope["method"], route, status, said)
            self.service.metrics.requests.labels(route, str(status)).inc()
            self.service.metrics.seconds.labels(route).observe(seconds)
            if 200 <= status < 300:
                self.service.spent += 0.1 * (seconds - self.service.spent)
            line = {"time": round(time.time(), 3), "id": id_, "method": scope["method"], "route": route}
            line |= {"status": status, "seconds": round(seconds, 4), **said}
            logger.info(json.dumps(line, ensure_ascii=True, default=str))


class Guarded(Protocol):
    """What the gate asks of whatever it stands before."""

    @property
    def access(self) -> Access:
        """Who may call."""

    @property
    def limits(self) -> Limits:
        """What one request may take."""

    @property
    def open_paths(self) -> frozenset[str]:
        """Paths that ask for no key."""


class Gate:
    """Host, Origin and key, for every path there is or is not."""

    def __init__(self, app: ASGIApp, service: Guarded) -> None:
        self.app, self.access, self.limits, self.service = app, service.access, service.limits, service
        self.key = None if service.access.key is None else service.access.key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["query_string"])
            if size + len(scope["path"]) > self.limits.header_bytes:
                raise Problem(431, f"The headers are larger than {self.limits.header_bytes} bytes.", param="headers")
            self._check_host(headers)
            allowed = self._check_origin(origin, headers)
            if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await self._preflight(origin or "", headers, send)
                return
            if scope["method"] != "GET" or own_path(scope) not in self.service.open_paths:
                self._check_key(headers)
        except Problem as problem:
            await problem.response(form_of(own_path(scope)))(scope, receive, send)
            return
        if not allowed:
            await self.app(scope, receive, send)
            return

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                own["access-control-allow-origin"] = origin or ""
                own.add_vary_header("Origin")
            await send(message)

        await self.app(scope, receive, out)

    def _check_host(self, headers: Headers) -> None:
        if self.access.hosts is None:
            return
        given = headers.get("host", "")
        name = re.sub(r":\d*$", "", given).lower()
        if name not in self.access.hosts:
            raise Problem(
                421, f"host={given!r:.80}: this server answers to {', '.join(self.access.hosts)}.", param="host",
                code="wrong_host",
            )  # fmt: skip

    def _check_origin(self, origin: str | None, headers: Headers) -> bool:
        """Whether the page that calls is one that was named; no page at all is False."""
        if origin is None:
            return False
        if origin in self.access.origins:
            return True
        if urlsplit(origin).netloc.lower() == headers.get("host", "").lower():
            return False  # this server's own
        raise Problem(
            403, f"origin={origin!r:.80}: pages from there may not call this server (--cors names those that may).",
            param="origin", code="wrong_origin",
        )  # fmt: skip

    def _check_key(self, headers: Headers) -> None:
        if self.key is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.key):
            raise Problem(401, "The API key is missing or wrong: send Authorization: Bearer KEY.")

    async def _preflight(self, origin: str, headers: Headers, send: Send) -> None:
        wanted = headers.get("access-control-request-headers", "content-type, authorization")
        answer = {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": wanted if wanted.isprintable() else "content-type",
            "access-control-max-age": "600",
            "vary": "Origin",
        }
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.items()]
        await send({"type": "http.response.start", "status": 204, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})


class Capacity:
    """A place for each request before its body is read; where there is none, 429 and when to come back."""

    FREE = ("/health", "/metrics")  # cheap, and wanted most when all places are taken

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or own_path(scope) in self.FREE:
            await self.app(scope, receive, send)
            return
        service, limits = self.service, self.service.limits
        length = _length(scope)
        if length > limits.body_bytes:
            await _too_large(limits.body_bytes).response(form_of(own_path(scope)))(scope, receive, send)
            return
        if service.requests >= limits.requests or service.pending_bytes + length > limits.pending_bytes:
            wait = max(1, min(60, round(service.spent)))
            problem = Problem(429, f"The server has {service.requests} requests, which is all it takes.",
                              retry_after=wait)  # fmt: skip
            await problem.response(form_of(own_path(scope)))(scope, receive, send)
            return
        held = length
        read = 0
        complete = False
        end = time.monotonic() + limits.body_seconds

        async def counted() -> Message:
            nonlocal held, read, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except TimeoutError:
                raise Problem(408, f"The body did not arrive within {limits.body_seconds:g} seconds.") from None
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if read > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
                if read > held:  # a body that did not say its length
                    service.pending_bytes += read - held
                    held = read
            return message

        service.requests += 1
        service.pending_bytes += held
        try:
            await self.app(scope, counted, send)
        finally:
            service.requests -= 1
            service.pending_bytes -= held


def _length(scope: Scope) -> int:
    try:
        return int(Headers(scope=scope).get("content-length", "0"))
    except ValueError:
        return 0


def _too_large(most: int) -> Problem:
    return Problem(413, f"The body is larger than {most} bytes, the most that this server takes.", param="body")

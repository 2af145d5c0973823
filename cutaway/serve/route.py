"""A route: from the bytes of a request to an answer, with everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cutaway.errors import CutawayError
from cutaway.serve.body import Body
from cutaway.serve.problem import Form, Problem, form_of
from cutaway.serve.served_model import ServedModel
from cutaway.serve.service import Service

logger = logging.getLogger("cutaway.serve")

Result = TypeVar("Result")


@dataclass
class Call:
    """One request: its body, read and checked, and what its log line will say."""

    service: Service
    request: Request
    body: Any  # what the route's `read` made of it
    form: Form
    id: str
    said: dict[str, Any] = field(default_factory=dict)

    async def in_order(self, served: ServedModel, work: Callable[[], Result]) -> Result:
        """What `work` gives, on the thread that the model's tokenizer belongs to."""
        return await asyncio.get_running_loop().run_in_executor(served.texts, work)


@dataclass
class Stream:
    """An answer in pieces; `late` makes the last piece of an error that comes after the first."""

    pieces: AsyncGenerator[str, None]
    media_type: str = "text/event-stream"
    late: Callable[[Problem], str] = lambda problem: f"data: {json.dumps(problem.body('openai'))}\n\n"


# what it answers: a `Response`, a `Stream`, or what becomes JSON
Handler = Callable[[Call], Awaitable[object]]


@dataclass(frozen=True)
class Route:
    """A place that is served.

    `read`: what the body must be; None for a route without one. `query`: the names that may stand behind a `?`, each
    once; None where whoever links to the route may add his own.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    read: type[Body] | None = None
    answer: object = None  # what a 200 holds, for the document
    form: Form | None = None
    is_open: bool = False  # served without the key: it holds nothing of anybody's
    query: tuple[str, ...] | None = ()

    def asgi(self, service: Service) -> Endpoint:
        return Endpoint(self, service)


class Endpoint:
    """The ASGI app of one route."""

    def __init__(self, route: Route, service: Service) -> None:
        self.route, self.service = route, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = self.route.form or form_of(self.route.path)
        said: dict[str, Any] = scope.setdefault("cutaway.said", {})
        said["route"] = self.route.path
        seconds = self.service.limits.seconds
        answer = Answering(send)
        tasks: list[asyncio.Future[None]] = []
        try:
            async with asyncio.timeout(seconds):
                request = Request(scope, receive)
                self._check_query(request)
                body = await self._body(request, form)
                if self.service.log_texts and body is not None:
                    said["body"] = (await request.body())[:2000].decode("utf-8", "replace")
                call = Call(self.service, request, body, form, scope.get("cutaway.id", ""), said)
                work = asyncio.ensure_future(self._answer(call, scope, receive, answer))
                tasks = [work, asyncio.ensure_future(_gone(receive))]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    said["left"] = True  # nobody reads the answer any more: the work for it ends
                    return
                work.result()
        except ClientDisconnect:
            said["left"] = True
        except Exception as error:
            problem = as_problem(error, seconds, said, self.route.read)
            if not answer.begun:
                await problem.response(form)(scope, receive, send)
            elif answer.stream is not None:
                await send({"type": "http.response.body", "body": answer.stream.late(problem).encode()})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, call: Call, scope: Scope, receive: Receive, answer: Answering) -> None:
        found = await self.route.handler(call)
        if isinstance(found, Stream):
            answer.stream = found
            await _send(found, answer)
            return
        if not isinstance(found, Response):
            found = Response(_json(found), media_type="application/json")
        await found(scope, receive, answer)

    def _check_query(self, request: Request) -> None:
        known = self.route.query
        if known is None:
            return
        seen: set[str] = set()
        for name, _ in request.query_params.multi_items():
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise Problem(400, f"{name[:40]!r} is no parameter of this path's query; {takes}.", param=name[:40])
            if name in seen:
                raise Problem(400, f"{name} stands twice in the query; give it once.", param=name)
            seen.add(name)

    async def _body(self, request: Request, form: Form) -> object:
        if self.route.read is None:
            return None
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Problem(415, f"content-type={kind!r:.60}: send application/json.", param="content-type")
        return self.route.read.read(await request.body(), 422 if form == "tei" else 400)


class Answering:
    """The way out, which remembers whether anything has gone out."""

    def __init__(self, send: Send) -> None:
        self.send, self.begun = send, False
        self.stream: Stream | None = None

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self.send(message)


async def _send(stream: Stream, answer: Answering) -> None:
    pieces = stream.pieces
    try:
        piece = await anext(pieces, None)  # what is wrong before the first piece has a status of its own
        headers = [(b"content-type", stream.media_type.encode()), (b"cache-control", b"no-store")]
        await answer({"type": "http.response.start", "status": 200, "headers": headers})
        while piece is not None:
            await answer({"type": "http.response.body", "body": piece.encode(), "more_body": True})
            piece = await anext(pieces, None)
    finally:
        await pieces.aclose()
    await answer({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def as_problem(error: BaseException, seconds: float, said: dict[str, Any], read: type[Body] | None = None) -> Problem:
    """What is said of an error: our own in its words, any other as a fault of the server, in the log alone.

    read: the body that it may be about; the field is the one that the message begins with, else what is to be read.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, TimeoutError):
        return Problem(504, f"The answer took longer than the {seconds:g} seconds that a request may take.")
    if isinstance(error, CutawayError):
        field = None if read is None else read.field_of(str(error))
        return Problem(400, str(error) if field is None or field in str(error) else f"{field}: {error}", param=field)
    logger.error("a request failed", exc_info=error, extra={"said": said})
    return Problem(500, "The server failed on this request; its log says how.", code="internal")


def _json(value: object) -> bytes:
    return to_json(value, inf_nan_mode="null")  # of vectors it takes a tenth of what json.dumps does

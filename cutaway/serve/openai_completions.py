"""POST /v1/completions: texts that go on, as OpenAI's older clients ask for them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway.serve.openai_chat import StreamOptions, event
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call, Stream
from cutaway.serve.served_model import ServedModel
from cutaway.serve.text_request import Piece, TextRequest, request_text
from cutaway.serve.text_settings import Count, Sampling

Ids = list[int]


class CompletionBody(Sampling):
    """Texts or token ids to go on with."""

    prompt: str | list[str] | Ids | list[Ids]
    model: str | None = None
    max_tokens: Count | None = 16
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: Literal[""] | None = None
    user: str | None = None

    def prompts(self, most: int) -> list[str | Ids]:
        """One or several prompts; Problem for none, or for too many."""
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if given and isinstance(given[0], int):
            return [given]
        if not given or len(given) > most:
            raise Problem(400, f"prompt holds {len(given)} texts: pass 1 to {most}.", param="prompt")
        return list(given)  # type: ignore[arg-type]


async def completions(call: Call) -> object:
    """Goes on with texts."""
    body: CompletionBody = call.body
    served = call.service.model(body.model, "text-generation")
    prompts, n = body.prompts(call.service.limits.inputs), body.n or 1
    requests: list[TextRequest] = []
    try:
        for prompt in prompts:
            requests.append(
                await request_text(call, served, prompt, body, most=body.max_tokens, n=n, logprobs=body.logprobs)
            )
    except BaseException:
        for request in requests:
            request.writing.gone = True
        raise
    answer = CompletionAnswer(body, served, prompts, requests)
    return Stream(answer.chunks()) if body.stream else await answer.whole()


class CompletionAnswer:
    """The answers to a list of prompts, in OpenAI's form."""

    def __init__(
        self, body: CompletionBody, served: ServedModel, prompts: list[str | Ids], requests: list[TextRequest]
    ) -> None:
        self.body, self.served, self.requests, self.n = body, served, requests, body.n or 1
        self.echo = [
            "" if not body.echo else prompt if isinstance(prompt, str) else served.reader.decode(prompt)
            for prompt in prompts
        ]
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }

    async def whole(self) -> dict[str, Any]:
        """All of it."""
        try:
            found = await asyncio.gather(*(_gathered(request) for request in self.requests))
        except BaseException:
            self._leave()
            raise
        choices = []
        for place, answers in enumerate(found):
            for index, pieces in enumerate(answers):
                text = self.echo[place] + "".join(piece.text for piece in pieces)
                end = pieces[-1].end if pieces else "stop"
                choices.append(self._choice(place * self.n + index, text, end, pieces, len(self.echo[place])))
        return {**self.head, "choices": choices, "usage": self._usage()}

    def _choice(self, index: int, text: str, end: str | None, pieces: list[Piece], start: int) -> dict[str, Any]:
        told = None
        if self.body.logprobs is not None:
            told = self._logprobs(pieces, start)
        return {"index": index, "text": text, "logprobs": told, "finish_reason": end}

    def _logprobs(self, pieces: list[Piece], start: int) -> dict[str, Any]:
        decode = self.served.reader.decode
        offsets = []
        for piece in pieces:
            offsets.append(start)
            start += len(piece.text)
        told = [piece.told for piece in pieces if piece.told is not None]
        return {
            "tokens": [decode([piece.token]) for piece in pieces],
            "token_logprobs": [one.logprob for one in told],
            "top_logprobs": [{decode([id]): value for id, value in one.top} for one in told],
            "text_offset": offsets,
        }

    def _usage(self) -> dict[str, int]:
        read, written = (sum(request.usage[i] for request in self.requests) for i in (0, 1))
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _leave(self) -> None:
        for request in self.requests:
            request.writing.gone = True

    async def chunks(self) -> AsyncGenerator[str, None]:
        """As events; those of several prompts come as they are written."""
        queue: asyncio.Queue[tuple[int, Piece] | BaseException | None] = asyncio.Queue()

        async def follow(place: int, request: TextRequest) -> None:
            try:
                async for piece in request.pieces():
                    queue.put_nowait((place, piece))
                queue.put_nowait(None)
            except Exception as error:
                queue.put_nowait(error)

        tasks = [asyncio.ensure_future(follow(place, request)) for place, request in enumerate(self.requests)]
        lengths: dict[int, int] = {}
        left = len(tasks)
        try:
            while left:
                got = await queue.get()
                if isinstance(got, BaseException):
                    raise got
                if got is None:
                    left -= 1
                    continue
                place, piece = got
                index = place * self.n + piece.choice
                text = ("" if index in lengths else self.echo[place]) + piece.text
                start = lengths.get(index, len(self.echo[place]))
                lengths[index] = start + len(piece.text)
                if text or piece.end is not None or piece.told is not None:
                    yield event({**self.head, "choices": [self._choice(index, text, piece.end, [piece], start)]})
        finally:
            self._leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield event({**self.head, "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"


async def _gathered(request: TextRequest) -> list[list[Piece]]:
    found: list[list[Piece]] = [[] for _ in range(request.n)]
    async for piece in request.pieces():
        found[piece.choice].append(piece)
    return found

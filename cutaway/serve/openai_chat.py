"""POST /v1/chat/completions: conversations, as OpenAI's clients ask for them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway.serve.body import Body, Off
from cutaway.serve.chat_prompt import Message, Tool, plain_message, write_chat
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call, Stream
from cutaway.serve.served_model import ServedModel
from cutaway.serve.text_request import Piece, TextRequest, request_text
from cutaway.serve.text_settings import Count, Sampling
from cutaway.serve.tool_calls import CallWatch, ToolCall, read_calls, required_call

UNNAMED = "dummy"  # how Hugging Face's client calls a model of which it has the address alone
EXPLAINED = 5  # likeliest tokens beside each, where the answer is to be explained


class JsonSchema(Body):
    """The schema that an answer follows."""

    name: str
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    value: dict[str, Any] | None = None  # where Hugging Face's client puts the schema of a json_object

    def form(self) -> dict[str, Any] | None:
        """As `generate` takes it."""
        if self.value is not None and self.type != "json_object":
            raise Problem(400, f"response_format.value goes with the type json_object, not {self.type}.",
                          param="response_format.value")  # fmt: skip
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"json_schema": self.value or {"type": "object"}}
        if self.json_schema is None:
            raise Problem(400, "response_format.json_schema is missing.", param="response_format.json_schema")
        return {"json_schema": self.json_schema.schema_ or {"type": "object"}}


class StreamOptions(Body):
    """What a stream says beside its text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # pads chunks against listeners: without effect here


class NamedFunction(Body):
    """The name of a function."""

    name: str


class NamedTool(Body):
    """The one tool that must be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class ChatBody(Sampling):
    """A conversation, and how it is to be answered."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    model: str | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    explain: bool | None = None  # ours: each token with its probability and what else could have stood there
    # known, and without effect on an answer of this server
    parallel_tool_calls: bool | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Off | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def most(self) -> tuple[str, int | None]:
        """How many tokens the answer may have, and under which name that was said."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens


async def chat(call: Call) -> object:
    """Answers a conversation."""
    body: ChatBody = call.body
    named = call.request.path_params.get("name")  # the address may name the model
    asked = None if body.model == UNNAMED and UNNAMED not in call.service.models else body.model
    served = call.service.model(named or asked, "text-generation")
    tools = [] if body.tool_choice == "none" else [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    choice = body.tool_choice
    form = required_call(choice == "required", choice.function.name if isinstance(choice, NamedTool) else None, tools)
    form_field = "response_format" if form is None else "tools"
    if form is None and body.response_format is not None:
        form = body.response_format.form()
    logprobs = None
    if body.top_logprobs is not None and not body.logprobs:
        raise Problem(400, "top_logprobs needs logprobs=true.", param="top_logprobs")
    if body.logprobs:
        logprobs = body.top_logprobs or 0
    if body.explain:
        logprobs = max(EXPLAINED, logprobs or 0)
    messages = [plain_message(message) for message in body.messages]
    loop = asyncio.get_running_loop()
    prompt = await loop.run_in_executor(served.texts, write_chat, served, messages, tools)
    name, most = body.most
    request = await request_text(
        call, served, prompt, body, most=most, n=body.n or 1, logprobs=logprobs, form=form, chat=True,
        fields=("messages", name), form_field=form_field,
    )  # fmt: skip
    answer = ChatAnswer(body, served, request, tools)
    return Stream(answer.chunks()) if body.stream else await answer.whole()


class ChatAnswer:
    """The answers to one conversation, in OpenAI's form."""

    def __init__(self, body: ChatBody, served: ServedModel, request: TextRequest, tools: list[dict[str, Any]]) -> None:
        self.body, self.served, self.request = body, served, request
        self.tools = [tool["function"]["name"] for tool in tools]
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": None,
        }

    async def whole(self) -> dict[str, Any]:
        """All of it."""
        texts, ends = [""] * self.request.n, ["stop"] * self.request.n
        told: list[list[Piece]] = [[] for _ in texts]
        async for piece in self.request.pieces():
            texts[piece.choice] += piece.text
            ends[piece.choice] = piece.end or ends[piece.choice]
            told[piece.choice].append(piece)
        choices = []
        for index, text in enumerate(texts):
            content, calls = read_calls(text, self.tools) if self.tools else (text, [])
            choices.append(self._choice(index, content, calls, ends[index], told[index]))
        return {"object": "chat.completion", **self.head, "choices": choices, "usage": usage(self.request)}

    def _choice(self, index: int, text: str, calls: list[ToolCall], end: str, told: list[Piece]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        if calls:
            message["tool_calls"] = [one.shaped() for one in calls]
            end = "tool_calls"
        choice = {"index": index, "message": message, "logprobs": self._logprobs(told), "finish_reason": end}
        if self.body.explain:
            choice["explanation"] = [explained(self.served, piece) for piece in told]
        return choice

    def _logprobs(self, told: list[Piece]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        return {"content": [logprob(self.served, p, self.body.top_logprobs or 0) for p in told], "refusal": None}

    async def chunks(self) -> AsyncGenerator[str, None]:
        """As events, each as soon as there is something to say."""
        watches = [CallWatch() for _ in range(self.request.n)]
        begun: set[int] = set()
        pieces = self.request.pieces()
        try:
            async for piece in pieces:
                if piece.choice not in begun:
                    begun.add(piece.choice)
                    yield self._chunk(piece.choice, {"role": "assistant", "content": ""})
                text, calls = piece.text, list[ToolCall]()
                if self.tools:
                    text = watches[piece.choice].add(text)
                    if piece.end is not None:
                        rest, calls = watches[piece.choice].end(self.tools)
                        text += rest
                told = [piece] if piece.told is not None else []
                if text or told:
                    yield self._chunk(piece.choice, {"content": text}, told=told)
                for place, one in enumerate(calls):
                    yield self._chunk(piece.choice, {"tool_calls": [{"index": place, **one.shaped()}]})
                if piece.end is not None:
                    yield self._chunk(piece.choice, {}, "tool_calls" if calls else piece.end)
        finally:
            await pieces.aclose()
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            last = {"object": "chat.completion.chunk", **self.head, "choices": [], "usage": usage(self.request)}
            yield event(last)
        yield "data: [DONE]\n\n"

    def _chunk(self, index: int, delta: dict[str, Any], end: str | None = None, told: list[Piece] | None = None) -> str:
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": end}
        if told and self.body.logprobs:
            choice["logprobs"] = self._logprobs(told)
        if told and self.body.explain:
            choice["explanation"] = [explained(self.served, piece) for piece in told]
        return event({"object": "chat.completion.chunk", **self.head, "choices": [choice]})


def event(data: dict[str, Any]) -> str:
    """One event of a stream."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def usage(request: TextRequest) -> dict[str, Any]:
    """How many tokens were read, written, and held from earlier prompts."""
    read, written, held = request.usage
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": held},
    }


def logprob(served: ServedModel, piece: Piece, top: int) -> dict[str, Any]:
    """One token and the likeliest in its place, as OpenAI writes them."""
    assert piece.told is not None

    def named(id: int, value: float) -> dict[str, Any]:
        text = served.reader.decode([id])
        return {"token": text, "logprob": value, "bytes": list(text.encode())}

    others = [named(id, value) for id, value in piece.told.top[:top]]
    return {**named(piece.token, piece.told.logprob), "top_logprobs": others}


def explained(served: ServedModel, piece: Piece) -> dict[str, Any]:
    """One token as ours: its probability's logarithm, and what else could have stood there."""
    assert piece.told is not None
    others = [{"id": id, "text": served.reader.decode([id]), "logprob": value} for id, value in piece.told.top]
    return {
        "id": piece.token,
        "text": served.reader.decode([piece.token]),
        "logprob": piece.told.logprob,
        "alternatives": others,
    }

"""POST /v1/responses: texts and conversations, as OpenAI's newer clients ask for them; nothing is stored."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway.serve.body import Body, Off
from cutaway.serve.chat_prompt import CalledFunction, MadeCall, Message, TextPart, Tool, plain_message, write_chat
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call, Stream
from cutaway.serve.served_model import ServedModel
from cutaway.serve.text_request import TextRequest, request_text
from cutaway.serve.text_settings import Count, Sampling, Seed, Share, Temperature
from cutaway.serve.tool_calls import CallWatch, ToolCall, read_calls, required_call


class Item(Body):
    """One item of the input: a message, a call that was made, or what came of it."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[TextPart] | None = None
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    phase: str | None = None

    def message(self) -> Message:
        """As a message of a chat."""
        if self.type == "function_call":
            function = CalledFunction(name=self.name or "", arguments=self.arguments or "{}")
            return Message(role="assistant", content="", tool_calls=[MadeCall(function=function, id=self.call_id)])
        if self.type == "function_call_output":
            return Message(role="tool", content=self.output or "", tool_call_id=self.call_id)
        if self.role is None:
            raise Problem(400, "input holds a message without a role.", param="input")
        if self.content is None and self.role != "assistant":
            raise Problem(400, f"input holds a message of the role {self.role} without content.", param="input")
        return Message(role=self.role, content=self.content)


class TextFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class TextSettings(Body):
    """How the text of the answer is."""

    format: TextFormat | None = None
    verbosity: str | None = None


class FlatTool(Body):
    """A function that may be called, its fields beside its type."""

    type: Literal["function"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedChoice(Body):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class ResponseBody(Body):
    """What is asked."""

    input: Annotated[str, Field(min_length=1)] | Annotated[list[Item], Field(min_length=1, max_length=10_000)]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    seed: Seed | None = None  # ours
    stream: bool | None = None
    text: TextSettings | None = None
    tools: Annotated[list[FlatTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    truncation: Literal["disabled"] | None = None
    store: Off | None = None
    previous_response_id: None = None
    # known, and without effect on an answer of this server
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


async def responses(call: Call) -> object:
    """Answers a text or a conversation."""
    body: ResponseBody = call.body
    served = call.service.model(body.model, "text-generation")
    items = [Item(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    messages = [plain_message(item.message()) for item in items]
    if body.instructions:
        messages.insert(0, {"role": "system", "content": body.instructions})
    given = [] if body.tool_choice == "none" else body.tools or []
    tools = [
        Tool.model_validate({"function": tool.model_dump(exclude={"type"})}).model_dump(exclude_none=True)
        for tool in given
    ]
    choice = body.tool_choice
    form = required_call(choice == "required", choice.name if isinstance(choice, NamedChoice) else None, tools)
    form_field = "text.format" if form is None else "tools"
    wanted = None if body.text is None else body.text.format
    if form is None and wanted is not None and wanted.type != "text":
        form = {"json_schema": wanted.schema_ or {"type": "object"}}
    prompt = await call.in_order(served, lambda: write_chat(served, messages, tools))
    sampling = Sampling.model_construct(temperature=body.temperature, top_p=body.top_p, seed=body.seed)
    request = await request_text(
        call, served, prompt, sampling, most=body.max_output_tokens, form=form, chat=True,
        fields=("input", "max_output_tokens"), form_field=form_field,
    )  # fmt: skip
    answer = ResponseAnswer(body, served, request, [tool["function"]["name"] for tool in tools])
    return Stream(answer.events(), late=answer.late) if body.stream else await answer.whole()


class ResponseAnswer:
    """One answer, in the form of /v1/responses."""

    def __init__(self, body: ResponseBody, served: ServedModel, request: TextRequest, tools: list[str]) -> None:
        self.body, self.served, self.request, self.tools = body, served, request, tools
        self.id, self.item = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self.created, self.number = int(time.time()), 0

    def _response(self, status: str, output: list[dict[str, Any]], end: str | None = None) -> dict[str, Any]:
        body, (read, written, held) = self.body, self.request.usage
        wanted = body.text.format if body.text is not None and body.text.format is not None else None
        done = status in ("completed", "incomplete")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if end == "length" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self.served.name,
            "output": output,
            "parallel_tool_calls": bool(body.parallel_tool_calls),
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"} if wanted is None else wanted.model_dump(by_alias=True)},
            "tool_choice": body.tool_choice if isinstance(body.tool_choice, str) else "auto",
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": held},
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read + written,
            } if done else None,
        }  # fmt: skip

    def _message(self, text: str, status: str) -> dict[str, Any]:
        parts = [self._part(text)] if status == "completed" else []
        return {"type": "message", "id": self.item, "role": "assistant", "status": status, "content": parts}

    @staticmethod
    def _part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    @staticmethod
    def _call(one: ToolCall) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"fc_{one.id.removeprefix('call_')}",
            "call_id": one.id,
            "name": one.name,
            "arguments": one.arguments,
            "status": "completed",
        }

    async def whole(self) -> dict[str, Any]:
        """All of it."""
        pieces = [piece async for piece in self.request.pieces()]
        text, calls = "".join(piece.text for piece in pieces), list[ToolCall]()
        if self.tools:
            text, calls = read_calls(text, self.tools)
        output = [self._message(text, "completed")] if text or not calls else []
        output += [self._call(one) for one in calls]
        end = pieces[-1].end
        return self._response("incomplete" if end == "length" else "completed", output, end)

    def _event(self, kind: str, **data: object) -> str:
        data = {"type": kind, "sequence_number": self.number, **data}
        self.number += 1
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"

    async def events(self) -> AsyncGenerator[str, None]:
        """As typed events."""
        yield self._event("response.created", response=self._response("in_progress", []))
        yield self._event("response.in_progress", response=self._response("in_progress", []))
        watch, text, end, calls = CallWatch(), "", None, list[ToolCall]()
        place = {"output_index": 0, "item_id": self.item, "content_index": 0}
        begun = False
        pieces = self.request.pieces()
        try:
            async for piece in pieces:
                new, end = piece.text, piece.end
                if self.tools:
                    new = watch.add(new)
                    if end is not None:
                        rest, calls = watch.end(self.tools)
                        new += rest
                if not begun and (new or (end is not None and not calls)):
                    begun = True
                    item = self._message("", "in_progress")
                    yield self._event("response.output_item.added", output_index=0, item=item)
                    yield self._event("response.content_part.added", **place, part=self._part(""))
                if new:
                    text += new
                    yield self._event("response.output_text.delta", **place, delta=new, logprobs=[])
        finally:
            await pieces.aclose()
        output = []
        if begun:
            output.append(self._message(text, "completed"))
            yield self._event("response.output_text.done", **place, text=text, logprobs=[])
            yield self._event("response.content_part.done", **place, part=self._part(text))
            yield self._event("response.output_item.done", output_index=0, item=output[0])
        for one in calls:
            item, index = self._call(one), len(output)
            where = {"output_index": index, "item_id": item["id"]}
            empty = {**item, "arguments": "", "status": "in_progress"}
            yield self._event("response.output_item.added", output_index=index, item=empty)
            yield self._event("response.function_call_arguments.delta", **where, delta=one.arguments)
            yield self._event("response.function_call_arguments.done", **where, name=one.name, arguments=one.arguments)
            yield self._event("response.output_item.done", output_index=index, item=item)
            output.append(item)
        status = "incomplete" if end == "length" else "completed"
        yield self._event(f"response.{status}", response=self._response(status, output, end))

    def late(self, problem: Problem) -> str:
        """The last event of a stream that failed."""
        return self._event("error", code=problem.code, message=problem.message, param=problem.param)

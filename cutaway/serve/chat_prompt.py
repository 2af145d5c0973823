"""Messages as clients send them, and as a model's chat template reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cutaway.errors import TokenizerError
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem
from cutaway.serve.served_model import ServedModel
from cutaway.serve.tool_calls import instruction


class TextPart(Body):
    """A part of a message; there are only texts."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class CalledFunction(Body):
    """The function of a call, its arguments as JSON."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class MadeCall(Body):
    """A call that the assistant made earlier."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None


class Message(Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[MadeCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} needs content")
        return self


class FunctionSchema(Body):
    """A function that may be called."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool: there are only functions."""

    type: Literal["function"] = "function"
    function: FunctionSchema


def plain_message(message: Message) -> dict[str, Any]:
    """A message as templates read it: one text, arguments as objects."""
    content = message.content
    text = "".join(part.text for part in content) if isinstance(content, list) else content
    role = "system" if message.role == "developer" else "tool" if message.role == "function" else message.role
    found: dict[str, Any] = {"role": role, "content": text or ""}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if getattr(message, name) is not None:
            found[name] = getattr(message, name)
    if message.tool_calls:
        found["tool_calls"] = [
            {"type": "function", "function": {"name": call.function.name, "arguments": _object(call.function)}}
            for call in message.tool_calls
        ]
    return found


def _object(function: CalledFunction) -> object:
    if isinstance(function.arguments, dict):
        return function.arguments
    try:
        return json.loads(function.arguments or "{}")
    except (ValueError, RecursionError):
        raise Problem(
            400, f"messages: the arguments of {function.name[:64]!r} are not JSON.", param="messages"
        ) from None


def write_chat(served: ServedModel, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str:
    """The conversation as the model was trained to read it, up to where it answers.

    Raises Problem: no chat template, or one that refuses these messages.
    """
    tokenizer = served.reader
    shown = list(messages)
    try:
        template = tokenizer.get_chat_template(None, list(tools) or None)
        if tools and "tools" not in template:  # else the template would leave them out without a word
            told = instruction(tools)
            if shown and shown[0]["role"] == "system":
                shown[0] = {**shown[0], "content": f"{shown[0]['content']}\n\n{told}"}
            else:
                shown.insert(0, {"role": "system", "content": told})
        text: str = tokenizer.apply_chat_template(
            shown, tools=list(tools) or None, add_generation_prompt=True, tokenize=False
        )
    except TokenizerError as error:
        raise Problem(400, f"messages: {error}", param="messages") from None
    return text

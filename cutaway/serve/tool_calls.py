"""Calls of tools: how a model is told of tools that its template does not know, and its calls read back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cutaway.serve.problem import Problem

OPEN, CLOSE = "<tool_call>", "</tool_call>"  # as Hermes, Qwen and SmolLM write them
LISTED = "[TOOL_CALLS]"  # as Mistral does


@dataclass(frozen=True)
class ToolCall:
    """One call: the tool's name, and its arguments as JSON."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")

    def shaped(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def instruction(tools: Sequence[dict[str, Any]]) -> str:
    """What a model is told whose chat template has no place for tools."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        f"You may call these functions:\n<tools>\n{listed}\n</tools>\nTo call one, answer with a JSON object that "
        f'names it and its arguments, inside {OPEN}{CLOSE}: {OPEN}{{"name": ..., "arguments": {{...}}}}{CLOSE}'
    )


def call_schema(tools: Sequence[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """The JSON schema of a call of one of the tools, or of the one that is named."""
    forms = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object", "additionalProperties": False},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
        if name in (None, tool["function"]["name"])
    ]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def required_call(required: bool, name: str | None, tools: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The form of an answer that must be a call: of the tool `name`, or of any; None where none is required.

    Raises Problem where `tools` do not hold what `tool_choice` asks for.
    """
    if not required and name is None:
        return None
    names = [tool["function"]["name"] for tool in tools]
    if not tools or (name is not None and name not in names):
        raise Problem(400, f"tool_choice asks for {name or 'a tool'!r:.80}, and tools holds {names}.",
                      param="tool_choice")  # fmt: skip
    return {"json_schema": call_schema(tools, name)}


def read_calls(text: str, names: Sequence[str]) -> tuple[str, list[ToolCall]]:
    """The text before any calls, and the calls; what is no call of a known tool stays text."""
    if OPEN in text:
        before, *blocks = text.split(OPEN)
        found = [call for block in blocks for call in _calls(block.partition(CLOSE)[0], names)]
        if found:
            return before.rstrip(), found
        return text, []
    stripped = text.strip().removeprefix(LISTED).strip()
    found = _calls(stripped, names) if stripped[:1] in ("{", "[") else []
    return ("", found) if found else (text, [])


def _calls(text: str, names: Sequence[str]) -> list[ToolCall]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict) or one.get("name") not in names:
            return []
        arguments = one.get("arguments", one.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                return []
        if not isinstance(arguments, dict):
            return []
        found.append(ToolCall(one["name"], json.dumps(arguments, ensure_ascii=False)))
    return found


class CallWatch:
    """Lets text through while it is streamed, until it begins to look like a call; then keeps all of it."""

    def __init__(self) -> None:
        self.text = ""  # everything
        self.given = 0  # characters that went out
        self.keeps = False

    def add(self, piece: str) -> str:
        """The text that may go out now."""
        from cutaway.serve.text_reader import begun

        self.text += piece
        if self.keeps:
            return ""
        at = self.text.find(OPEN)
        first = self.text.lstrip()[:1]
        if at >= 0 or first in ("{", "["):
            self.keeps = True
            end = max(at, self.given) if at >= 0 and first not in ("{", "[") else self.given
        else:
            end = len(self.text) - begun(self.text, (OPEN,))
        out, self.given = self.text[self.given : end], max(self.given, end)
        return out

    def end(self, names: Sequence[str]) -> tuple[str, list[ToolCall]]:
        """What is left of the text, and the calls in it."""
        _, calls = read_calls(self.text, names)
        return ("" if calls else self.text[self.given :]), calls

"""A conversation in the terminal: its messages, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutaway.errors import InputError
from cutaway.jsonfile import write_text

FORM = "cutaway.conversation/1"
ROLES = ("system", "user", "assistant")


@dataclass
class Conversation:
    """messages: {"role", "content"} each, the system's first where there is one."""

    messages: list[dict[str, str]] = field(default_factory=list)

    def say(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})

    def set_system(self, text: str) -> None:
        """Put `text` before everything; an empty one takes it away."""
        self.messages = [one for one in self.messages if one["role"] != "system"]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def take_back(self) -> None:
        """Forget the last answer, or the last question that got none."""
        if self.messages and self.messages[-1]["role"] != "system":
            self.messages.pop()

    def save(self, path: Path) -> None:
        write_text(path, json.dumps({"form": FORM, "messages": self.messages}, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def open(cls, path: Path) -> Conversation:
        """What `save` wrote; InputError where it is something else."""
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: {error}. Give a file that /save wrote.") from None
        messages = data.get("messages") if isinstance(data, dict) and data.get("form") == FORM else None
        fits = isinstance(messages, list) and all(
            isinstance(one, dict) and set(one) == {"role", "content"} and one["role"] in ROLES
            and isinstance(one["content"], str) for one in messages
        )  # fmt: skip
        if not fits:
            raise InputError(f"{path} is no conversation that /save wrote.")
        return cls(messages)  # type: ignore[arg-type]


def read_file(path: Path, most: int = 1 << 20) -> str:
    """A file as a part of a message; InputError where it is no text, or more than `most` bytes."""
    try:
        if path.stat().st_size > most:
            raise InputError(f"{path} has {path.stat().st_size} bytes; at most {most} are read into a message.")
        return f"File {path.name}:\n{path.read_text(encoding='utf-8')}"
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}. Give a file of text in UTF-8.") from None

"""What a chat template runs in: Jinja's sandbox with bounds, inside a process that reads requests and writes answers.

`chat_worker` starts this file as a program of its own, so it imports nothing of cutaway. A request is marshalled plain
data from our own process; an answer is one byte and a text, since nothing that a template made is ever parsed.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import jinja2
    from jinja2.runtime import Context

# How an answer begins: the text, or what went wrong (followed by the reason).
DONE, INVALID, FAILED, TOO_LARGE = b"dife"
SIZE = struct.Struct("<Q")
# Put around what the assistant writes: code points that Unicode reserves for use inside a program.
OPEN, CLOSE = "\ufdd0", "\ufdd1"
_LONGEST_REPEAT = 10_000_000
HAS_CLOCK = hasattr(signal, "setitimer")


@lru_cache(maxsize=32)
def compiled(template: str) -> jinja2.Template:
    """The template in a sandbox; jinja2's TemplateError, or RecursionError, where it is no Jinja."""
    import jinja2
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `{% generation %}...{% endgeneration %}` marks what the assistant writes."""

        def __init__(self, environment: jinja2.Environment) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Callable[[], str]) -> str:
            return f"{OPEN}{caller()}{CLOSE}"

    class Sandbox(ImmutableSandboxedEnvironment):
        """The sandbox, with `*` and `**` kept from filling the memory."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            if operator == "*" and isinstance(left, int) != isinstance(right, int):
                thing, times = (right, left) if isinstance(left, int) else (left, right)
                if hasattr(thing, "__len__") and len(thing) * max(times, 0) > _LONGEST_REPEAT:
                    raise SecurityError("a chat template may not build a text of that length")
            if operator == "**" and (abs(left) > 10**6 or abs(right) > 64):
                raise SecurityError("a chat template may not compute a power of that size")
            return super().call_binop(context, operator, left, right)

    class Namespace(jinja2.utils.Namespace):
        """Jinja's namespace without the names that Python itself uses."""

        def __setitem__(self, name: str, value: object) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a chat template may not set {name!r} on a namespace")
            super().__setitem__(name, value)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **layout)  # Jinja's own filter escapes for HTML

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=lambda pattern: datetime.now().strftime(pattern),
        namespace=Namespace,
    )
    return environment.from_string(template)


def answer(template: str, variables: dict[str, Any], most_characters: int) -> tuple[int, str]:
    """(DONE, text), or what went wrong and why; a text of over `most_characters` is TOO_LARGE."""
    try:
        program = compiled(template)
    except MemoryError:
        return TOO_LARGE, "memory"
    except Exception as error:  # any damage in the text can come out of Jinja and of Python's own compiler
        return INVALID, _reason(error)
    pieces, made = [], 0
    try:
        for piece in program.generate(**variables):
            made += len(piece)
            if made > most_characters:
                return TOO_LARGE, "characters"
            pieces.append(piece)
        return DONE, "".join(pieces)
    except MemoryError:
        pieces.clear()
        return TOO_LARGE, "memory"
    except Exception as error:  # the template is foreign code, so any exception can come out of it
        return FAILED, _reason(error)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:2000]


def read_frame(stream: BinaryIO) -> bytes | None:
    """One message, or None where the other side has gone."""
    head = stream.read(SIZE.size)
    if len(head) < SIZE.size:
        return None
    (size,) = SIZE.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def main() -> None:
    """Answer requests until the other side goes: (template, variables, seconds, bytes, characters)."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asked
    first = read_frame(requests)
    if first is None:
        return
    sys.path[:] = marshal.loads(first)  # noqa: S302 - both ends of the pipe are ours
    compiled("")  # imports Jinja before the first clock runs
    answers.write(b"ready")
    answers.flush()
    while (frame := read_frame(requests)) is not None:
        template, variables, seconds, memory, characters = marshal.loads(frame)  # noqa: S302
        with _limits(seconds, memory):
            status, text = answer(template, variables, characters)
        body = bytes([status]) + text.encode("utf-8", "surrogatepass")
        answers.write(SIZE.pack(len(body)) + body)
        answers.flush()


@contextlib.contextmanager
def _limits(seconds: float, memory: int) -> Iterator[None]:
    """End this process after so many seconds of computing, and refuse it memory beyond what it has plus `memory`.

    The timer's signal has no handler, so no code, in C or in Python, can run on past it.
    """
    try:
        import resource

        now = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = now + memory if hard == resource.RLIM_INFINITY else min(now + memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (ImportError, OSError, ValueError):  # not Linux: the clock alone
        resource = None  # type: ignore[assignment]
    if HAS_CLOCK:
        signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        if HAS_CLOCK:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if resource is not None:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


if __name__ == "__main__":
    main()

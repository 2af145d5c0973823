"""`cutaway chat`: a conversation with a model in the terminal."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.commands.chat_partner import LocalModel, Partner, Said, Server
from cutaway.commands.conversation import Conversation, read_file
from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.option import Dtypes, Offline, Revision, Threads, load_arguments
from cutaway.errors import CutawayError, InputError, nearest

HELP = """/system TEXT   what the model is told before everything; without a text, nothing
/file PATH     read a file into your next message
/explain       each token of the last answer: its probability, and what else could have stood there
/retry         answer the last message once more
/clear         begin anew
/save PATH     keep the conversation in a file
/open PATH     go on with one
/quit          end; so do Ctrl-D and an empty stdin
A line that ends in \\ goes on in the next one."""
COMMANDS = ("/system", "/file", "/explain", "/retry", "/clear", "/save", "/open", "/quit", "/help")


def chat(
    model: Annotated[
        str | None, typer.Argument(help="A name, a folder or a .gguf file; of a server, its name.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="Talk to a running server: http://127.0.0.1:8000.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A file that the first message begins with. Repeatable.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with a conversation that /save kept.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: the likeliest tokens; above, bolder.")] = 0.7,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens that make up p.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answers.")] = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Talk with a model. In the conversation, /help lists what else there is."""
    if model is None and server is None:
        raise typer.BadParameter("Give a model, or --server with the address of one that is running.")
    conversation = Conversation() if resume is None else Conversation.open(resume)
    if system is not None:
        conversation.set_system(system)
    parts = [read_file(path) for path in file or ()]
    partner: Partner
    if server is not None:
        partner = Server(server, model, os.environ.get("CUTAWAY_API_KEY"))
    else:
        partner = LocalModel(str(model), load_arguments(revision, offline, threads, dtype))
    settings = {"max_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    Talk(partner, conversation, settings, parts).run()


class Talk:
    """Reads lines, answers them, and does what commands say."""

    def __init__(
        self, partner: Partner, conversation: Conversation, settings: dict[str, Any], parts: list[str]
    ) -> None:
        self.partner, self.conversation, self.settings, self.parts = partner, conversation, settings, parts
        self.said: list[Said] = []

    def run(self) -> None:
        """Until the end of stdin, or /quit."""
        if sys.stdin.isatty():
            write("A conversation; /help lists the commands.")
        while (line := self._line()) is not None:
            if not line.strip():
                continue
            try:
                if not line.startswith("/"):
                    self._answer("\n\n".join([*self.parts, line]))
                    self.parts = []
                elif not self._command(*_parted(line)):
                    return
            except CutawayError as error:
                write(f"! {error}")
            except KeyboardInterrupt:
                write("\n! stopped")

    def _line(self) -> str | None:
        """One line of the user's, or several that end in a backslash; None at the end."""
        lines: list[str] = []
        while True:
            try:
                line = input("> " if sys.stdin.isatty() and not lines else "")
            except (EOFError, KeyboardInterrupt):
                return None
            lines.append(line.removesuffix("\\"))
            if not line.endswith("\\"):
                return "\n".join(lines)

    def _answer(self, text: str) -> None:
        from cutaway.show.label import visible_lines

        self.conversation.say("user", text)
        self.said, answer = [], ""
        try:
            for piece in self.partner.answer(self.conversation.messages, self.settings):
                self.said.append(piece)
                answer += piece.text
                write(visible_lines(piece.text), end="")
        except CutawayError:
            self.conversation.take_back()
            raise
        finally:
            write("")
            if answer:
                self.conversation.say("assistant", answer)

    def _command(self, name: str, rest: str) -> bool:
        """Whether to go on."""
        match name:
            case "/quit":
                return False
            case "/help":
                write(HELP)
            case "/system":
                self.conversation.set_system(rest)
            case "/clear":
                self.conversation.messages = [one for one in self.conversation.messages if one["role"] == "system"]
            case "/file":
                self.parts.append(read_file(_path(name, rest)))
            case "/save":
                self.conversation.save(_path(name, rest))
            case "/open":
                self.conversation = Conversation.open(_path(name, rest))
                self.said = []
            case "/retry":
                self._retry()
            case "/explain":
                self._explain()
            case _:
                raise InputError(f"{name} is not a command.{nearest(name, COMMANDS)}")
        return True

    def _retry(self) -> None:
        if self.conversation.messages and self.conversation.messages[-1]["role"] == "assistant":
            self.conversation.take_back()
        if not self.conversation.messages or self.conversation.messages[-1]["role"] != "user":
            raise InputError("There is no message to answer once more.")
        self._answer(self.conversation.messages.pop()["content"])

    def _explain(self) -> None:
        from cutaway.show.label import printable

        told = self.partner.explain(self.said) if self.said else []
        if not told:
            raise InputError("There is no answer to explain yet.")
        table = table_of("token", "probability>", "instead of")
        for one in told:
            assert one.logprob is not None
            others = [f"{printable(text)!r} {math.exp(value):.0%}" for text, value in one.top if text != one.token]
            table.add_row(
                plain(repr(printable(one.token))), f"{math.exp(one.logprob):.1%}", plain(", ".join(others[:4]))
            )
        console().print(table)


def _parted(line: str) -> tuple[str, str]:
    name, _, rest = line.partition(" ")
    return name, rest.strip()


def _path(name: str, rest: str) -> Path:
    if not rest:
        raise InputError(f"{name} needs a path.")
    return Path(rest).expanduser()

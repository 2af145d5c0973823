"""`cutaway serve`: models behind the APIs that people's clients speak."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.commands.option import Dtypes, Offline, Revision, Threads
from cutaway.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY = "--api-key"


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL [NAME=MODEL ...]", help="A name, folder or .gguf file.")
    ],
    host: Annotated[str, typer.Option(help="Where to listen; any but this machine itself needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 for any that is free.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(KEY, envvar="CUTAWAY_API_KEY", help="What requests must bring: Authorization: Bearer KEY."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="A file that holds the key.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name that Host may have, beside this machine's. May be repeated.")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="A page (https://example.org) that may call. May be repeated.")
    ] = None,
    max_body_mb: Annotated[float, typer.Option(help="MB of one request's body.")] = 8,
    max_header_kb: Annotated[float, typer.Option(help="KB of one request's headers.")] = 32,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at once; one more is answered 429.")] = 256,
    max_inputs: Annotated[int, typer.Option(min=1, help="Texts in one request.")] = 1024,
    max_running: Annotated[int, typer.Option(min=1, help="Texts that are written together.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one answer.")] = 4096,
    default_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of an answer whose request does not say how many.")
    ] = 1024,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens in one pass of a model.")] = 4096,
    piece_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of prompts in one pass while texts are written.")
    ] = 64,
    explain_tokens: Annotated[int, typer.Option(min=0, help="Tokens of a text that is explained; 0: none is.")] = 256,
    memory_mb: Annotated[float, typer.Option(help="MB for keys and values of texts that are written.")] = 2048,
    prefix_mb: Annotated[float, typer.Option(min=0, help="MB for those of earlier prompts; 0 keeps none.")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds that one request may take.")] = 600,
    body_timeout: Annotated[float, typer.Option(help="Seconds in which its body must arrive.")] = 30,
    header_timeout: Annotated[float, typer.Option(help="Seconds in which its headers must arrive.")] = 15,
    drain: Annotated[float, typer.Option(help="Seconds that answers may go on after SIGTERM.")] = 60,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write what people send into the log.")] = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Serve models: OpenAI's, Ollama's, TEI's and the hub's clients connect; POST /explain shows the inside."""
    from cutaway.serve import require_packages
    from cutaway.serve.settings import LOOPBACK as OWN
    from cutaway.serve.settings import Access, Limits

    require_packages()
    if api_key is not None and api_key_file is not None:
        raise typer.BadParameter("--api-key and --api-key-file exclude each other.")
    os.environ.pop("CUTAWAY_API_KEY", None)  # the worker is told another way
    if api_key is not None and any(one == KEY or one.startswith(f"{KEY}=") for one in sys.argv):
        _without_key_in_title(api_key)
    key = read_key(api_key_file) if api_key_file is not None else api_key
    if host not in LOOPBACK and key is None:
        raise InputError(
            f"--host {host} can be reached from other machines: give --api-key or --api-key-file as well, or listen on "
            "127.0.0.1."
        )
    limits = Limits(
        body_bytes=int(max_body_mb * (1 << 20)),
        header_bytes=int(max_header_kb * (1 << 10)),
        requests=max_requests,
        inputs=max_inputs,
        running=max_running,
        new_tokens=max_new_tokens,
        default_tokens=default_tokens,
        batch_tokens=batch_tokens,
        piece_tokens=piece_tokens,
        explain_tokens=explain_tokens,
        memory_bytes=int(memory_mb * (1 << 20)),
        prefix_bytes=int(prefix_mb * (1 << 20)),
        seconds=timeout,
        body_seconds=body_timeout,
        header_seconds=header_timeout,
        drain_seconds=drain,
    )
    # beyond this machine the key is what counts, unless names are given
    hosts = (
        None if host not in LOOPBACK and not allowed_host else (*OWN, *(name.lower() for name in allowed_host or ()))
    )
    access = Access(key, hosts, tuple(cors or ()))
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    options: dict[str, Any] = {"revision": revision, "dtype": dtype and dtype.value}
    if offline:
        options["model_kwargs"] = {"local_files_only": True}
    from cutaway.serve.supervisor import Supervisor

    told = {
        "models": sources(models),
        "limits": vars(limits),
        "access": {"key": access.key, "hosts": access.hosts, "origins": access.origins},
        "options": {name: value for name, value in options.items() if value is not None},
        "log_texts": log_texts,
        "threads": threads,
    }
    raise typer.Exit(Supervisor(host, port, told).run())


def sources(models: list[str]) -> dict[str, str]:
    """{name: model} from MODEL and NAME=MODEL; InputError for a name that comes twice."""
    found: dict[str, str] = {}
    for given in models:
        name, mark, source = given.partition("=")
        if not mark or Path(given).exists():
            path = Path(given)
            name, source = (path.stem if path.suffix.lower() == ".gguf" else path.resolve().name), given
            if not path.exists():
                name = given
        if not name or not source:
            raise InputError(f"{given!r}: give MODEL, or NAME=MODEL.")
        if name in found:
            raise InputError(f"Two models are called {name!r}: name one of them, as in other={source}.")
        found[name] = source
    return found


def read_key(path: Path) -> str:
    """The key that a file holds, spaces around it aside."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--api-key-file {path}: {error}. Give a file with the key as plain text.") from None


def _without_key_in_title(key: str) -> None:
    """Begin anew without the key among the arguments, where everybody on this machine can read it."""
    arguments = [sys.executable, "-m", "cutaway"]
    left = iter(sys.argv[1:])
    for argument in left:
        if argument == KEY:
            next(left, None)
        elif not argument.startswith(f"{KEY}="):
            arguments.append(argument)
    read, write = os.pipe()
    os.write(write, key.encode())
    os.close(write)
    os.set_inheritable(read, True)
    os.execv(sys.executable, [*arguments, "--api-key-file", f"/dev/fd/{read}"])

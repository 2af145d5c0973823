"""The local page on which texts are labelled: one file, no request to anywhere else, behind the server's own guards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files
from socket import socket
from typing import TYPE_CHECKING, Any

from cutaway.errors import CutawayError, InputError, OutputError
from cutaway.serve.settings import Access, Limits
from cutaway.show.paper import page_of, sha256, style
from cutaway.texts.labelling import Labelling

if TYPE_CHECKING:
    from starlette.applications import Starlette

SMALL = Limits(body_bytes=1 << 16, header_bytes=16 << 10)
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Guarded:
    """What the guards ask of a server: only this machine's names, only its own pages, small bodies."""

    access: Access = field(default_factory=Access)
    limits: Limits = SMALL
    open_paths: frozenset[str] = frozenset()


def label_page(title: str, journal: str) -> tuple[str, str]:
    """(the page, its content policy)."""
    assets = files("cutaway.texts")
    script = (assets / "label_page.js").read_text("utf-8")
    look = style() + (assets / "label_page.css").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {sha256(script)}; style-src {sha256(look)}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    template = (assets / "label_page.html").read_text("utf-8")
    return page_of(template, title, look, policy, script=script, journal=journal), policy


def label_app(labelling: Labelling, title: str, *, model: bool = False) -> Starlette:
    """The ASGI app.

    `GET /` is the page, `GET /item` the next text (or `?place=N`), `POST /answer` keeps {"place": 3, "label": "x"}
    (null skips) and gives the next one. What is wrong is {"error": ...} with 400, and 507 where it could not be kept.

    Args:
        model: whether proposals come.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    from cutaway.serve.guards import Gate

    page, policy = label_page(title, str(labelling.journal.path))

    def state(place: int | None) -> Response:
        item = None
        if place is not None:
            proposal = labelling.proposals.get(place)
            item = {
                "place": place,
                "row": labelling.table.rows[place],
                "text": labelling.table.texts[place],
                "label": labelling.label_of(place),
                "proposal": proposal and proposal.label,
                "scores": proposal and dict(proposal.scores),
            }
        told: dict[str, Any] = {
            "item": item,
            "labels": labelling.labels,
            "progress": labelling.progress(),
            "right": labelling.agreement(),
            "model": model,
            "failure": labelling.failure,
        }
        return JSONResponse(told, headers=HEADERS)

    async def shown(request: Request) -> Response:
        policy_header = {
            "content-security-policy": f"{policy}; frame-ancestors 'none'",
            "referrer-policy": "no-referrer",
        }
        return HTMLResponse(page, headers=HEADERS | policy_header)

    async def item(request: Request) -> Response:
        asked = request.query_params.multi_items()
        if asked and [name for name, _ in asked] != ["place"]:
            return wrong(400, "The query takes place=, once, and nothing else.")
        given = request.query_params.get("place")
        if given is None:
            return state(labelling.next())
        if not given.isdecimal() or len(given) > 20 or not int(given) < len(labelling):  # int reads no 5,000 digits
            return wrong(400, f"place={given!r:.20}: there are {len(labelling):,} texts.")
        return state(int(given))

    async def answer(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return wrong(415, "Send application/json.")
        content = b""
        async for piece in request.stream():
            content += piece
            if len(content) > SMALL.body_bytes:
                return wrong(413, f"An answer takes at most {SMALL.body_bytes} bytes.")
        try:
            told = json.loads(content)
            place, label = told["place"], told["label"]
            if not isinstance(place, int) or isinstance(place, bool) or not (label is None or isinstance(label, str)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            return wrong(400, 'An answer is {"place": 3, "label": "a label, or null to skip"}.')
        try:
            labelling.answer(place, label)
        except InputError as error:
            return wrong(400, str(error))
        except OutputError as error:
            return wrong(507, str(error))
        return state(labelling.next(after=place))

    def wrong(status: int, message: str) -> Response:
        return JSONResponse({"error": message}, status, headers=HEADERS)

    async def refused(request: Request, error: Exception) -> Response:
        return wrong(getattr(error, "status_code", 500), "There is no such path.")

    return Starlette(
        routes=[
            Route("/", shown, methods=["GET"]),
            Route("/item", item, methods=["GET"]),
            Route("/answer", answer, methods=["POST"]),
        ],
        middleware=[Middleware(Gate, Guarded())],
        exception_handlers={404: refused, 405: refused},
    )


def run(app: Starlette, listener: socket) -> None:
    """Serve on a listening socket until Ctrl-C.

    Raises CutawayError where the server cannot run.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", log_config=None, access_log=False)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except SystemExit as error:
        raise CutawayError("The page's server could not start.") from error

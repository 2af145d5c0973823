"""The ASGI app: routes behind guards, around one service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from cutaway.serve.guards import Capacity, Gate, Journal
from cutaway.serve.openapi import make_document
from cutaway.serve.problem import Problem, form_of, own_path
from cutaway.serve.route import Route
from cutaway.serve.routes import ROUTES
from cutaway.serve.service import Service
from cutaway.serve.settings import Access, Limits


class Starter:
    """Begins to load with the first request, for an app whose lifespan nobody runs."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.service.start()
        await self.app(scope, receive, send)


def make_app(
    models: object, *, limits: Limits | None, access: Access | None, log_texts: bool = False, **options: object
) -> Starlette:
    """See `cutaway.serve.app`."""
    return app_of(Service(models, limits, access, log_texts, **options))


def app_of(service: Service, routes: Sequence[Route] = ()) -> Starlette:
    """The app of a service; `app.state.service` is it. `routes`: more of them, behind the same guards."""
    service.document = partial(make_document, ROUTES)
    service.open_paths = frozenset(route.path for route in routes if route.is_open)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        told = {
            404: "There is no such path; GET /openapi.json lists them.",
            405: f"method={request.method!r:.20} is not one that this path has.",
        }.get(error.status_code, error.detail)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if error.status_code == 405:  # several routes may share a path, each with a method of its own
            there = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
            headers["allow"] = ", ".join(sorted({name for route in there for name in getattr(route, "methods", ())}))
        problem = Problem(error.status_code, told, code="not_found", headers=headers)
        return problem.response(form_of(own_path(request.scope)))

    app = Starlette(
        routes=[Path(route.path, route.asgi(service), methods=[route.method]) for route in (*routes, *ROUTES)],
        middleware=[Middleware(guard, service) for guard in (Journal, Gate, Capacity, Starter)],
        exception_handlers={HTTPException: refused},
        lifespan=lifespan,
    )
    app.state.service = service
    return app

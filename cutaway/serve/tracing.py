"""Spans of OpenTelemetry for requests, where its package is installed; nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Span(Protocol):
    """What is used of OpenTelemetry's spans."""

    def update_name(self, name: str) -> None: ...

    def set_attribute(self, key: str, value: str | int | float) -> None: ...

    def end(self) -> None: ...


class Tracer(Protocol):
    """What is used of OpenTelemetry's tracers."""

    def start_span(self, name: str, context: object = None) -> Span: ...


class Spans:
    """One span for each request, a child of the one that the client names in `traceparent`."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.extract: Callable[[dict[str, str]], object] | None = None
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            return
        self.tracer, self.extract = trace.get_tracer("cutaway.serve"), propagate.extract

    def begin(self, headers: Mapping[str, str]) -> Span | None:
        """A span that has begun; None without the package."""
        if self.tracer is None or self.extract is None:
            return None
        return self.tracer.start_span("request", context=self.extract(dict(headers)))

    @staticmethod
    def end(span: Span | None, method: str, route: str, status: int, said: Mapping[str, Any]) -> None:
        """End it under its route's name, with what is known of the request; no text of anybody's."""
        if span is None:
            return
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        for name in ("model", "prompt_tokens", "tokens", "texts", "first_token"):
            if name in said:
                span.set_attribute(f"cutaway.{name}", said[name])
        span.end()

"""The OpenAPI document of the server, from the table of routes."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from cutaway import __version__
from cutaway.serve.problem import form_of
from cutaway.serve.route import Route

_STATUS = {
    "400": "A field is wrong; the message names it.",
    "401": "The API key is missing or wrong.",
    "403": "The page that calls may not.",
    "404": "There is no such model or path.",
    "408": "The body did not arrive in time.",
    "413": "The body, or a text, is larger than the server takes.",
    "415": "The body is not JSON.",
    "421": "The Host header names another server.",
    "422": "A field is wrong; the message names it.",
    "429": "The server has all the requests that it takes; see Retry-After.",
    "500": "The server failed.",
    "503": "The models are not loaded yet.",
    "504": "The answer took longer than a request may take.",
}
_ERRORS: dict[str, Any] = {
    "openai": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "tei": {
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {
            "error": {"type": "string"},
            "error_type": {"type": "string"},
            "param": {"type": ["string", "null"]},
        },
    },
    "ollama": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
}
_OTHER = {
    ("GET", "/metrics"): ["text/plain"],
    ("GET", "/"): ["text/plain"],
    ("POST", "/explain"): ["application/json", "text/html", "application/octet-stream"],
}
_STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/models/", "/pipeline/")


@cache
def make_document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes: each path with the schema of its body, its answers and its errors."""
    schemas: dict[str, Any] = {f"{name.title()}Error": schema for name, schema in _ERRORS.items()}
    paths: dict[str, Any] = {}
    for route in routes:
        path = re.sub(r":path\}", "}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cutaway", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    form = route.form or form_of(route.path)
    kinds = _OTHER.get((route.method, route.path), ["application/json"])
    if route.method == "POST" and path.startswith("/api/"):
        kinds = [*kinds, "application/x-ndjson"]
    elif route.method == "POST" and (path.startswith(_STREAMED) or path == "/"):
        kinds = [*kinds, "text/event-stream"]
    refused = {"$ref": f"#/components/schemas/{form.title()}Error"}
    errors = {
        status: {"description": told, "content": {"application/json": {"schema": refused}}}
        for status, told in _STATUS.items()
    }
    if path == "/health":
        errors["503"] = {"description": _STATUS["503"], "content": {"application/json": {"schema": {}}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z0-9]+', '_', path.lower())}",
        "responses": {"200": {"description": "Done.", "content": {kind: {"schema": {}} for kind in kinds}}, **errors},
    }
    names = re.findall(r"\{(\w+)\}", path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.query:
        operation.setdefault("parameters", []).extend(
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query
        )
    if route.read is not None:
        schema = route.read.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, part in schema.pop("$defs", {}).items():
            schemas.setdefault(name, part)

        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation

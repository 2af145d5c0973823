"""Problem: a request that gets no answer, and the body that says so in the form its client reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from starlette.responses import Response

from cutaway.errors import CutawayError

Form = Literal["openai", "tei", "ollama"]

# OpenAI's name for what is wrong, and TEI's, by status.
_OPENAI = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TEI = {413: "Validation", 422: "Validation", 424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
_CODES = {401: "invalid_api_key", 413: "too_large", 429: "rate_limit_exceeded", 503: "not_ready", 504: "timeout"}


class Problem(CutawayError):
    """A request that is refused.

    Attributes:
        status: of HTTP. param: the field that is wrong. code: a word for programs. retry_after: seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or _CODES.get(status)
        self.retry_after = retry_after
        self.headers = dict(headers or {})

    def body(self, form: Form) -> dict[str, Any]:
        """The body, as the clients of that form read it."""
        if form == "ollama":
            return {"error": self.message}
        if form == "tei":
            return {"error": self.message, "error_type": _TEI.get(self.status, "Validation"), "param": self.param}
        kind = _OPENAI.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, form: Form) -> Response:
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        content = json.dumps(self.body(form), ensure_ascii=True)
        return Response(content, self.status, headers, media_type="application/json")


def own_path(scope: Mapping[str, Any]) -> str:
    """The path of a request as this app's routes have it, wherever the app is mounted."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path or "/"


def form_of(path: str) -> Form:
    """The form of errors under a path."""
    if path.startswith("/v1/"):
        return "openai"
    return "ollama" if path.startswith("/api/") else "tei"

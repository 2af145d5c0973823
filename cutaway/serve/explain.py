"""POST /explain: what a model does with a text, as JSON, as a page, or as a trace."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field
from starlette.responses import Response

from cutaway.errors import CutawayError
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call
from cutaway.serve.served_model import ServedModel

if TYPE_CHECKING:
    from cutaway.inspect.explanation import Explanation
    from cutaway.inspect.trace.trace import Trace


class ExplainBody(Body):
    """A text, and what of the model is to be shown; the fields are those of `cutaway.inspect.explain`."""

    text: Annotated[str, Field(min_length=1)]
    model: str | None = None
    format: Literal["json", "page", "trace"] = "json"
    layer: int | None = None
    head: int | None = None
    attention: Literal["encoder", "decoder", "cross", "self"] | None = None
    token: str | int | None = None
    max_new_tokens: Annotated[int, Field(ge=0, le=256)] = 10
    truncation: bool = False
    context: str | None = None
    choices: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    patterns: bool = True  # all heads' weights, not only those of the head that is shown


async def explain(call: Call) -> object:
    """One run of the model, open at every joint."""
    body: ExplainBody = call.body
    served = call.service.model(body.model)
    second = body.context or max(body.choices, key=len, default=None)
    tokens = await call.in_order(served, lambda: len(served.tokenizer(body.text, second)["input_ids"]))
    check_explained(call, tokens + (body.max_new_tokens if served.generator is not None else 0), "text")
    call.said |= {"model": served.name, "prompt_tokens": tokens}
    try:
        found = await call.service.compute(_run, served, body)
        # 30 layers' weights between 200 tokens are megabytes of text, which no pass of a model should wait for
        content, kind = await asyncio.get_running_loop().run_in_executor(call.service.writers, _write, found, body)
    except CutawayError as error:
        raise Problem(400, str(error), param=_field(str(error))) from None
    return Response(content, media_type=kind)


def check_explained(call: Call, tokens: int, field: str) -> None:
    """Problem where a text has more tokens than this server explains."""
    most = call.service.limits.explain_tokens
    if tokens > most:
        told = f"{most} are explained at most" if most else "this server explains nothing (--explain-tokens 0)"
        raise Problem(413, f"{field} has {tokens} tokens, and {told}.", param=field)


def _run(served: ServedModel, body: ExplainBody) -> Explanation | Trace:
    """What is to be shown; called as a job."""
    from cutaway.inspect.explainer import explain as run
    from cutaway.inspect.trace.trace import Trace

    names = ("layer", "head", "attention", "token", "max_new_tokens", "truncation", "context", "choices")
    asked = {name: getattr(body, name) for name in names}
    if body.format == "trace":
        return Trace.of(served.model, served.explainer, body.text, **asked)
    return run(body.text, served.model, served.explainer, evidence=body.format == "page", **asked)


def _write(found: Explanation | Trace, body: ExplainBody) -> tuple[str | bytes, str]:
    """The body of the answer and its type."""
    from cutaway.inspect.page import page

    if body.format == "trace":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.trace.safetensors"
            cast("Trace", found).save(path)
            return path.read_bytes(), "application/octet-stream"
    explanation = cast("Explanation", found)
    if body.format == "page":
        return page.render(explanation), "text/html"
    return explanation.to_json(patterns=body.patterns), "application/json"


def _field(message: str) -> str:
    """The field that an error of `explain` begins with, or the text."""
    names = ("layer", "head", "attention", "token", "max_new_tokens", "context", "choices")
    return next((name for name in names if message.lower().startswith(name)), "text")

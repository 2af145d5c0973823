"""What a server says about itself: health, metrics, models, its document."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from cutaway import __version__
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call
from cutaway.serve.served_model import ServedModel


async def running(call: Call) -> object:
    """A line for those who look whether anybody is there."""
    return Response("cutaway is running\n", media_type="text/plain")


async def health(call: Call) -> object:
    """200 once every model is loaded, laid out and warm."""
    service = call.service
    if service.ready.is_set():
        return {"status": "ready", "models": list(service.models), "version": __version__}
    body = {"status": "failed" if service.error else "loading", "models": list(service.sources)}
    return Response(json.dumps(body), 503, {"retry-after": "2"}, media_type="application/json")


async def metrics(call: Call) -> object:
    """All counters, as Prometheus scrapes them."""
    return Response(call.service.metrics.text(), media_type="text/plain; version=0.0.4")


def model_entry(served: ServedModel) -> dict[str, Any]:
    """A model as OpenAI lists it, and what it does."""
    entry: dict[str, Any] = {"id": served.name, "object": "model", "created": served.created, "owned_by": "cutaway"}
    return entry | {"tasks": sorted(served.tasks), "max_model_len": served.longest}


async def models(call: Call) -> object:
    """The models of this server."""
    call.service.model(None)  # 503 until they are there
    return {"object": "list", "data": [model_entry(served) for served in call.service.models.values()]}


async def model(call: Call) -> object:
    """One model."""
    return model_entry(call.service.model(call.request.path_params["name"]))


async def info(call: Call) -> object:
    """The first model and the bounds, in TEI's words; the others under `models`."""
    first = call.service.model(None)
    limits = call.service.limits
    labels = getattr(first.model.config, "id2label", None) or {}
    kinds: dict[str, Any] = {
        "feature-extraction": {"embedding": {"pooling": "mean"}},
        "rerank": {"reranker": {"id2label": labels, "label2id": {v: k for k, v in labels.items()}}},
        "text-classification": {"classifier": {"id2label": labels, "label2id": {v: k for k, v in labels.items()}}},
    }
    known = (task for task in ("feature-extraction", "rerank", first.task) if task in first.tasks and task in kinds)
    task = next(known, None)
    kind: dict[str, Any] = kinds[task] if task is not None else {first.task: {}}
    return {
        "model_id": first.name,
        "model_sha": None,
        "model_dtype": first.model.precision.name,
        "model_type": kind,
        "max_concurrent_requests": limits.requests,
        "max_input_length": first.longest,
        "max_batch_tokens": limits.batch_tokens,
        "max_client_batch_size": limits.inputs,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": __version__,
        "models": [model_entry(served) for served in call.service.models.values()],
    }


async def document(call: Call) -> object:
    """The OpenAPI document of this server."""
    return call.service.document()


async def wrong_path(call: Call) -> object:
    """There is nothing here."""
    raise Problem(404, "There is no such path; GET /openapi.json lists them.", code="not_found")

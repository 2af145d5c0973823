"""POST /v1/rerank: documents by how well they answer a query, as Jina's and Cohere's clients ask for it."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from pydantic import Field

from cutaway.serve.body import Body
from cutaway.serve.route import Call
from cutaway.serve.tei import ranked


class Document(Body):
    """A document with its text named."""

    text: str


class RerankBody(Body):
    """A query and documents."""

    query: str
    documents: Annotated[list[str | Document], Field(min_length=1)]
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: None = None


async def rerank(call: Call) -> object:
    """The best documents, with their places in the list and their scores."""
    body: RerankBody = call.body
    served = call.service.model(body.model, "rerank")
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    found = (await ranked(call, served, body.query, texts))[: body.top_n]
    results = []
    for one in found:
        entry: dict[str, Any] = {"index": one.index, "relevance_score": one.score}
        if body.return_documents:
            entry["document"] = {"text": one.text}
        results.append(entry)
    tokens = call.said.get("prompt_tokens", 0)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": served.name,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }

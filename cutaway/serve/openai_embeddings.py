"""POST /v1/embeddings: vectors, as OpenAI's clients ask for them."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway.serve.body import Body
from cutaway.serve.route import Call
from cutaway.serve.vectors import embed, listed


class EmbeddingBody(Body):
    """Texts or token ids."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


async def embeddings(call: Call) -> object:
    """One vector for each text, of length 1."""
    body: EmbeddingBody = call.body
    served = call.service.model(body.model, "feature-extraction")
    vectors, tokens = await embed(call, served, listed(body.input), dimensions=body.dimensions)
    packed: list[Any]
    if body.encoding_format == "base64":
        packed = [base64.b64encode(row.tobytes()).decode() for row in vectors.numpy().astype("<f4")]
    else:
        packed = vectors.tolist()
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(packed)]
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": served.name, "usage": used}

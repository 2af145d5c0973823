"""Vectors of texts, for every route that gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call
from cutaway.serve.served_model import ServedModel


class Vectors(NamedTuple):
    """vectors [texts, width], and how many tokens were read."""

    vectors: Tensor
    tokens: int


def listed(given: str | list[str] | list[int] | list[list[int]]) -> list[Any]:
    """Texts, or rows of token ids, where one alone may be given."""
    return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)


async def embed(
    call: Call,
    served: ServedModel,
    inputs: Sequence[Any],
    *,
    normalize: bool = True,
    truncate: bool = False,
    dimensions: int | None = None,
    field: str = "input",
    status: int = 400,
) -> Vectors:
    """One vector for each text (or list of ids), as the checkpoint's modules say.

    Raises Problem: too many texts, none, ids that are not there, more dimensions than there are; with `status`, a text
    that does not fit the model.
    """
    check_count(inputs, call.service.limits.inputs, field)
    pipe = served.tasks["feature-extraction"]
    if isinstance(inputs[0], list):
        _check_ids(served, inputs, field)
    width = served.model.config.hidden_size
    settings: dict[str, Any] = {"pooling": "model", "normalize": normalize or dimensions is not None}
    if truncate:
        settings["long"] = "truncate"
    try:
        results, tokens, _ = await served.batches.run(pipe, inputs, **settings)
    except InputError as error:
        raise Problem(status, f"{field}: {error}", param=field) from None
    vectors = torch.stack([result.vectors for result in results]).float()  # [texts, width]
    call.said |= {"model": served.name, "texts": len(inputs), "prompt_tokens": sum(tokens)}
    if dimensions is not None:
        width = vectors.shape[1]
        if dimensions > width:
            raise Problem(400, f"dimensions={dimensions}: the model's vectors have {width} numbers.",
                          param="dimensions")  # fmt: skip
        vectors = vectors[:, :dimensions]
        if normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return Vectors(vectors, sum(tokens))


def check_count(inputs: Sequence[Any], most: int, field: str) -> None:
    """Problem for no text, or for more than one request may hold."""
    if not inputs or len(inputs) > most:
        raise Problem(413 if inputs else 400, f"{field} holds {len(inputs)} texts: pass 1 to {most}.", param=field)


def _check_ids(served: ServedModel, inputs: Sequence[list[int]], field: str) -> None:
    size, longest = served.model.architecture.stack.embedding.vocab_size, served.longest
    for ids in inputs:
        wrong = next((i for i in ids if not 0 <= i < size), None)
        if not ids or wrong is not None:
            raise Problem(400, f"{field} holds the tokens {ids[:8]}: give at least one, each from 0 to {size - 1}.",
                          param=field)  # fmt: skip
        if longest is not None and len(ids) > longest:
            raise Problem(400, f"{field} holds {len(ids)} tokens, the model takes {longest}.", param=field)

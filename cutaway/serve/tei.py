"""The routes of text-embeddings-inference: vectors, labels, rankings, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from cutaway.errors import InputError
from cutaway.serve.attributions import attributions
from cutaway.serve.body import Body
from cutaway.serve.explain import check_explained
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call
from cutaway.serve.served_model import ServedModel
from cutaway.serve.vectors import check_count, embed, listed


class Texts(Body):
    """What the routes about one text or several have in common. `model` is ours: which of several models."""

    inputs: str | list[str]
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    model: str | None = None

    @property
    def listed(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class EmbedBody(Body):
    """Texts or token ids for /embed."""

    inputs: str | list[str] | list[int] | list[list[int]]
    normalize: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    prompt_name: str | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    model: str | None = None


class EmbedAllBody(Texts):
    """Texts for /embed_all."""

    prompt_name: None = None


class PredictBody(Body):
    """A text, a pair, or a list of lists of one or two texts for /predict."""

    inputs: str | Annotated[list[str], Field(max_length=2)] | list[Annotated[list[str], Field(max_length=2)]]
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    explain: bool | None = None  # ours: what each token adds to the best label
    model: str | None = None


class RerankBody(Body):
    """A query and texts for /rerank."""

    query: str
    texts: list[str]
    raw_scores: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    model: str | None = None


class Compared(Body):
    """One sentence and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(Body):
    """How /similarity reads its texts."""

    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    prompt_name: str | None = None


class SimilarityBody(Body):
    """What /similarity compares."""

    inputs: Compared
    parameters: SimilarityParameters | None = None
    model: str | None = None


class TokenizeBody(Body):
    """Texts for /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None
    model: str | None = None


class DecodeBody(Body):
    """Token ids for /decode."""

    ids: list[int] | list[list[int]]
    skip_special_tokens: bool | None = None
    model: str | None = None


@contextmanager
def too_long() -> Iterator[None]:
    """What a model does not take (mostly: too many tokens) is TEI's 413."""
    try:
        yield
    except InputError as error:
        raise Problem(413, f"inputs: {error}", param="inputs") from None


def long_setting(truncate: bool | None) -> dict[str, Any]:
    return {"long": "truncate"} if truncate else {}


def prompted(served: ServedModel, inputs: list[Any], name: str | None) -> list[Any]:
    """The texts with a prompt of the checkpoint before them."""
    if name is None:
        return inputs
    from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline

    pipe = served.tasks["feature-extraction"]
    known = pipe.modules().prompts if isinstance(pipe, FeatureExtractionPipeline) else {}
    if name not in known:
        raise Problem(400, f"prompt_name={name!r:.60} is none of {sorted(known)}.", param="prompt_name")
    if not all(isinstance(one, str) for one in inputs):
        raise Problem(400, "prompt_name goes before texts, and inputs holds token ids.", param="prompt_name")
    return [known[name] + one for one in inputs]


async def embed_route(call: Call) -> object:
    """A vector for each text."""
    body: EmbedBody = call.body
    served = call.service.model(body.model, "feature-extraction")
    found = await embed(
        call, served, prompted(served, listed(body.inputs), body.prompt_name), normalize=body.normalize is not False,
        truncate=bool(body.truncate), dimensions=body.dimensions, field="inputs", status=413,
    )  # fmt: skip
    return found.vectors.tolist()


async def embed_all(call: Call) -> object:
    """A vector for each token of each text."""
    body: EmbedAllBody = call.body
    served = call.service.model(body.model, "feature-extraction")
    check_count(body.listed, call.service.limits.inputs, "inputs")
    with too_long():
        pipe = served.tasks["feature-extraction"]
        read = await served.batches.run(pipe, body.listed, **long_setting(body.truncate))
    call.said |= {"model": served.name, "texts": len(body.listed), "prompt_tokens": sum(read.tokens)}
    return [result.vectors.tolist() for result in read.results]


async def predict(call: Call) -> object:
    """The labels of texts or pairs with their scores, best first."""
    body: PredictBody = call.body
    served = call.service.model(body.model, "text-classification")
    given = body.inputs
    batch = isinstance(given, list) and bool(given) and isinstance(given[0], list)
    inputs: list[Any] = list(given) if batch else [given]
    check_count(inputs if given else [], call.service.limits.inputs, "inputs")
    items = [_item(one) for one in inputs]
    settings: dict[str, Any] = {"top_k": None, **long_setting(body.truncate)}
    if body.raw_scores:
        settings["function_to_apply"] = "none"
    with too_long():
        read = await served.batches.run(served.tasks["text-classification"], items, **settings)
    call.said |= {"model": served.name, "texts": len(items), "prompt_tokens": sum(read.tokens)}
    found = [
        [{"label": label, "score": score} for label, score in zip(one.labels, one.scores, strict=True)]
        for one in read.results
    ]
    if body.explain:
        explained = []
        for item, entries, tokens in zip(items, found, read.tokens, strict=True):
            check_explained(call, tokens, "inputs")
            work = call.service.compute(attributions, served.model, served.explainer, item, entries[0]["label"])
            explained.append({"labels": entries, "attributions": await work})
        return explained if batch else explained[0]
    return found if batch else found[0]


def _item(one: str | list[str]) -> str | dict[str, str]:
    if isinstance(one, str):
        return one
    if not one:
        raise Problem(422, "inputs holds an empty list: give one text, or a text and its pair.", param="inputs")
    return one[0] if len(one) == 1 else {"text": one[0], "text_pair": one[1]}


async def ranked(
    call: Call, served: ServedModel, query: str, texts: list[str], *, raw: bool = False, truncate: bool = False
) -> list[Any]:
    """The texts in the order in which they answer the query."""
    check_count(texts, call.service.limits.inputs, "texts")
    settings: dict[str, Any] = {"function_to_apply": "none"} if raw else {}
    item = {"query": query, "documents": texts}
    read = await served.batches.run(served.tasks["rerank"], [item], **settings, **long_setting(truncate))
    call.said |= {"model": served.name, "texts": len(texts), "prompt_tokens": sum(read.tokens)}
    return list(read.results[0].documents)


async def rerank(call: Call) -> object:
    """Texts by how well they answer a query."""
    body: RerankBody = call.body
    served = call.service.model(body.model, "rerank")
    with too_long():
        found = await ranked(
            call, served, body.query, body.texts, raw=bool(body.raw_scores), truncate=bool(body.truncate)
        )
    return [
        {"index": one.index, "score": one.score, **({"text": one.text} if body.return_text else {})} for one in found
    ]


async def similarity(call: Call) -> object:
    """Cosines of one sentence with others."""
    body: SimilarityBody = call.body
    served = call.service.model(body.model, "feature-extraction")
    asked = body.parameters or SimilarityParameters()
    check_count(body.inputs.sentences, call.service.limits.inputs, "inputs.sentences")
    texts = prompted(served, [body.inputs.source_sentence, *body.inputs.sentences], asked.prompt_name)
    found = await embed(call, served, texts, truncate=bool(asked.truncate), field="inputs.sentences", status=413)
    unit = torch.nn.functional.normalize(found.vectors, dim=-1)
    return (unit[1:] @ unit[0]).tolist()


async def tokenize(call: Call) -> object:
    """The tokens of texts, and where each stands, in characters."""
    body: TokenizeBody = call.body
    served = call.service.model(body.model)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_count(texts, call.service.limits.inputs, "inputs")
    texts = prompted(served, texts, body.prompt_name)

    def read() -> list[list[dict[str, Any]]]:
        found = served.tokenizer(
            texts, add_special_tokens=body.add_special_tokens is not False, return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )  # fmt: skip
        return [
            [
                {
                    "id": id,
                    "text": served.tokenizer.convert_ids_to_tokens(id) if special else text[start:stop],
                    "special": bool(special),
                    "start": None if special else start,
                    "stop": None if special else stop,
                }
                for id, special, (start, stop) in zip(*one, strict=True)
            ]
            for text, *one in zip(
                texts, found["input_ids"], found["special_tokens_mask"], found["offset_mapping"], strict=True
            )
        ]

    return await call.in_order(served, read)


async def decode(call: Call) -> object:
    """The texts of token ids."""
    body: DecodeBody = call.body
    served = call.service.model(body.model)
    given = body.ids
    rows: list[Any] = list(given) if given and isinstance(given[0], list) else [given]
    size = len(served.tokenizer)
    wrong = next((i for row in rows for i in row if not 0 <= i < size), None)
    if wrong is not None or not given:
        told = "ids is empty" if wrong is None else f"ids={wrong!r}"
        raise Problem(422, f"{told}: give ids from 0 to {size - 1}.", param="ids")
    check_count(rows, call.service.limits.inputs, "ids")
    skip = body.skip_special_tokens is not False
    return await call.in_order(served, lambda: [served.tokenizer.decode(row, skip_special_tokens=skip) for row in rows])

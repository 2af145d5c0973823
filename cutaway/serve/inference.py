"""The tasks of Hugging Face's InferenceClient: one address, whose model says what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway.errors import InputError, nearest
from cutaway.pipelines.factory import ALIASES, TASKS
from cutaway.serve.body import Body, Off
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call, Stream
from cutaway.serve.served_model import WRITTEN, ServedModel
from cutaway.serve.text_request import Piece, TextRequest, request_text
from cutaway.serve.text_settings import Count, Penalty, Sampling, Seed, Share, Stop, Temperature
from cutaway.serve.vectors import check_count, embed

TOGETHER = 8  # texts that an encoder-decoder answers in one turn
OUT = {"summarization": "summary_text", "translation": "translation_text", "text2text-generation": "generated_text"}


class InferenceBody(Body):
    """Inputs and parameters; feature extraction has its parameters beside the inputs."""

    inputs: Any
    parameters: dict[str, Any] | None = None
    options: dict[str, Any] | None = None  # caching and waiting on another server: without effect
    stream: bool | None = None
    normalize: bool | None = None
    prompt_name: None = None
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float"] | None = None


class TextParameters(Body):
    """What text generation takes."""

    max_new_tokens: Count | None = None
    do_sample: bool | None = None
    temperature: Temperature | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Share | None = None
    typical_p: Share | None = None
    seed: Seed | None = None
    stop: list[Stop] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    frequency_penalty: Penalty | None = None
    return_full_text: bool | None = None
    details: bool | None = None
    top_n_tokens: Annotated[int, Field(ge=0, le=20)] | None = None
    grammar: dict[str, Any] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    decoder_input_details: Off | None = None
    watermark: Off | None = None
    truncate: None = None
    adapter_id: None = None
    return_tensors: None = None

    def sampling(self) -> Sampling:
        names = ("top_k", "top_p", "typical_p", "seed", "stop", "repetition_penalty", "frequency_penalty")
        greedy = self.do_sample is False or (self.do_sample is None and self.temperature is None)
        heat = 0.0 if greedy else self.temperature
        return Sampling.model_construct(temperature=heat, **{name: getattr(self, name) for name in names})

    def form(self) -> dict[str, Any] | None:
        """The grammar, as `generate` takes it."""
        if self.grammar is None:
            return None
        kind, value = self.grammar.get("type"), self.grammar.get("value")
        if kind in ("json", "json_schema") and isinstance(value, dict):
            return {"json_schema": value}
        if kind == "regex" and isinstance(value, str):
            return {"regex": value}
        raise Problem(400, "parameters.grammar: give type 'json' or 'regex', and value.", param="parameters.grammar")


# The parameters of each task that its pipeline takes under the same name.
_PASSED: dict[str, tuple[str, ...]] = {
    "text-classification": ("top_k", "function_to_apply"),
    "token-classification": ("aggregation_strategy", "ignore_labels", "stride"),
    "zero-shot-classification": ("candidate_labels", "hypothesis_template", "multi_label"),
    "fill-mask": ("top_k", "targets"),
    "question-answering": (
        "top_k", "doc_stride", "max_seq_len", "max_answer_len", "handle_impossible_answer", "align_to_words",
    ),
    "sentence-similarity": (),
    "feature-extraction": ("normalize", "truncate", "dimensions"),
    **dict.fromkeys(
        WRITTEN, ("src_lang", "tgt_lang", "clean_up_tokenization_spaces", "truncation", "generate_parameters")
    ),
}  # fmt: skip
_WITHOUT_EFFECT = {"question-answering": ("max_question_len",)}


async def inference(call: Call) -> object:
    """Does what the address, the inputs or the model say."""
    body: InferenceBody = call.body
    task, name = call.request.path_params.get("task"), call.request.path_params.get("name")
    given = body.parameters or {}
    if task is not None:
        task = ALIASES.get(task, task)
        if task not in TASKS:
            raise Problem(404, f"task={task!r:.60} is not known.{nearest(task, TASKS)}", param="task")
        served = call.service.model(name, task)
    else:
        served = call.service.model(name)
        task = _task_of(served, body.inputs, given)
    if task not in served.tasks:
        raise Problem(400, f"inputs ask for {task}, and {served.name} does {', '.join(sorted(served.tasks))}.",
                      param="inputs")  # fmt: skip
    if task == "text-generation":
        return await _text(call, served, body)
    settings = _settings(task, given)
    if task == "feature-extraction":
        return await _features(call, served, body, settings)
    if task in WRITTEN:
        return await _written(call, served, task, body.inputs, settings, bool(call.request.path_params.get("task")))
    if task == "rerank":
        raise Problem(400, "inputs: documents are ranked by POST /rerank or /v1/rerank.", param="inputs")
    return await _encoded(call, served, task, body.inputs, settings)


def _task_of(served: ServedModel, inputs: object, given: dict[str, Any]) -> str:
    """What is asked for, where the address does not say."""
    if "candidate_labels" in given and "zero-shot-classification" in served.tasks:
        return "zero-shot-classification"
    if isinstance(inputs, dict) and "source_sentence" in inputs:
        return "sentence-similarity"
    return served.task


def _settings(task: str, given: dict[str, Any]) -> dict[str, Any]:
    known = (*_PASSED.get(task, ()), *_WITHOUT_EFFECT.get(task, ()))
    for name in given:
        if name not in known:
            raise Problem(400, f"parameters.{name:.60} is not one of {task}.{nearest(name, known)}",
                          param=f"parameters.{name:.60}")  # fmt: skip
    return {name: given[name] for name in _PASSED.get(task, ()) if given.get(name) is not None}


async def _encoded(call: Call, served: ServedModel, task: str, inputs: object, settings: dict[str, Any]) -> object:
    pipe = served.tasks[task]
    if task == "text-classification":
        settings.setdefault("top_k", None)
    many = isinstance(inputs, list)
    items: list[Any] = inputs if isinstance(inputs, list) else [inputs]
    check_count(items, call.service.limits.inputs, "inputs")
    if any(isinstance(item, list) for item in items):
        raise Problem(400, "inputs: give a text, an object, or a list of these.", param="inputs")
    try:
        read = await served.batches.run(pipe, items, **settings)
    except InputError as error:
        named = next((name for name in settings if str(error).startswith(f"{name}=")), None)
        where = "inputs" if named is None else f"parameters.{named}"
        raise Problem(400, f"{where}: {error}", param=where) from None
    call.said |= {"model": served.name, "texts": len(items), "prompt_tokens": sum(read.tokens)}
    shaped = [_jsonable(pipe.shaped(result, read.settings)) for result in read.results]
    if task == "zero-shot-classification":
        shaped = [_pairs(one) for one in shaped]
    if many:
        return shaped
    # as the hosted service answers: the labels of one text stand in a list of one
    return shaped if task == "text-classification" else shaped[0]


def _pairs(one: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"label": a, "score": b} for a, b in zip(one["labels"], one["scores"], strict=True)]


def _jsonable(value: object) -> Any:
    """Scores of numpy as plain numbers."""
    if isinstance(value, dict):
        return {name: _jsonable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    return value.item() if hasattr(value, "item") else value


async def _features(call: Call, served: ServedModel, body: InferenceBody, settings: dict[str, Any]) -> object:
    """Vectors [hidden] of texts; [1, tokens, hidden] of their tokens where the checkpoint does not say how to pool."""
    inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    if not all(isinstance(one, str) for one in inputs):
        raise Problem(400, "inputs: give a text or a list of texts.", param="inputs")
    truncate = bool(body.truncate or settings.get("truncate"))
    normalize, dimensions = body.normalize or settings.get("normalize"), body.dimensions or settings.get("dimensions")
    if not (served.pools or normalize or dimensions):
        check_count(inputs, call.service.limits.inputs, "inputs")
        pipe = served.tasks["feature-extraction"]
        read = await served.batches.run(pipe, inputs, **({"long": "truncate"} if truncate else {}))
        found = [result.vectors[None].tolist() for result in read.results]
        return found if isinstance(body.inputs, list) else found[0]
    vectors, _ = await embed(
        call, served, inputs, normalize=normalize is not False, truncate=truncate, dimensions=dimensions,
        field="inputs",
    )  # fmt: skip
    return vectors.tolist() if isinstance(body.inputs, list) else vectors[0].tolist()


async def _written(
    call: Call, served: ServedModel, task: str, inputs: object, settings: dict[str, Any], named: bool
) -> list[dict[str, str]]:
    """What an encoder-decoder writes. Where the address does not name the task, under the names of all three."""
    items = inputs if isinstance(inputs, list) else [inputs]
    check_count(items, call.service.limits.inputs, "inputs")
    more = settings.pop("generate_parameters", {})
    if not isinstance(more, dict):
        raise Problem(400, "parameters.generate_parameters: give an object.", param="parameters.generate_parameters")
    most = more.get("max_new_tokens", more.get("max_length", 0))
    if isinstance(most, int) and most > call.service.limits.new_tokens:
        raise Problem(400, f"max_new_tokens={most}: this server writes up to {call.service.limits.new_tokens} tokens.",
                      param="parameters.generate_parameters")  # fmt: skip
    cut = settings.pop("truncation", None)
    if cut not in (None, "do_not_truncate"):
        settings["long"] = "truncate"
    settings = {name: value for name, value in settings.items() if name in served.tasks[task].known_settings()}
    work = partial(served.tasks[task], **more, **settings)
    results = []
    for first in range(0, len(items), TOGETHER):  # others have their turns between
        results += await call.service.compute(_all, work, items[first : first + TOGETHER])
    call.said |= {"model": served.name, "texts": len(items)}
    texts = [next(iter(one.values())) for one in results]
    names = [OUT[task]] if named else list(OUT.values())
    return [dict.fromkeys(names, text) for text in texts]


def _all(work: Callable[[list[Any]], list[Any]], items: list[Any]) -> list[dict[str, Any]]:
    found = work(items)
    return [one[0] if isinstance(one, list) else one for one in found]


async def _text(call: Call, served: ServedModel, body: InferenceBody) -> object:
    if not isinstance(body.inputs, str):
        raise Problem(400, "inputs: give a text.", param="inputs")
    asked = TextParameters.read(json.dumps(body.parameters or {}).encode(), prefix="parameters")
    told = (asked.top_n_tokens or 0) if asked.details or body.stream else None
    request = await request_text(
        call, served, body.inputs, asked.sampling(), most=asked.max_new_tokens or 100, logprobs=told,
        form=asked.form(), fields=("inputs", "parameters.max_new_tokens"), form_field="parameters.grammar",
    )  # fmt: skip
    answer = TextAnswer(served, request, asked, body.inputs)
    return Stream(answer.events(), late=answer.late) if body.stream else await answer.whole()


class TextAnswer:
    """A text that goes on, in the words of text-generation-inference."""

    def __init__(self, served: ServedModel, request: TextRequest, asked: TextParameters, prompt: str) -> None:
        self.served, self.request, self.asked = served, request, asked
        self.start = prompt if asked.return_full_text else ""

    def _token(self, piece: Piece) -> dict[str, Any]:
        assert piece.told is not None
        special = piece.token in self.served.reader.all_special_ids
        return {"id": piece.token, "text": piece.text, "logprob": piece.told.logprob, "special": special}

    def _top(self, piece: Piece) -> list[dict[str, Any]]:
        reader, told = self.served.reader, piece.told
        return [
            {"id": id, "text": reader.decode([id]), "logprob": value, "special": id in reader.all_special_ids}
            for id, value in (() if told is None else told.top)
        ]

    def _end(self, piece: Piece) -> str:
        if piece.end == "length":
            return "length"
        return "eos_token" if piece.token in self.request.writing.eos else "stop_sequence"

    async def whole(self) -> list[dict[str, Any]]:
        pieces = [piece async for piece in self.request.pieces()]
        found: dict[str, Any] = {"generated_text": self.start + "".join(piece.text for piece in pieces)}
        if self.asked.details:
            found["details"] = {
                "finish_reason": self._end(pieces[-1]),
                "generated_tokens": len(pieces),
                "seed": self.asked.seed,
                "prefill": [],
                "tokens": [self._token(piece) for piece in pieces],
            }
            if self.asked.top_n_tokens:
                found["details"]["top_tokens"] = [self._top(piece) for piece in pieces]
        return [found]

    async def events(self) -> AsyncGenerator[str, None]:
        text, index = self.start, 0
        pieces = self.request.pieces()
        try:
            async for piece in pieces:
                text, index = text + piece.text, index + 1
                found: dict[str, Any] = {"index": index, "token": self._token(piece)}
                if self.asked.top_n_tokens:
                    found["top_tokens"] = self._top(piece)
                found |= {"generated_text": None, "details": None}
                if piece.end is not None:
                    found["generated_text"] = text
                    found["details"] = {
                        "finish_reason": self._end(piece),
                        "generated_tokens": index,
                        "seed": self.asked.seed,
                        "input_length": len(self.request.writing.ids),
                    }
                yield f"data:{json.dumps(found, ensure_ascii=False)}\n\n"
        finally:
            await pieces.aclose()

    @staticmethod
    def late(problem: Problem) -> str:
        return f"data:{json.dumps({'error': problem.message, 'error_type': 'generation'})}\n\n"

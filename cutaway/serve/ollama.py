"""The routes of Ollama, so that its clients and the front ends made for it connect."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway import __version__
from cutaway.serve.body import Body, Off
from cutaway.serve.chat_prompt import CalledFunction, Tool, write_chat
from cutaway.serve.openai_chat import logprob
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call, Stream
from cutaway.serve.served_model import ServedModel
from cutaway.serve.text_request import ALL, Piece, TextRequest, request_text
from cutaway.serve.text_settings import Penalty, Sampling, Seed, Share, Stop, Temperature
from cutaway.serve.tool_calls import CallWatch, ToolCall, read_calls
from cutaway.serve.vectors import embed


class Options(Body):
    """How tokens are chosen, in Ollama's words; what only tunes its own engine is known and without effect."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Share | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    num_predict: Annotated[int, Field(ge=-2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    # other ways of choosing, which are not built: their values for "off"
    mirostat: Annotated[int, Field(ge=0, le=0)] | None = None
    tfs_z: Annotated[float, Field(ge=1, le=1)] | None = None
    # without effect on an answer of this server
    mirostat_eta: float | None = None
    mirostat_tau: float | None = None
    penalize_newline: bool | None = None
    repeat_last_n: int | None = None  # but see `sampling`
    f16_kv: bool | None = None
    logits_all: bool | None = None
    embedding_only: bool | None = None
    vocab_only: Off | None = None
    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    num_keep: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None

    def sampling(self) -> Sampling:
        """The same in the words of the other routes."""
        names = (
            "temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "frequency_penalty",
            "presence_penalty",
        )  # fmt: skip
        given = {name: getattr(self, name) for name in names}
        penalty, window = self.repeat_penalty, self.repeat_last_n
        if window == 0:
            penalty = None  # of no token
        elif penalty not in (None, 1.0) and window not in (None, -1):
            raise Problem(400, f"options.repeat_last_n={window}: the penalty is for all of the text; give -1, or 0 for "
                          "none.", param="options.repeat_last_n")  # fmt: skip
        return Sampling.model_construct(**given, repetition_penalty=penalty)

    @property
    def most(self) -> int | None:
        """Tokens of the answer; below 0, where Ollama has no bound, as many as there is room for."""
        asked = self.num_predict
        if asked == 0:
            raise Problem(400, "options.num_predict=0: ask for at least one token.", param="options.num_predict")
        return ALL if asked is not None and asked < 0 else asked


class Written(Body):
    """What /api/generate and /api/chat have in common."""

    model: str
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: Options | None = None
    keep_alive: float | str | None = None  # models stay for as long as the server runs
    think: Off | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def form(self) -> dict[str, Any] | None:
        """The form of the answer, as `generate` takes it."""
        if not self.format:
            return None
        return {"json_schema": {"type": "object"} if self.format == "json" else self.format}

    @property
    def told(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class GenerateBody(Written):
    """A prompt."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None


class OllamaFunction(CalledFunction):
    """A call's function; here its arguments are an object."""

    index: int | None = None
    description: str | None = None


class OllamaCall(Body):
    """A call that the assistant made earlier."""

    function: OllamaFunction
    id: str | None = None
    type: Literal["function"] | None = None


class OllamaMessage(Body):
    """One message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates read it."""
        found: dict[str, Any] = {"role": self.role, "content": self.content or ""}
        if self.thinking is not None:
            found["thinking"] = self.thinking
        if self.tool_name is not None:
            found["name"] = self.tool_name
        if self.tool_calls:
            calls = [{"name": c.function.name, "arguments": c.function.arguments} for c in self.tool_calls]
            found["tool_calls"] = [{"type": "function", "function": one} for one in calls]
        return found


class OllamaChatBody(Written):
    """A conversation."""

    messages: Annotated[list[OllamaMessage], Field(min_length=1, max_length=10_000)]
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None


class OllamaEmbedBody(Body):
    """Texts for /api/embed."""

    model: str
    input: str | list[str]
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    options: Options | None = None
    keep_alive: float | str | None = None


class OllamaEmbeddingsBody(Body):
    """A text for the older /api/embeddings."""

    model: str
    prompt: str
    options: Options | None = None
    keep_alive: float | str | None = None


class ShowBody(Body):
    """Which model /api/show tells of."""

    model: str
    verbose: bool | None = None


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def late(problem: Problem) -> str:
    """The last line of a stream that failed."""
    return json.dumps({"error": problem.message}) + "\n"


async def generate(call: Call) -> object:
    """Answers a prompt: as a chat of one message where the model has a template, unless it is raw."""
    body: GenerateBody = call.body
    served = call.service.model(body.model, "text-generation")
    if not body.prompt:  # how its clients have a model loaded; here all are
        return {"model": body.model, "created_at": now(), "response": "", "done": True, "done_reason": "load"}
    chat = not body.raw and served.tokenizer.chat_template is not None
    prompt = f"{body.system}\n\n{body.prompt}" if body.system and not chat else body.prompt
    if chat:
        messages = [{"role": "system", "content": body.system}] if body.system else []
        messages.append({"role": "user", "content": body.prompt})
        prompt = await call.in_order(served, lambda: write_chat(served, messages, []))
    request = await _request(call, served, body, prompt, chat, "prompt")
    answer = Answer(body, served, request, [], lambda text, calls: {"response": text})
    return await answer.reply()


async def chat(call: Call) -> object:
    """Answers a conversation."""
    body: OllamaChatBody = call.body
    served = call.service.model(body.model, "text-generation")
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    messages = [message.plain() for message in body.messages]
    prompt = await call.in_order(served, lambda: write_chat(served, messages, tools))
    request = await _request(call, served, body, prompt, True, "messages")

    def shaped(text: str, calls: list[ToolCall]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            made = [{"name": one.name, "arguments": json.loads(one.arguments)} for one in calls]
            message["tool_calls"] = [{"function": one} for one in made]
        return {"message": message}

    names = [tool["function"]["name"] for tool in tools]
    return await Answer(body, served, request, names, shaped).reply()


async def _request(call: Call, served: ServedModel, body: Written, prompt: str, chat: bool, name: str) -> TextRequest:
    options = body.options or Options()
    return await request_text(
        call, served, prompt, options.sampling(), most=options.most, logprobs=body.told, form=body.form(), chat=chat,
        fields=(name, "options.num_predict"), form_field="format",
    )  # fmt: skip


class Answer:
    """One answer, whole or as lines of JSON."""

    def __init__(
        self,
        body: Written,
        served: ServedModel,
        request: TextRequest,
        tools: list[str],
        shaped: Callable[[str, list[ToolCall]], dict[str, Any]],
    ) -> None:
        self.body, self.served, self.request, self.tools, self.shaped = body, served, request, tools, shaped
        self.begun = time.monotonic_ns()

    async def reply(self) -> Stream | dict[str, Any]:
        if self.body.stream is not False:
            return Stream(self.lines(), "application/x-ndjson", late)
        pieces = [piece async for piece in self.request.pieces()]
        text, calls = "".join(piece.text for piece in pieces), list[ToolCall]()
        if self.tools:
            text, calls = read_calls(text, self.tools)
        return {**self._part(text, calls, pieces), **self._last(pieces[-1])}

    def _part(self, text: str, calls: list[ToolCall], pieces: list[Piece]) -> dict[str, Any]:
        found = {"model": self.body.model, "created_at": now(), **self.shaped(text, calls), "done": False}
        if self.body.logprobs:
            found["logprobs"] = [logprob(self.served, piece, self.body.top_logprobs or 0) for piece in pieces]
        return found

    def _last(self, piece: Piece) -> dict[str, Any]:
        """What the last line says of the whole."""
        end, writing = time.monotonic_ns(), self.request.writing
        read, written, _ = self.request.usage
        first = end if writing.first is None else int(writing.first * 1e9)
        return {
            "done": True,
            "done_reason": piece.end or "stop",
            "total_duration": end - self.begun,
            "load_duration": 0,
            "prompt_eval_count": read,
            "prompt_eval_duration": max(0, first - int(writing.arrived * 1e9)),
            "eval_count": written,
            "eval_duration": max(0, end - first),
        }

    async def lines(self) -> AsyncGenerator[str, None]:
        watch = CallWatch()
        pieces = self.request.pieces()
        try:
            async for piece in pieces:
                text, calls = piece.text, list[ToolCall]()
                if self.tools:
                    text = watch.add(text)
                    if piece.end is not None:
                        rest, calls = watch.end(self.tools)
                        text += rest
                if text or calls or piece.told is not None:
                    told = [piece] if piece.told is not None else []
                    yield json.dumps(self._part(text, calls, told), ensure_ascii=False) + "\n"
                if piece.end is not None:
                    whole = {**self._part("", [], []), **self._last(piece)}
                    yield json.dumps(whole, ensure_ascii=False) + "\n"
        finally:
            await pieces.aclose()


async def embed_route(call: Call) -> object:
    """A vector of length 1 for each text; a text that is too long is cut unless `truncate` is false."""
    body: OllamaEmbedBody = call.body
    served = call.service.model(body.model, "feature-extraction")
    inputs = [body.input] if isinstance(body.input, str) else body.input
    begun = time.monotonic_ns()
    truncate = body.truncate is not False
    vectors, tokens = await embed(call, served, inputs, truncate=truncate, dimensions=body.dimensions)
    return {
        "model": body.model,
        "embeddings": vectors.tolist(),
        "total_duration": time.monotonic_ns() - begun,
        "load_duration": 0,
        "prompt_eval_count": tokens,
    }


async def embeddings(call: Call) -> object:
    """A vector for one text."""
    body: OllamaEmbeddingsBody = call.body
    served = call.service.model(body.model, "feature-extraction")
    vectors, _ = await embed(call, served, [body.prompt], truncate=True, field="prompt")
    return {"embedding": vectors[0].tolist()}


def _details(served: ServedModel) -> dict[str, Any]:
    config = served.model.config
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": config.model_type,
        "families": [config.model_type],
        "parameter_size": f"{served.model.num_parameters() / 1e6:.1f}M",
        "quantization_level": served.model.precision.name,
    }


def _entry(served: ServedModel) -> dict[str, Any]:
    made = datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
    size = sum(p.numel() * p.element_size() for p in served.model.parameters())
    digest = hashlib.sha256(served.name.encode()).hexdigest()  # of the name: weights are not read again for it
    return {"name": served.name, "model": served.name, "modified_at": made, "size": size, "digest": digest,
            "details": _details(served)}  # fmt: skip


async def tags(call: Call) -> object:
    """The models that there are."""
    call.service.model(None)
    return {"models": [_entry(served) for served in call.service.models.values()]}


async def running(call: Call) -> object:
    """The models that are loaded: all, for as long as the server runs."""
    call.service.model(None)
    more = {"expires_at": "9999-12-31T23:59:59Z", "size_vram": 0}
    return {"models": [{**_entry(served), **more} for served in call.service.models.values()]}


async def show(call: Call) -> object:
    """One model."""
    body: ShowBody = call.body
    served = call.service.model(body.model)
    config = served.model.config
    can = ["completion", "tools"] if served.generator is not None else []
    can += ["embedding"] if "feature-extraction" in served.tasks else []
    template = served.tokenizer.chat_template
    return {
        "modelfile": "",
        "parameters": "",
        "template": template if isinstance(template, str) else "",
        "details": _details(served),
        "modified_at": _entry(served)["modified_at"],
        "capabilities": can,
        "model_info": {
            "general.architecture": config.model_type,
            "general.parameter_count": served.model.num_parameters(),
            f"{config.model_type}.context_length": served.longest,
            f"{config.model_type}.embedding_length": config.hidden_size,
            f"{config.model_type}.block_count": config.num_hidden_layers,
        },
    }


async def version(call: Call) -> object:
    """The server's version."""
    return {"version": __version__}

"""From a prompt and settings to tokens, for every route that writes text."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from cutaway.errors import GenerationError
from cutaway.serve.encoder_batches import CHARACTERS
from cutaway.serve.problem import Problem
from cutaway.serve.route import Call
from cutaway.serve.served_model import ServedModel
from cutaway.serve.text_reader import TextReader
from cutaway.serve.text_settings import Sampling, generate_settings
from cutaway.serve.writing import End, Told, Writing, make_writing

ALL = -1  # tokens: as many as the model and the server take


class Piece(NamedTuple):
    """What one token adds to the answer `choice`: characters, how likely the token was, why the answer ends here."""

    choice: int
    text: str
    token: int
    told: Told | None
    end: End | None


class TextRequest:
    """One prompt that is being answered, `n` times.

    usage: tokens of the prompt, of the answers so far, and of the prompt those that were held already.
    """

    def __init__(
        self,
        call: Call,
        served: ServedModel,
        writing: Writing,
        n: int,
        stops: Sequence[str],
        names: Mapping[str, str],
    ) -> None:
        self.call, self.served, self.writing, self.n, self.stops = call, served, writing, n, stops
        self.names = names  # of the settings of `generate` in this request
        self.written = 0

    @property
    def usage(self) -> tuple[int, int, int]:
        return len(self.writing.ids), self.written, self.writing.cached

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What comes of it, as it comes."""
        reader = [TextReader(self.served.reader, self.writing.ids, self.stops) for _ in range(self.writing.copies)]
        tokens = self.writing.tokens()
        again = self.n // self.writing.copies  # greedy answers are all the same
        try:
            async for copy, id, told, end in tokens:
                text = reader[copy].add(id, last=end is not None)
                if end == "length" and reader[copy].stopped:
                    end = "stop"
                self.written += again
                for index in range(copy, self.n, self.writing.copies):
                    yield Piece(index, text, id, told, end)
        except GenerationError as error:
            raise refusal(error, self.names) from None
        finally:
            await tokens.aclose()  # type: ignore[attr-defined]
            self._note()

    def _note(self) -> None:
        writing, said = self.writing, self.call.said
        said["model"], said["prompt_tokens"] = self.served.name, said.get("prompt_tokens", 0) + len(writing.ids)
        said["tokens"] = said.get("tokens", 0) + self.written
        if writing.first is not None:
            said["first_token"] = round(writing.first - writing.arrived, 4)
            if self.written > self.n:
                each = (time.monotonic() - writing.first) / (self.written / self.n - 1)
                self.call.service.metrics.each_token(self.served.name, each)


async def request_text(
    call: Call,
    served: ServedModel,
    prompt: str | Sequence[int],
    given: Sampling,
    *,
    most: int | None,
    n: int = 1,
    logprobs: int | None = None,
    form: dict[str, Any] | None = None,
    chat: bool = False,
    fields: tuple[str, str] = ("prompt", "max_tokens"),
    form_field: str = "response_format",
) -> TextRequest:
    """Checks a request for text and hands it to the generator.

    Args:
        prompt: a text or token ids. given: how tokens are chosen. most: tokens of the answer; None for this server's
            default, ALL for what there is room for.
        logprobs: how many of the likeliest tokens are told beside each. form: json_schema.
        chat: the prompt is a chat that was written out, its special tokens in it.
        fields: what the prompt and `most` are called in this request. form_field: where its `form` stands.

    Raises:
        Problem: no room for the prompt or the answer, or settings that the model cannot follow.
    """
    generator = served.generator
    if generator is None:
        raise Problem(400, f"model={served.name!r} does not continue texts.", param="model")
    limits, loop = call.service.limits, asyncio.get_running_loop()
    names = {"json_schema": form_field, "max_new_tokens": fields[1], "prompt": fields[0], **_NAMES}
    if form is not None:  # which may stand where this request has a field of another name
        names |= dict.fromkeys(form, form_field)

    def make() -> Writing:
        longest = served.longest
        if isinstance(prompt, str) and longest is not None and len(prompt) > CHARACTERS * longest:
            raise Problem(400, f"{fields[0]} has {len(prompt)} characters; the model has {longest} positions.",
                          param=fields[0], code="context_length_exceeded")  # fmt: skip
        ids = list(prompt) if not isinstance(prompt, str) else _ids(served, prompt, chat)
        positions = served.model.architecture.stack.longest
        room = limits.new_tokens if positions is None else positions - len(ids)
        if room < 1:
            raise Problem(400, f"{fields[0]} has {len(ids)} tokens; the model has {positions} positions.",
                          param=fields[0], code="context_length_exceeded")  # fmt: skip
        if most is not None and most > room:
            raise Problem(
                400, f"{fields[1]}={most}: after a prompt of {len(ids)} tokens there is room for {room}.",
                param=fields[1], code="context_length_exceeded",
            )  # fmt: skip
        heatless = given.temperature == 0
        settings = generate_settings(given, served.model, len(ids), 1 if heatless else n)
        asked = limits.default_tokens if most is None else limits.new_tokens if most == ALL else most
        new = min(asked, limits.new_tokens, room)
        settings |= {"max_new_tokens": new, "loop": loop, **(form or {})}
        try:
            return make_writing(served.model, served.reader, ids, settings, logprobs, limits.seconds)
        except GenerationError as error:
            raise refusal(error, names) from None

    if most is not None and most > limits.new_tokens:
        raise Problem(400, f"{fields[1]}={most}: this server writes up to {limits.new_tokens} tokens.", param=fields[1])
    writing = await loop.run_in_executor(served.texts, make)
    generator.submit(writing, fields[1])
    return TextRequest(call, served, writing, n, given.stops(), names)


# settings of `generate` that an error may name, and the fields of a request that they come from
_NAMES = {
    "regex": "regex",
    "grammar": "grammar",
    "stop_strings": "stop",
    "sequence_bias": "logit_bias",
    "num_return_sequences": "n",
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "repetition_penalty")},
}


def refusal(error: GenerationError, names: Mapping[str, str]) -> Problem:
    """An error of `generate` as the request's: the field that its message names first, by `names`."""
    at = {name: match.start() for name in names if (match := re.search(rf"\b{name}\b", str(error)))}
    if not at:
        return Problem(400, str(error))
    field = names[min(at, key=at.__getitem__)]
    told = str(error) if field in str(error) else f"{field}: {error}"
    return Problem(400, told, param=field)


def _ids(served: ServedModel, text: str, chat: bool) -> list[int]:
    """The tokens of a prompt; of an empty one the token that texts begin with."""
    ids: list[int] = served.tokenizer(text, add_special_tokens=not chat)["input_ids"]
    start = served.tokenizer.bos_token_id
    return ids or ([] if start is None else [start])

"""Texts and chats that a language model goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

from cutaway.errors import InputError
from cutaway.pipelines.fit import longest_input
from cutaway.pipelines.generating import GeneratingPipeline, Written
from cutaway.pipelines.plan import Row


class TextGenerationPipeline(GeneratingPipeline):
    """`pipe("Once upon")`, or a chat: [{"role": "user", "content": ...}, ...]; or a list of either.

    A text gives [{"generated_text": ...}], one dict for each of `num_return_sequences`; a list of texts gives a list of
    these. The text begins with the prompt unless `return_full_text=False`. A chat comes back with the assistant's
    message added, or with its last message continued where that is the assistant's.

    As upstream, it samples at a temperature of 0.7 and writes up to 256 tokens (fewer where the model's positions end)
    unless the call or the model's files say otherwise; `do_sample=False` writes greedily.

    `output_logprobs=True` (or a number, for as many of the likeliest tokens beside each) adds "logprobs" and
    "prompt_logprobs": dicts {"id", "text", "logprob", "rank", "top"}.
    """

    follows_task: ClassVar[bool] = False  # as upstream today: GPT-2's ask for 50 tokens, prompt included
    usual: ClassVar[dict[str, Any]] = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}
    settings: ClassVar[dict[str, Any]] = {
        "return_full_text": None,
        "return_text": None,
        "return_tensors": None,
        "clean_up_tokenization_spaces": None,
        "skip_special_tokens": None,
        "prefix": None,
        "stop_sequence": None,
        "continue_final_message": None,
        "tools": None,
        "documents": None,
        "tokenizer_encode_kwargs": None,
        "long": None,
    }

    def is_one(self, inputs: object) -> bool:
        return isinstance(inputs, str) or _is_chat(inputs)

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        if settings["return_tensors"] and (settings["return_full_text"] is not None or settings["return_text"]):
            raise InputError("return_tensors gives ids: leave return_full_text and return_text out.")
        if settings["return_full_text"] is not None and settings["return_text"] is not None:
            raise InputError("return_text and return_full_text exclude each other: pass one of them.")
        if settings["stop_sequence"] is not None:
            settings = {**settings, "stop_strings": settings["stop_sequence"]}
        return {**settings, **self.generation(settings)}

    def check(self, item: object) -> str | list[dict[str, Any]]:
        if isinstance(item, str):
            return item
        if _is_chat(item):
            return [dict(message) for message in item]
        raise InputError(
            f"text-generation got {item!r:.80}. An input is a text, or a chat: [{{'role': 'user', 'content': ...}}]."
        )

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        texts = [item for item in items if isinstance(item, str)]
        prefix = self.own_prefix(settings)
        more = settings["tokenizer_encode_kwargs"] or {}
        plain = iter(self._prompts([prefix + text for text in texts], settings, more))
        chats = iter(self._prompts([self._rendered(item, settings) for item in items if not isinstance(item, str)],
                                   settings, {**more, "add_special_tokens": False}))  # fmt: skip
        return [next(plain) if isinstance(item, str) else next(chats) for item in items]

    def _prompts(self, texts: list[str], settings: Mapping[str, Any], options: Mapping[str, Any]) -> list[list[Row]]:
        new = settings["generation"].get("max_new_tokens") or 1
        longest = longest_input(self.model, self.tokenizer)
        # of a prompt that is cut its end is kept, and room is left for the answer
        cuts = settings.get("long") == "truncate"
        if cuts and longest is not None:
            if new >= longest:
                raise InputError(f"max_new_tokens={new}: the model takes {longest}, so no room is left for a prompt.")
            options = {**options, "max_length": longest - new}
        side, self.tokenizer.truncation_side = self.tokenizer.truncation_side, "left"
        try:
            found = self.fitted(texts, settings, options=options)
        finally:
            self.tokenizer.truncation_side = side
        for text, rows in zip(texts, found, strict=True):
            if not rows[0].inputs["input_ids"]:
                start = self.tokenizer.bos_token_id
                if start is None:
                    raise InputError(f"The prompt {text!r} has no tokens and the model no token to start from.")
                rows[0].inputs["input_ids"] = [start]
        return found

    def _rendered(self, chat: list[dict[str, Any]], settings: Mapping[str, Any]) -> str:
        goes_on = _goes_on(chat, settings)
        text: str = self.tokenizer.apply_chat_template(
            chat,
            tools=settings["tools"],
            documents=settings["documents"],
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            tokenize=False,
        )
        return text

    def whole(self, item: Any, answer: str, settings: Mapping[str, Any]) -> str | list[dict[str, Any]]:
        if settings["return_full_text"] is False:
            return answer
        if isinstance(item, str):
            return item + answer
        if _goes_on(item, settings):
            return [*item[:-1], {**item[-1], "content": item[-1]["content"] + answer}]
        return [*item, {"role": "assistant", "content": answer}]

    def shaped(self, result: Written, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        if settings["return_tensors"]:
            return result.entries("generated_token_ids", [[*result.prompt, *tokens] for tokens in result.tokens])
        return result.entries("generated_text", result.texts)


def _is_chat(inputs: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(inputs, list | tuple) and bool(inputs) and all(
        isinstance(message, Mapping) and "role" in message and "content" in message for message in inputs
    )  # fmt: skip


def _goes_on(chat: list[dict[str, Any]], settings: Mapping[str, Any]) -> bool:
    """Whether the model goes on with the last message instead of writing one of its own."""
    asked = settings["continue_final_message"]
    return chat[-1]["role"] == "assistant" if asked is None else bool(asked)

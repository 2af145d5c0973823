"""Conversations and answers as token ids with labels: only what the model is to say is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.errors import InputError
from cutaway.nn.losses import IGNORED

if TYPE_CHECKING:
    from cutaway.tokenization.base import PreTrainedTokenizerFast as Tokenizer


def conversation_text(messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> tuple[str, list[range]]:
    """(the conversation in the tokenizer's chat template, which characters of it the assistant says).

    What the template puts after an answer to end it is learned too, so that the model ends its answers.

    Raises:
        InputError: the template writes a conversation otherwise than it begins it, so answers cannot be found in it.
    """
    whole = _templated(tokenizer, messages, False)
    said = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _templated(tokenizer, messages[:place], True)
        until = _templated(tokenizer, messages[: place + 1], False)
        if not (until.startswith(before) and whole.startswith(until)):
            raise InputError(
                "the chat template writes earlier messages otherwise once others follow, so it cannot be told which "
                "words are the assistant's; give each answer as a row of its own, as prompt and answer."
            )
        said.append(range(len(before), len(until)))
    return whole, said


def _templated(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))


def encoded(row: Mapping[str, Any], tokenizer: Tokenizer, max_length: int | None) -> dict[str, list[int]]:
    """A row of "messages", of "prompt" and "answer", or of "text" as input_ids and labels, cut at `max_length` tokens.

    Of messages and answers only the assistant's tokens have labels; a text is learned as a whole. A prompt with its
    answer is put into the chat template where the tokenizer has one.
    """
    end = tokenizer.eos_token or ""
    if "text" in row:
        ids = tokenizer(row["text"], add_special_tokens=True)["input_ids"]
        ids = ids if not end or (ids and ids[-1] == tokenizer.eos_token_id) else [*ids, tokenizer.eos_token_id]
        return _cut(ids, list(ids), max_length)
    messages = row.get("messages")
    if messages is None and tokenizer.chat_template:
        messages = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["answer"]},
        ]
    if messages is None:
        prompt = row["prompt"] + ("" if row["prompt"][-1:].isspace() or row["answer"][:1].isspace() else " ")
        text = prompt + row["answer"] + end
        spans = [range(len(prompt), len(text))]
    else:
        text, spans = conversation_text(messages, tokenizer)
    found = tokenizer(text, add_special_tokens=messages is None, return_offsets_mapping=True)
    ids = found["input_ids"]
    labels = [
        token if stop > start and any(start < span.stop and stop > span.start for span in spans) else IGNORED
        for token, (start, stop) in zip(ids, found["offset_mapping"], strict=True)
    ]
    return _cut(ids, labels, max_length)


def _cut(ids: list[int], labels: list[int], most: int | None) -> dict[str, list[int]]:
    return {"input_ids": ids[:most], "attention_mask": [1] * len(ids[:most]), "labels": labels[:most]}

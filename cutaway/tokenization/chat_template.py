"""Chat templates: a conversation, written out as the text a model was trained on.

A template comes with a checkpoint, so it is somebody else's program: it runs in Jinja's sandbox, in a process with
bounds (`chat_worker`), sees only plain data, and cannot reach files, modules or the arguments' own methods.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from cutaway.errors import TokenizerError
from cutaway.tokenization import chat_worker
from cutaway.tokenization.batch_encoding import BatchEncoding
from cutaway.tokenization.chat_sandbox import CLOSE, OPEN
from cutaway.tokenization.special_tokens import SpecialTokens
from cutaway.tokenization.tool_schema import tool_schema

if TYPE_CHECKING:
    from cutaway.tokenization.inputs import CallOptions, ListLike, TextInput

Message = Mapping[str, Any]
Span = tuple[int, int]

# Appended to the message that is to be continued, and looked for in the result.
_CONTINUE = "CUTAWAY_CONTINUE_HERE "
_REASONING = ("reasoning_content", "thinking", "reasoning")


def choose_template(stored: str | Mapping[str, str] | None, asked: str | None, tools: Sequence[Any] | None) -> str:
    """The template to use: the one asked for (by name or as text), else the tokenizer's own.

    Raises:
        TokenizerError: there is none, or there are several and none of them is the default.
    """
    if isinstance(stored, Mapping):
        if asked is not None:
            return stored.get(asked, asked)
        for name in (["tool_use"] if tools is not None else []) + ["default"]:
            if name in stored:
                return stored[name]
        raise TokenizerError(f"This tokenizer has several chat templates; give chat_template= one of {sorted(stored)}.")
    template = asked if asked is not None else stored
    if template is None:
        raise TokenizerError(
            "This tokenizer has no chat template, so it belongs to no chat model. Give chat_template=, a Jinja "
            "template, or set tokenizer.chat_template."
        )
    return template


def render(
    conversation: object,
    template: str,
    *,
    tools: Sequence[Any] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool | str = False,
    variables: Mapping[str, Any] | None = None,
) -> tuple[str, list[Span]]:
    """One conversation as text.

    Args:
        conversation: messages with "role" and "content".
        template: the Jinja template.
        tools: JSON schemas, or functions with type hints and a docstring.
        add_generation_prompt: end with the start of the assistant's next message.
        continue_final_message: end inside the last message, so that the model goes on with it; a string
            names the field.
        variables: further variables of the template.

    Returns:
        The text, and the spans of characters inside `{% generation %}` blocks.

    Raises:
        TokenizerError: the conversation is empty or malformed, or the template fails on it.
    """
    messages = _messages(conversation)
    if continue_final_message:
        if add_generation_prompt:
            raise TokenizerError(
                "continue_final_message goes on with the last message and add_generation_prompt starts a new one; "
                "give only one of them."
            )
        tail = _mark_end(messages, continue_final_message, template)
    schemas = (
        None if tools is None else [plain_data(dict(t) if isinstance(t, Mapping) else tool_schema(t)) for t in tools]
    )
    if documents is not None and not all(isinstance(document, Mapping) for document in documents):
        raise TokenizerError("documents must be a list of mappings with 'title' and 'text'.")
    context = {
        **plain_data(dict(variables or {})),
        "messages": messages,
        "tools": schemas,
        "documents": plain_data(documents),
        "add_generation_prompt": add_generation_prompt,
    }
    text = chat_worker.run(template, context)
    spans: list[Span] = []
    if has_generation_blocks(template):
        text, spans = _take_spans(text)
    return (_cut_at_mark(text, tail) if continue_final_message else text), spans


def _messages(conversation: object) -> list[dict[str, Any]]:
    conversation = getattr(conversation, "messages", conversation)
    if isinstance(conversation, (str, bytes, Mapping)) or not isinstance(conversation, Sequence) or not conversation:
        raise TokenizerError("A conversation is a list of at least one message: [{'role': 'user', 'content': '...'}].")
    messages = []
    for message in conversation:
        plain = plain_data(message)
        if not isinstance(plain, dict):
            raise TokenizerError(f"A message is a mapping with 'role' and 'content', not {type(message).__name__}.")
        # A field that is None is the same as no field, and many templates write "None" otherwise.
        plain = {name: value for name, value in plain.items() if value is not None}
        reasoning = next((plain[name] for name in _REASONING if name in plain), None)
        if reasoning is not None:  # templates disagree on the name of this field
            plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
        messages.append(plain)
    return messages


def plain_data(value: object) -> Any:
    """The value rebuilt from JSON's own types, so that a template finds no methods of ours on it."""
    try:
        return _plain(value)
    except RecursionError:
        raise TokenizerError("What the chat template is given holds itself, or is nested too deeply.") from None


def _plain(value: Any) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return _plain(value.model_dump())
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return _plain(value.item())
    return f"<{type(value).__name__}>"


def _mark_end(messages: list[dict[str, Any]], field: bool | str, template: str) -> str:
    """Put the mark after the text that is to be continued. Returns that text."""
    name = field if isinstance(field, str) else "content"
    last = messages[-1]
    if name not in last:
        raise TokenizerError(f"continue_final_message: the last message has no {name!r} to go on with.")
    names = [n for n in _REASONING if last.get(n) == last[name]] if name in _REASONING else [name]
    if not any(n in template for n in names):
        raise TokenizerError(f"continue_final_message: the chat template does not use {name!r}.")
    content = last[name]
    if isinstance(content, (list, tuple)):
        blocks = [block for block in content if isinstance(block, dict) and "text" in block]
        if not blocks:
            raise TokenizerError("continue_final_message: the last message has no text to go on with.")
        content = blocks[-1]["text"]
        blocks[-1]["text"] = content + _CONTINUE
    else:
        for n in names:
            last[n] = f"{content}{_CONTINUE}"
    return str(content)


def _cut_at_mark(text: str, tail: str) -> str:
    at = text.rfind(_CONTINUE.strip())
    if at < 0 or tail.strip() not in text:
        raise TokenizerError("continue_final_message: the chat template leaves out the last message, or changes it.")
    # A template that trims messages has trimmed the mark's space too; then the message's own end is trimmed as well.
    return text[:at] if text[at : at + len(_CONTINUE)] == _CONTINUE else text[:at].rstrip()


def _take_spans(text: str) -> tuple[str, list[Span]]:
    """Remove the marks around what `{% generation %}` blocks wrote. Returns the text and their spans."""
    parts: list[str] = []
    spans, start, length = [], 0, 0
    for part in re.split(f"([{OPEN}{CLOSE}])", text):
        if part == OPEN:
            start = length
        elif part == CLOSE:
            spans.append((start, length))
        else:
            parts.append(part)
            length += len(part)
    return "".join(parts), spans


def has_generation_blocks(template: str) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


class ChatTemplates(SpecialTokens):
    """The part of a tokenizer that writes conversations out."""

    _template: str | dict[str, str] | None = None

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The Jinja template, or several by name."""
        return self._template

    @chat_template.setter
    def chat_template(self, value: object) -> None:
        if isinstance(value, (list, tuple)):  # as tokenizer_config.json lists several
            if not all(isinstance(t, Mapping) and {"name", "template"} <= t.keys() for t in value):
                raise TokenizerError("chat_template: a list must hold mappings with 'name' and 'template'.")
            value = {t["name"]: t["template"] for t in value}
        texts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else []
        if value is None or isinstance(value, str):
            self._template = value
        elif isinstance(value, Mapping) and all(isinstance(text, str) for text in texts):
            self._template = dict(value)
        else:
            raise TokenizerError(f"chat_template must be a Jinja template or a mapping of them, not {value!r:.80}.")

    def get_chat_template(self, chat_template: str | None = None, tools: Sequence[Any] | None = None) -> str:
        """The template that `apply_chat_template` uses for these arguments."""
        return choose_template(self._template, chat_template, tools)

    def apply_chat_template(
        self,
        conversation: ListLike,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **variables: object,
    ) -> Any:
        """Write a conversation (or a list of them) as the model was trained on it, and tokenize that.

        Args:
            conversation: messages with "role" and "content".
            tools: functions, or their JSON schemas, that the model may call.
            documents: mappings with "title" and "text", for templates that use them.
            add_generation_prompt: end with the start of the assistant's next message.
            continue_final_message: end inside the last message, so that the model goes on with it.
            tokenize: False gives the text itself.
            return_dict: False gives the ids alone.
            return_assistant_tokens_mask: "assistant_masks", 1 where `{% generation %}` blocks wrote.
            tokenizer_kwargs: further arguments of the tokenizer call.
            variables: further variables of the template.

        Raises:
            TokenizerError: there is no template, or it does not take this conversation.
        """
        template = self.get_chat_template(chat_template, tools)
        if return_assistant_tokens_mask and not (tokenize and return_dict and has_generation_blocks(template)):
            raise TokenizerError(
                "return_assistant_tokens_mask needs tokenize=True, return_dict=True and a chat template with "
                "{% generation %} blocks."
            )
        batched = bool(conversation) and not isinstance(conversation, (str, Mapping)) and _is_conversation(conversation)
        rendered = [
            render(
                one,
                template,
                tools=tools,
                documents=documents,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                variables={**self.special_tokens_map, **variables},
            )
            for one in (conversation if batched else [conversation])
        ]
        texts = [text for text, _ in rendered]
        if not tokenize:
            return texts if batched else texts[0]
        call: dict[str, Any] = {
            "padding": padding,
            "truncation": truncation,
            "max_length": max_length,
            "return_tensors": return_tensors,
            "add_special_tokens": False,
            **(tokenizer_kwargs or {}),
        }
        encoding = self(texts if batched else texts[0], **call)
        if return_assistant_tokens_mask:
            masks = [_mask(encoding, row, spans) for row, (_, spans) in enumerate(rendered)]
            encoding["assistant_masks"] = masks if batched or return_tensors else masks[0]
            encoding.convert_to_tensors(return_tensors)
        return encoding if return_dict else encoding["input_ids"]

    def __call__(self, text: TextInput = None, **call: Unpack[CallOptions]) -> BatchEncoding:
        raise NotImplementedError


def _is_conversation(conversation: ListLike) -> bool:
    """Whether the first thing in a list is itself a conversation, and not a message."""
    first = conversation[0]
    return isinstance(first, (list, tuple)) or hasattr(first, "messages")


def _mask(encoding: BatchEncoding, row: int, spans: list[Span]) -> list[int]:
    """1 for each token of a row that covers a character inside `spans`."""
    offsets = encoding.encodings[row].offsets if encoding.encodings is not None else []
    return [int(any(start < end and a < end and start < b for a, b in spans)) for start, end in offsets]
